"""P1, P2 and P4 of the leased counter: what processes have borrowed while some of them idle, die, stop or end."""

from __future__ import annotations

import signal
from functools import partial

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from tests.concurrency.books import events_of, periods_of, signals_in, told
from tests.concurrency.clients import idle, insist, lower_limit_at, wait_for
from tests.concurrency.crowd import Crowd, flat
from tests.concurrency.worker import in_thread
from tests.factories import OrganizationFactory
from usage_tracking.ledger import locked
from usage_tracking.models import UsageLease
from usage_tracking.resets import reset_expired

LEASED = {"COUNTER": "leased"}
SHORT_LIVED = LEASED | {"LEASE": {"SETTLE_SECONDS": 0.1, "EXPIRE_SECONDS": 1}}


def counted(organization):
    """What is on record in the end, after checking that nothing is on lease."""
    [period] = periods_of(organization)
    assert period.on_lease == 0
    return period.used


def is_free(pk):
    """Whether somebody else can lock the organization and its period within a second."""
    statements = {
        "postgresql": "SET lock_timeout = '1s'",
        "mysql": "SET innodb_lock_wait_timeout = 1",
        "sqlite": "PRAGMA busy_timeout = 1000",
    }
    with connection.cursor() as cursor:
        cursor.execute(statements[connection.vendor])
    try:
        with locked(pk, "api", now=timezone.now(), using="default"):
            return True
    except OperationalError:
        return False


@pytest.fixture
def leased(crowd):
    """The crowd, with the leased counter as it is by default."""
    crowd.settings = LEASED
    yield crowd
    crowd.settings = {}


def test_exactly_the_limit_is_admitted_whoever_has_it_on_lease(leased, tmp_path):
    """One process idles on its lease, one crawls, two hammer: those who retry for three seconds get exactly the limit.

    Each threshold is announced once.
    """
    organization = OrganizationFactory(usage_reset_mode="manual")
    pk, notebook = organization.pk, tmp_path / "notebook"
    results = leased.run(
        [partial(idle, pk, 40, 1000)],
        [partial(insist, pk, pause=0.05)],
        *[[partial(insist, pk, pause=0.01)] * 4] * 2,
        notebook=notebook,
    )

    assert sum(answer.allowed for answer in flat(results)) == 1000
    assert counted(organization) == 1000
    assert not UsageLease.objects.exists()
    assert [event.threshold for event in events_of(organization, "warning", "exceeded")] == [80, 100]
    assert sorted(signals_in(notebook)) == sorted(told(organization, "warning", "exceeded"))


def test_a_lowered_limit_is_passed_by_what_is_on_lease(leased):
    """What three processes have borrowed when a fourth lowers the limit is all that they still admit."""
    organization = OrganizationFactory(usage_reset_mode="manual", usage_limits={"api": 1_000_000})
    clients = [[partial(insist, organization.pk, pause=0.001)] * 4] * 3
    *results, [committed] = leased.run(*clients, [partial(lower_limit_at, organization.pk, 1000, 100)])

    assert sum(answer.allowed for answer in flat(results)) == counted(organization)
    assert 1000 <= counted(organization) <= committed


def test_killed_and_stopped_processes_cost_at_most_what_they_have_borrowed(test_database_url, tmp_path):
    """One of four processes is killed in mid-load, one is stopped for longer than its lease lasts, and goes on.

    The limit holds. What the dead one had borrowed counts as used, as its events say; the other one gives back, once,
    what it had not spent.
    """
    organization = OrganizationFactory(usage_reset_mode="manual", usage_limits={"api": 6000})
    served = tmp_path / "served"
    served.touch()

    def lost(process):
        return [
            event.data["charged"]
            for event in events_of(organization, "lease_lost")
            if f":{crowd.key_of(process)}:" in event.data["holder"]
        ]

    def on_lease(process):
        leases = UsageLease.objects.filter(holder__contains=f":{crowd.key_of(process)}:", lost_at=None)
        return any(lease.granted > lease.settled + 10 for lease in leases)

    def is_stopped(process):
        # Not where it holds a lock: the others would wait for as long as it sleeps.
        crowd.send_signal(process, signal.SIGSTOP)
        if on_lease(process) and in_thread(is_free, organization.pk):
            return True
        crowd.send_signal(process, signal.SIGCONT)
        return False

    crowd = Crowd(4, test_database_url)
    crowd.settings = SHORT_LIVED
    try:
        crowd.start(*[[partial(insist, organization.pk, pause=0.005, served=served)] * 4] * 4)
        # Stopped first, so that it dies with something on lease.
        wait_for(lambda: on_lease(0) and served.stat().st_size > 300 and is_stopped(0), pause=0.001)
        crowd.send_signal(0, signal.SIGKILL)
        wait_for(lambda: on_lease(1) and is_stopped(1), pause=0.001)
        # The others may have come to their end by now: then the job finds what is lost.
        wait_for(lambda: reset_expired() and lost(0) and lost(1), pause=0.01)
        crowd.send_signal(1, signal.SIGCONT)
        results = crowd.answers(1, 2, 3)
    finally:
        crowd.close()

    used = counted(organization)
    assert served.stat().st_size >= sum(answer.allowed for answer in flat(results)) > 300
    assert used <= 6000
    # Each of its four clients may have died with one admitted that it had not noted yet.
    assert 0 <= used - served.stat().st_size <= sum(lost(0)) + 4
    # The tombstones of the dead alone are left.
    assert {lease.holder.split(":")[1] for lease in UsageLease.objects.all()} == {str(crowd.key_of(0))}
    assert not UsageLease.objects.filter(lost_at=None).exists()
