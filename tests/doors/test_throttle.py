"""The throttle's own: DRF authenticates inside the view, where the view's transaction runs."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import OperationalError, connections, transaction
from django.db.utils import NotSupportedError

from tests.doors import views
from tests.doors.conftest import Caller, used
from tests.factories import Organization, OrganizationFactory
from usage_tracking import databases
from usage_tracking.entitlements import update_limits
from usage_tracking.metering import consume
from usage_tracking.models import UsageEvent, UsagePeriod
from usage_tracking.signals import usage_warning

pytest.importorskip("rest_framework")

BOTH_NAMES = pytest.mark.django_db(transaction=True, databases=["default", "charge"])


def on_sqlite() -> bool:
    """Return whether there are no row locks to speak of."""
    return connections["default"].vendor == "sqlite"


@pytest.fixture
def atomic_requests(monkeypatch):
    """Run every view in a transaction, as ATOMIC_REQUESTS does."""
    monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)


@contextmanager
def somebody_else():
    """Yield a second connection to the same database."""
    connection = connections["default"].copy("somebody_else")
    try:
        yield connection
    finally:
        connection.close()


def held_rows(organization) -> list[str]:
    """Return which rows that a charge needs are locked by somebody, as a second connection sees it."""
    held = []
    with somebody_else() as connection:
        for model, key in ((Organization, organization.pk), (UsagePeriod, open_period_of(organization).pk)):
            quote = connection.ops.quote_name
            column = model._meta.pk
            value = column.get_db_prep_value(key, connection)
            table, where = quote(model._meta.db_table), quote(column.column)
            statement = f"SELECT 1 FROM {table} WHERE {where} = %s FOR UPDATE NOWAIT"  # noqa: S608
            try:
                with connection.cursor() as cursor:
                    cursor.execute(statement, [value])
            except (OperationalError, NotSupportedError):
                held.append(model.__name__)
    return held


def alias_charged(request: Any) -> str:
    """Return where the request that a view serves was charged."""
    return request.usage_outcome.decision.charge.database


def open_period_of(organization) -> UsagePeriod:
    """Return the open row."""
    return UsagePeriod.objects.get(organization=organization, is_open=True)


# -- whose transaction -------------------------------------------------------------------------------------------------


@BOTH_NAMES
@pytest.mark.usefixtures("atomic_requests")
def test_no_row_is_held_while_a_view_runs(configure):
    """Under ATOMIC_REQUESTS with CHARGE_DATABASE a slow view keeps nobody waiting, whichever door charged it.

    Neither does the charge that opens a period: the slow path, too, is over before the view runs.
    """
    if on_sqlite():
        pytest.skip("SQLite has no row locks")
    configure(CHARGE_DATABASE="charge")
    for kind in ("session", "session, both doors", "token", "token, ASGI"):
        caller = Caller(kind, OrganizationFactory())

        def look(_, organization=caller.organization):
            return connections["default"].in_atomic_block, held_rows(organization)

        views.During.action = look
        for counted in (1, 2):
            assert json.loads(caller.get("during").content) == {"answer": [True, []]}
            assert used(caller.organization) == counted


@BOTH_NAMES
@pytest.mark.usefixtures("atomic_requests")
def test_without_it_the_charge_joins_the_views_transaction(organization):
    """The price of leaving CHARGE_DATABASE unset: the period's row is held as long as the view runs."""
    if on_sqlite():
        pytest.skip("SQLite has no row locks")
    views.During.action = lambda _: held_rows(organization)
    consume(organization)
    assert json.loads(Caller("token", organization).get("during").content) == {"answer": ["UsagePeriod"]}


@BOTH_NAMES
@pytest.mark.usefixtures("atomic_requests")
def test_sqlite_joins_whatever_the_setting_says(organization, configure):
    """It has one writer: a second connection would wait for the first."""
    if not on_sqlite():
        pytest.skip("about SQLite")
    configure(CHARGE_DATABASE="charge")
    views.During.action = alias_charged
    assert json.loads(Caller("token", organization).get("during").content) == {"answer": "default"}


@BOTH_NAMES
@pytest.mark.usefixtures("atomic_requests")
@pytest.mark.parametrize("charge_database", [None, "charge"])
def test_a_failing_view_is_given_back_once(configure, charge_database):
    """A charge that joined vanishes with the rollback; one that did not is refunded; neither of them twice."""
    for kind in ("session", "token", "token, ASGI"):
        joined = kind != "session" and (charge_database is None or on_sqlite())
        for refund in (True, False):
            configure(CHARGE_DATABASE=charge_database, REFUND_SERVER_ERRORS=refund)
            caller = Caller(kind, OrganizationFactory())
            consume(caller.organization, 5)
            assert caller.get("raising").status_code == 500
            assert used(caller.organization) == (5 if refund or joined else 6)


@BOTH_NAMES
@pytest.mark.usefixtures("atomic_requests")
def test_a_5xx_that_commits_is_given_back(organization):
    """A view that returns a 500 has its transaction committed, the joined charge with it: that one is refunded."""
    consume(organization, 5)
    assert Caller("token", organization).get("status", status="500").status_code == 500
    assert used(organization) == 5


@BOTH_NAMES
@pytest.mark.usefixtures("atomic_requests")
def test_a_4xx_by_exception_rolls_a_joined_charge_back(organization, configure):
    """DRF rolls back on every exception it handles: joined, the refusals of a view are free; apart, they count."""
    from rest_framework.exceptions import ValidationError  # noqa: PLC0415

    def invalid(_):
        raise ValidationError

    views.During.action = invalid
    caller = Caller("token", organization)
    assert caller.get("during").status_code == 400
    assert used(organization) == 0
    configure(CHARGE_DATABASE="charge")
    assert caller.get("during").status_code == 400
    assert used(organization) == (0 if on_sqlite() else 1)


