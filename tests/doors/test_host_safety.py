"""What goes wrong around us, or in us, never becomes a 500 of the host's (P6)."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connections, transaction

from tests.doors import views
from tests.doors.conftest import DOORS, Caller, used
from tests.factories import Organization, OrganizationFactory, UserFactory
from tests.outages import database_down
from usage_tracking.entitlements import sync_limits, update_limits
from usage_tracking.metering import consume
from usage_tracking.models import UsageEvent, UsagePeriod
from usage_tracking.resolvers import default_resolver
from usage_tracking.signals import limit_exceeded, limits_updated, usage_warning

IN_EARNEST = pytest.mark.django_db(transaction=True)

OUTCOMES = {"allow": 200, "refuse": 503}


def stub(organization) -> Any:
    """The organization as a resolver may know it from a token, say: by its key."""
    return Organization(pk=organization.pk)


def fail(*args):
    """Raise, whatever is asked."""
    raise RuntimeError("It failed.")


@pytest.fixture
def stateless(configure):
    """Yield callers through each of the doors whose own requests need no database, each with an organization."""
    # Not one test per caller: each of these tests ends with a flush of the whole database.

    def callers():
        for kind in DOORS:
            caller = Caller(kind, OrganizationFactory()).anonymous()
            known = stub(caller.organization)
            configure(ORGANIZATION_RESOLVER=default_resolver if caller.by_token else lambda _, known=known: known)
            yield caller

    return callers


def everybody():
    """Yield a caller through each of the doors, each with an organization."""
    for kind in DOORS:
        yield Caller(kind, OrganizationFactory())


# -- the counter's database --------------------------------------------------------------------------------------------


@contextmanager
def table_gone(_):
    """Take away the table of the periods only."""
    connection = connections["default"]
    quote = connection.ops.quote_name
    table = UsagePeriod._meta.db_table
    rename = f"ALTER TABLE {quote(table)} RENAME TO {quote(f'{table}_gone')}"
    restore = f"ALTER TABLE {quote(f'{table}_gone')} RENAME TO {quote(table)}"
    with connection.cursor() as cursor:
        cursor.execute(rename)
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(restore)


@contextmanager
def connection_lost(_):
    """Have the server end the session, as an operator or a failover does; SQLite: close it under our feet."""
    connection = connections["default"]
    connection.ensure_connection()
    if connection.vendor == "sqlite":
        connection.connection.close()
    else:
        other = connection.copy("operator")
        ask, end = {
            "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend(%s)"),
            "mysql": ("SELECT CONNECTION_ID()", "KILL %s"),
        }[connection.vendor]
        with connection.cursor() as cursor:
            cursor.execute(ask)
            session = cursor.fetchone()[0]
        with other.cursor() as cursor:
            cursor.execute(end, [session])
        other.close()
    yield
    connection.close()


@IN_EARNEST
@pytest.mark.parametrize("disaster", [database_down, table_gone, connection_lost])
def test_a_counter_that_is_down_is_no_server_error(stateless, configure, monkeypatch, caplog, disaster):
    """ON_COUNTER_ERROR lets the request through uncounted, or answers 503; once it is back, requests are counted."""
    for caller in stateless():
        caplog.clear()
        consume(caller.organization)
        configure(ON_COUNTER_ERROR="allow")
        with disaster(monkeypatch):
            allowed = caller.get()
        assert allowed.status_code == 200
        assert "RateLimit" not in allowed.headers
        assert "could not be counted" in caplog.text
        configure(ON_COUNTER_ERROR="refuse")
        with disaster(monkeypatch):
            refused = caller.get()
        assert refused.status_code == 503
        assert refused.headers["Content-Type"] == "application/problem+json"
        assert refused.headers["Cache-Control"] == "no-store"
        assert json.loads(refused.content) == {
            "type": "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
            "title": "Usage cannot be counted right now",
            "status": 503,
            "detail": "The request was not carried out. Please try again in a moment.",
        }
        assert caller.get().status_code == 200
        assert used(caller.organization) == 2


@IN_EARNEST
def test_a_refund_that_fails_is_only_logged(stateless, monkeypatch, caplog):
    """The database goes away while the view runs: the view's own error is what the caller reads."""
    for caller in stateless():
        caplog.clear()
        consume(caller.organization)
        disaster = database_down(monkeypatch)

        def lose_the_database(_, disaster=disaster):
            disaster.__enter__()
            fail()

        views.During.action = lose_the_database
        assert caller.get("during").status_code == 500
        disaster.__exit__(None, None, None)
        assert "could not be told its usage" in caplog.text
        assert used(caller.organization) == 2


