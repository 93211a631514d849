"""Worker and beat as a host runs them: scheduled resets and deliveries."""

from __future__ import annotations

from datetime import timedelta
from importlib.util import find_spec

import pytest
from django.test import Client
from django.utils import timezone

from tests.factories import MembershipFactory, OrganizationFactory
from tests.services.conftest import PATIENCE
from usage_tracking import signals
from usage_tracking.entitlements import update_limits
from usage_tracking.events import deferred_delivery, deliver_events
from usage_tracking.metering import consume, usage_of
from usage_tracking.models import UsageEvent, UsageLease, UsagePeriod
from usage_tracking.schedule import BEAT_SCHEDULE

pytest.importorskip("celery", reason="Worker and beat need Celery: pip install django-usage-tracking[celery]")

from tests.services.host import application


def expired_organization():
    """Return an organization whose scheduled period has ended long ago."""
    organization = OrganizationFactory(usage_reset_mode="scheduled")
    consume(organization, 5, now=timezone.now() - timedelta(days=70))
    assert usage_of(organization).expired
    return organization


def waiting_event():
    """Return an event whose deliverer has died."""
    organization = OrganizationFactory()
    with deferred_delivery():
        update_limits(organization, limits={"api": 5})
    return UsageEvent.objects.get(organization=organization, delivered_at=None)


def succeeded(host, task):
    """Return whether the worker has finished that task."""
    return any(f"Task {task}[" in line and "succeeded" in line for line in host.log("worker").read_text().splitlines())


def test_beat_and_worker_reset_and_deliver(host):
    """The schedule that users import makes a worker close what has expired, and deliver and prune."""
    organization, event = expired_organization(), waiting_event()
    host.start_worker()
    host.start_beat()
    host.eventually(lambda: not usage_of(organization).expired)
    closed = UsagePeriod.objects.get(organization=organization, is_open=None)
    assert (closed.used, closed.closed_by) == (5, "scheduled")
    reset = UsageEvent.objects.get(period=closed, kind="reset")
    told = host.eventually(
        lambda: (
            {(kind, pk) for _, kind, pk in host.told()} >= {("reset", reset.pk), ("limits_updated", event.pk)}
            and host.told()
        )
    )
    assert {process for process, _, _ in told} == {host.processes["worker"].pid}
    assert len(told) == 2
    host.eventually(lambda: not UsageEvent.objects.filter(delivered_at=None).exists())
    for entry in BEAT_SCHEDULE.values():
        host.eventually(lambda task=entry["task"]: succeeded(host, task))


def test_a_worker_delivers_what_a_request_has_caused(host, configure, connected, as_default):
    """With EVENT_DISPATCH = "celery" receivers run in the worker and not where the request was."""
    configure(EVENT_DISPATCH="celery", DEFAULT_LIMIT=1)
    as_default(host.app)
    here = []
    connected(signals.limit_exceeded, lambda **arguments: here.append(arguments))
    member = MembershipFactory()
    client = Client()
    client.force_login(member.user)
    assert client.get("/api/ping/").status_code == 200
    assert [event.delivered_at for event in UsageEvent.objects.all()] == [None, None]
    host.start_worker()
    host.eventually(lambda: not UsageEvent.objects.filter(delivered_at=None).exists())
    worker = host.processes["worker"].pid
    assert host.told() == [(worker, event.kind, event.pk) for event in UsageEvent.objects.order_by("pk")]
    assert here == []


@pytest.mark.parametrize("url", ["amqp://guest:guest@127.0.0.1:1//", "redis://127.0.0.1:1/0"])
@pytest.mark.django_db(transaction=True)
def test_a_broker_that_is_down_does_not_hurt_the_request(url, configure, connected, as_default, caplog, monkeypatch):
    """It is answered without waiting for the broker, the log says so, and the event waits for the next delivery."""
    if url.startswith("redis"):
        pytest.importorskip("redis", reason="Redis as a broker needs the package `redis`.")
    configure(EVENT_DISPATCH="celery", DEFAULT_LIMIT=1)
    app = application(url, "nobody")
    as_default(app)
    here = []
    connected(signals.limit_exceeded, lambda **arguments: here.append(arguments))
    client = Client()
    client.force_login(MembershipFactory().user)
    naps = []
    monkeypatch.setattr("kombu.utils.functional.sleep", naps.append)
    assert client.get("/api/ping/").status_code == 200
    assert naps == []
    assert "wait in the outbox" in caplog.text
    assert UsageEvent.objects.get(kind="exceeded").delivered_at is None
    assert client.get("/api/ping/").status_code == 429
    assert deliver_events() == 1
    assert len(here) == 1
    app.close()


@pytest.mark.skipif(not find_spec("django_celery_beat"), reason="tox run -e py311-django52-postgres has it.")
def test_the_schedule_works_from_the_database(host):
    """django-celery-beat takes the schedule over into its tables, and its beat makes a worker reset."""
    from django_celery_beat.models import PeriodicTask  # noqa: PLC0415

    organization = expired_organization()
    host.start_worker()
    host.start_beat("--scheduler=django_celery_beat.schedulers:DatabaseScheduler")
    host.eventually(lambda: not usage_of(organization).expired)
    tasks = dict(PeriodicTask.objects.filter(name__startswith="usage-tracking").values_list("name", "task"))
    assert tasks == {name: entry["task"] for name, entry in BEAT_SCHEDULE.items()}


@pytest.mark.parametrize("broker_url", ["RabbitMQ"], indirect=True)
def test_children_of_a_worker_return_what_they_have_borrowed(host, tmp_path):
    """A worker that is told to stop among its tasks leaves nothing on lease, and all that they used is counted."""
    organization, served = OrganizationFactory(usage_limits={"api": None}), tmp_path / "served"
    served.touch()
    host.environment |= {
        "DJANGO_SETTINGS_MODULE": "tests.leases.settings",
        "ORGANIZATION": str(organization.pk),
        "SERVED": str(served),
    }
    host.start("worker", "--pool=prefork", "--concurrency=2", "--without-gossip", "--without-mingle")
    for _ in range(1000):
        host.app.send_task("tests.use")
    host.eventually(lambda: UsageLease.objects.count() == 2 and served.stat().st_size > 100)
    host.processes["worker"].terminate()
    assert host.processes["worker"].wait(PATIENCE) == 0
    assert not UsageLease.objects.exists()
    assert UsagePeriod.objects.get(organization=organization).used == served.stat().st_size