@pytest.mark.django_db
@pytest.mark.usefixtures("atomic_requests")
@pytest.mark.parametrize("kind", ["session", "token", "token, ASGI"])
def test_a_test_cases_transaction_is_joined(organization, configure, kind):
    """In a host's TestCase both doors see what the test wrote: CHARGE_DATABASE is left alone."""
    configure(CHARGE_DATABASE="charge", ON_COUNTER_ERROR="refuse")
    update_limits(organization, limits={"api": 2})
    caller = Caller(kind, organization)
    assert caller.get("raising").status_code == 500
    assert [caller.get().status_code for _ in range(3)] == [200, 200, 429]
    assert used(organization) == 2


# -- waiting for a row -------------------------------------------------------------------------------------------------


@BOTH_NAMES
@pytest.mark.usefixtures("atomic_requests")
@pytest.mark.parametrize(("on_error", "status"), [("allow", 200), ("refuse", 503)])
def test_a_row_held_by_the_views_own_transaction_is_not_waited_for_long(
    organization, configure, monkeypatch, caplog, on_error, status
):
    """No database sees that deadlock of two connections: the lock timeout ends it, and ON_COUNTER_ERROR decides."""
    if on_sqlite():
        pytest.skip("SQLite joins")
    from tests.doors import drf_views  # noqa: PLC0415

    authenticate = drf_views.OrganizationHeader.authenticate

    def authenticate_and_write(self, request):
        UsagePeriod.objects.filter(organization=organization).update(refused=0)
        return authenticate(self, request)

    monkeypatch.setattr(drf_views.OrganizationHeader, "authenticate", authenticate_and_write)
    monkeypatch.setattr(databases, "LOCK_WAIT_SECONDS", 1)
    configure(CHARGE_DATABASE="charge", ON_COUNTER_ERROR=on_error)
    consume(organization)
    connections["charge"].close()
    caller = Caller("token", organization)
    caller.headers = {"X-Organization": str(organization.pk)}
    assert caller.get().status_code == status
    assert "could not be counted" in caplog.text
    assert used(organization) == 1
    # Nothing is left behind: the next request is counted.
    monkeypatch.setattr(drf_views.OrganizationHeader, "authenticate", authenticate)
    assert caller.get().status_code == 200
    assert used(organization) == 2
    connections["charge"].close()


# -- the other name ----------------------------------------------------------------------------------------------------


@BOTH_NAMES
@pytest.mark.usefixtures("atomic_requests")
def test_a_receiver_gets_an_organization_of_its_own_database(organization, configure, connected):
    """What CHARGE_DATABASE recorded is delivered under the usual alias: the host can relate its objects to it."""
    configure(CHARGE_DATABASE="charge", THRESHOLDS=[50])
    update_limits(organization, limits={"api": 2})
    found = []
    connected(usage_warning, lambda organization, event, **_: found.append((organization._state.db, event._state.db)))
    assert Caller("token", organization).get().status_code == 200
    assert found == [("default", "default")]
    assert not UsageEvent.objects.filter(delivered_at=None).exists()


@BOTH_NAMES
@pytest.mark.usefixtures("atomic_requests")
def test_a_higher_limit_holds_at_once_for_both_names(organization, configure, freeze):
    """A refusal remembered on CHARGE_DATABASE is forgotten by an upgrade on the other alias, in the same instant."""
    freeze("2026-03-10T12:00:00Z")
    configure(CHARGE_DATABASE="charge")
    update_limits(organization, limits={"api": 1})
    caller = Caller("token", organization)
    assert [caller.get().status_code for _ in range(2)] == [200, 429]
    update_limits(organization, limits={"api": 2})
    assert caller.get().status_code == 200


@BOTH_NAMES
@pytest.mark.usefixtures("atomic_requests")
def test_a_refund_holds_at_once_for_both_names(organization, configure, freeze):
    """So is one that a refund has made void."""
    freeze("2026-03-10T12:00:00Z")
    configure(CHARGE_DATABASE="charge")
    update_limits(organization, limits={"api": 1})
    caller = Caller("token", organization)
    refused = []

    def meanwhile(_):
        refused.append(caller.get().status_code)
        raise RuntimeError("The view failed.")

    views.During.action = meanwhile
    assert caller.get("during").status_code == 500
    if not on_sqlite():
        assert refused == [429]
    assert caller.get().status_code == 200


@BOTH_NAMES
def test_outside_of_a_transaction_the_usual_alias_charges(organization, configure):
    """Nothing is gained by a second connection then."""
    configure(CHARGE_DATABASE="charge")
    views.During.action = alias_charged
    for kind in ("session", "token"):
        assert json.loads(Caller(kind, organization).get("during").content) == {"answer": "default"}


@BOTH_NAMES
def test_a_hosts_own_transaction_keeps_its_lock_timeout(organization, configure):
    """Only the connections of CHARGE_DATABASE are told not to wait."""
    if on_sqlite():
        pytest.skip("SQLite has no such setting")
    configure(CHARGE_DATABASE="charge")
    waits = {}
    for alias in ("default", "charge"):
        connection = connections[alias]
        connection.close()
        statement = (
            "SHOW lock_timeout" if connection.vendor == "postgresql" else "SELECT @@SESSION.innodb_lock_wait_timeout"
        )
        with transaction.atomic(using=alias), connection.cursor() as cursor:
            cursor.execute(statement)
            waits[alias] = str(cursor.fetchone()[0]).removesuffix("s")
    assert waits["charge"] == "2"
    assert waits["default"] != "2"
    connections["charge"].close()