@IN_EARNEST
def test_a_charge_that_fails_leaves_the_views_transaction_usable(organization, monkeypatch, caplog):
    """Joined to the view's transaction, a failed statement is undone alone: the view's own queries go on."""
    monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)
    caller = Caller("token", organization)
    views.During.action = lambda _: Organization.objects.count()
    with table_gone(monkeypatch):
        response = caller.get("during")
    assert json.loads(response.content) == {"answer": 1}
    assert "could not be counted" in caplog.text


# -- the resolver ------------------------------------------------------------------------------------------------------


NONSENSE = {
    "raises": fail,
    "a string": lambda _: "acme",
    "a number": lambda _: 42,
    "an object": lambda _: object(),
    "another model": lambda _: UserFactory.build(),
    "the model itself": lambda _: Organization,
    "unsaved": lambda _: Organization(pk=None),
}


@pytest.mark.django_db
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("kind", DOORS)
def test_a_resolver_that_fails_is_no_server_error(organization, configure, caplog, kind, asynchronous):
    """Whether it raises or returns nonsense, sync or async, in a sync or an async stack."""
    caller = Caller(kind, organization)
    for case, resolver in NONSENSE.items():

        async def aresolver(request, resolver=resolver):
            return resolver(request)

        for on_error, status in OUTCOMES.items():
            caplog.clear()
            configure(ORGANIZATION_RESOLVER=aresolver if asynchronous else resolver, ON_COUNTER_ERROR=on_error)
            assert caller.get().status_code == status, case
            assert "could not be counted" in caplog.text, case
    assert used(organization) == 0


@pytest.mark.django_db
@pytest.mark.parametrize("kind", DOORS)
def test_a_resolver_may_be_sync_or_async_under_both(organization, configure, kind):
    """Each kind of resolver works in each kind of stack."""

    async def aresolver(request):
        return stub(organization)

    caller = Caller(kind, organization)
    configure(ORGANIZATION_RESOLVER=aresolver)
    assert caller.get().status_code == 200
    configure(ORGANIZATION_RESOLVER=lambda _: stub(organization))
    assert caller.get().status_code == 200
    assert used(organization) == 2


@pytest.mark.django_db
@pytest.mark.parametrize("kind", DOORS)
def test_a_resolver_that_cannot_be_imported_is_no_server_error(organization, configure, kind):
    """A typing error in the settings is logged with each request."""
    caller = Caller(kind, organization)
    configure(ORGANIZATION_RESOLVER="accounts.resolver.nowhere")
    assert caller.get().status_code == 200
    configure(ON_COUNTER_ERROR="refuse")
    assert caller.get().status_code == 503


# -- what views and settings say ---------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("kind", DOORS)
def test_an_amount_that_is_none_is_no_server_error(organization, configure, caplog, kind):
    """A callable that raises, or returns 0, True, 2.5, "3" or None, is logged, and the request counts as 1."""
    caller = Caller(kind, organization)
    configure(ON_COUNTER_ERROR="refuse")
    for count, amount in enumerate(("zero", "true", "fraction", "text", "nothing", "raises KeyError"), start=1):
        caplog.clear()
        assert caller.get("weighed", amount=amount).status_code == 200, amount
        assert "it counts as 1" in caplog.text, amount
        assert used(organization) == count, amount


@pytest.mark.django_db
@pytest.mark.parametrize("kind", DOORS)
def test_an_unknown_meter_is_no_server_error(organization, configure, kind):
    """The system checks name it; until then ON_COUNTER_ERROR decides."""
    caller = Caller(kind, organization)
    assert caller.get("tokens").status_code == 200
    configure(ON_COUNTER_ERROR="refuse")
    assert caller.get("tokens").status_code == 503


WRONG = [
    {"PATHS": 7},
    {"ENABLED": "yes"},
    {"EXEMPT_METHODS": None},
    {"METERS": []},
    {"PLANS": fail},
    {"DEFAULT_LIMIT": -1},
    {"HEADERS": ["morse"]},
    {"REFUND_SERVER_ERRORS": 1},
    {"CHARGE_DATABASE": "nowhere"},
    {"ON_COUNTER_ERROR": "panic", "ENABLED": 0},
]


@pytest.mark.django_db
@pytest.mark.parametrize("kind", DOORS)
def test_settings_that_are_wrong_are_no_server_error(organization, settings, kind):
    """The system checks name them; a request that they spoil is let through."""
    caller = Caller(kind, organization)
    for wrong in WRONG:
        settings.USAGE_TRACKING = wrong
        assert caller.get().status_code == 200, wrong
        assert caller.get("status", status="500").content == b"as asked", wrong


# -- transactions, copies, other databases -----------------------------------------------------------------------------


@IN_EARNEST
def test_what_was_rolled_back_is_not_remembered():
    """A period that was never committed is opened again, and a limit that never was refuses nobody."""
    for caller in everybody():
        with transaction.atomic():
            assert consume(caller.organization)
            update_limits(caller.organization, limits={"api": 1})
            assert not consume(caller.organization)
            transaction.set_rollback(True)
        assert not UsagePeriod.objects.filter(organization=caller.organization).exists()
        assert caller.get().status_code == 200
        assert caller.get().status_code == 200
        assert used(caller.organization) == 2


@IN_EARNEST
def test_the_engine_never_reads_from_a_replica(stateless, configure, connected, settings, monkeypatch):
    """With a router that sends reads to a replica, here one that is down, all goes as ever."""
    configure(ON_COUNTER_ERROR="refuse", THRESHOLDS=[50])
    told = []
    connected(limits_updated, lambda actor, **_: told.append(actor))
    callers = list(stateless())
    down = {**connections["default"].settings_dict, "PORT": "1"}
    if connections["default"].vendor == "sqlite":
        down["NAME"] = "/nonexistent/db.sqlite3"
    monkeypatch.setitem(connections.settings, "replica", down)
    settings.DATABASE_ROUTERS = ["tests.doors.routers.ReadsGoToTheReplica"]
    for caller in callers:
        organization = caller.organization
        configure(ORGANIZATION_RESOLVER=lambda _, organization=organization: organization)
        update_limits(organization, limits={"api": 2}, actor=caller.user)
        assert told.pop() == caller.user
        responses = [caller.get(), caller.get("raising"), caller.get(), caller.get()]
        assert [response.status_code for response in responses] == [200, 500, 200, 429]
        assert used(organization) == 2
        sync_limits(organization)
    assert not UsageEvent.objects.using("default").filter(delivered_at=None).exists()


@pytest.mark.django_db
def test_a_stale_save_writes_no_count_back(caller):
    """The host saves an organization it read before the requests came."""
    stale = Organization.objects.get(pk=caller.organization.pk)
    for _ in range(3):
        caller.get()
    stale.name = "renamed"
    stale.save()
    assert used(stale) == 3
    assert caller.get().headers["RateLimit"].startswith('"api";r=996')


PLANS = {"small": {"limits": {"api": 1}}, "large": {"limits": {"api": 3}}}


@IN_EARNEST
def test_a_saved_plan_holds_at_once(configure, freeze):
    """A billing webhook saves `usage_plan`, and the next request of the same instant is under the new one."""
    freeze("2026-03-10T12:00:00Z")
    configure(PLANS=PLANS)
    for caller in everybody():
        webhook = Organization.objects.get(pk=caller.organization.pk)
        webhook.usage_plan = "small"
        webhook.save()
        assert [caller.get().status_code for _ in range(2)] == [200, 429]
        webhook.usage_plan = "large"
        webhook.save()
        assert [caller.get().status_code for _ in range(3)] == [200, 200, 429]
        webhook.usage_plan = "small"
        webhook.save()
        assert caller.get().status_code == 429


@pytest.mark.django_db
@pytest.mark.parametrize("kind", ["session", "token"])
@pytest.mark.parametrize("how", ["wait", "sync"])
def test_an_edited_plan_holds_from_the_next_bucket_at_the_latest(organization, configure, freeze, kind, how):
    """PLANS with another limit holds when the open bucket ends, or when `sync_limits` says so."""
    freeze(datetime(2026, 3, 10, 12, tzinfo=UTC))
    configure(PLANS=PLANS)
    update_limits(organization, plan="large")
    caller = Caller(kind, organization)
    assert caller.get().status_code == 200
    configure(PLANS={"large": {"limits": {"api": 1}}})
    if how == "wait":
        freeze(datetime(2026, 3, 11, tzinfo=UTC))
    else:
        sync_limits(organization)
    assert caller.get().status_code == 429


@IN_EARNEST
@pytest.mark.parametrize("fails", [False, True])
def test_an_organization_deleted_in_mid_flight_is_no_server_error(stateless, configure, fails):
    """Its usage goes with it: what was to be refunded or counted has nowhere to go, and no row stays behind."""
    for caller in stateless():
        organization = caller.organization
        consume(organization)

        def delete(_, pk=organization.pk):
            Organization.objects.get(pk=pk).delete()
            if fails:
                fail()

        views.During.action = delete
        assert caller.get("during").status_code == (500 if fails else 200)
        for on_error, status in OUTCOMES.items():
            configure(ON_COUNTER_ERROR=on_error)
            assert caller.get().status_code == status
        assert not UsagePeriod.objects.exists()
        assert not UsageEvent.objects.exists()


# -- telling -----------------------------------------------------------------------------------------------------------


@IN_EARNEST
@pytest.mark.parametrize("atomic", [False, True])
def test_receivers_run_when_the_response_is_ready(configure, connected, monkeypatch, atomic):
    """Not between charge and view: what the view wrote is committed, and no transaction runs."""
    monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", atomic)
    configure(THRESHOLDS=[50])
    order: list[Any] = []

    def receiver(organization, **_):
        order.append(("told", organization.name, connections["default"].in_atomic_block))

    connected(usage_warning, receiver)
    for caller in everybody():
        if atomic and caller.stack == "async":
            continue  # Django has no ATOMIC_REQUESTS for async views
        update_limits(caller.organization, limits={"api": 2})

        def write(_, pk=caller.organization.pk):
            order.append("view")
            Organization.objects.filter(pk=pk).update(name="written by the view")

        views.During.action = write
        order.clear()
        assert caller.get("during").status_code == 200
        assert order == ["view", ("told", "written by the view", False)]


@IN_EARNEST
def test_a_raising_receiver_hurts_nobody(connected, caplog):
    """It is logged; the response goes out, the other receivers are told, and the event is not sent again."""
    told = []

    def fail_loudly(**_):
        fail()

    connected(limit_exceeded, fail_loudly)
    connected(limit_exceeded, lambda event, **_: told.append(event.pk))
    for caller in everybody():
        update_limits(caller.organization, limits={"api": 1})
        caplog.clear()
        told.clear()
        assert [caller.get().status_code for _ in range(2)] == [200, 429]
        assert len(told) == 1
        assert "raised" in caplog.text


@IN_EARNEST
def test_an_outbox_that_cannot_be_delivered_waits(configure, connected):
    """Celery that is missing or down delays the news and nothing else."""
    told = []
    connected(limit_exceeded, lambda event, **_: told.append(event.pk))
    connected(usage_warning, lambda event, **_: told.append(event.pk))
    for caller in everybody():
        update_limits(caller.organization, limits={"api": 2})
        told.clear()
        configure(THRESHOLDS=[50], EVENT_DISPATCH="pigeon")
        assert caller.get().status_code == 200
        assert not told
        configure(EVENT_DISPATCH="inline")
        assert caller.get().status_code == 200
        assert len(told) == 2
