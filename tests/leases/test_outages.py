"""What goes wrong around leases: the database, the caller's transaction, organizations that are deleted."""

from contextlib import suppress

import pytest
from django.db import OperationalError, connection, transaction
from django.http import HttpResponse

from tests.factories import OrganizationFactory
from tests.leases.tables import NOW, borrow, on_lease, open_row
from tests.outages import database_down
from usage_tracking.counters import leased_counter
from usage_tracking.doors import charge, finish
from usage_tracking.entitlements import update_limits
from usage_tracking.exceptions import OrganizationGone
from usage_tracking.lending import BUSY
from usage_tracking.metering import consume, give_back, record, refund, usage_of
from usage_tracking.models import UsageEvent, UsageHistory, UsageLease, UsagePeriod
from usage_tracking.signals import usage_warning

LENT = 2 * BUSY


class OutageError(Exception):
    """What the caller's transaction fails with."""


# -- the database ------------------------------------------------------------------------------------------------------


def test_requests_go_on_from_the_lease_while_the_database_is_down(organization, monkeypatch):
    """Then the error reaches the caller; what was admitted is settled once the database is back, and no more."""
    borrow(organization, now=NOW)
    with database_down(monkeypatch):
        decisions = [consume(organization, now=NOW) for _ in range(LENT)]
        assert all(decisions)
        for _ in range(2):
            with pytest.raises(OperationalError):
                consume(organization, now=NOW)
            with pytest.raises(OperationalError):
                leased_counter.settle_all(NOW)
        assert give_back(decisions[0], now=NOW) == 1
        assert consume(organization, now=NOW)
        assert give_back(decisions[1], now=NOW) == 1
    leased_counter.settle_all(NOW, closing=True)
    assert (open_row().used, on_lease()) == (BUSY + LENT - 1, [])


def test_the_lease_is_there_after_an_outage_in_a_request(organization, monkeypatch, django_assert_num_queries):
    """A visit that failed was undone: what it would have handed in is spent on."""
    borrow(organization, now=NOW)
    with database_down(monkeypatch), pytest.raises(OperationalError):
        consume(organization, LENT + 1, now=NOW)
    with django_assert_num_queries(0):
        assert consume(organization, LENT, now=NOW)


def test_an_organization_whose_plan_raises_keeps_nobody_else_waiting(
    organization, configure, monkeypatch, another, caplog
):
    """Its lease stays on the books until the host's code is right again."""
    configure(DEFAULT_LIMIT=100, THRESHOLDS=[10])
    other = OrganizationFactory()
    for each in (organization, other):
        borrow(each, now=NOW)
        consume(each, 5, now=NOW)  # past the threshold: the ledger is asked
    get_plan = type(organization).get_usage_plan

    def get_usage_plan(self):
        if self.pk == organization.pk:
            raise RuntimeError("No plan today.")
        return get_plan(self)

    with monkeypatch.context() as patch:
        patch.setattr(type(organization), "get_usage_plan", get_usage_plan)
        leased_counter.settle_all(NOW)
    assert "could not be settled yet" in caplog.text
    rows = UsagePeriod.objects
    assert [rows.get(organization=each).used for each in (organization, other)] == [BUSY, BUSY + 5]
    leased_counter.settle_all(NOW, closing=True)
    assert rows.get(organization=organization).used == BUSY + 5


# -- transactions ------------------------------------------------------------------------------------------------------


def roll_back(organization, *amounts):
    """Consume in a transaction that is rolled back."""
    with suppress(OutageError), transaction.atomic():
        for amount in amounts:
            consume(organization, amount, now=NOW)
        raise OutageError


def test_what_a_transaction_has_consumed_stays_consumed_when_it_is_rolled_back(organization):
    """A lease is never part of the caller's transaction; on SQLite, which has one writer, it is counted exactly."""
    roll_back(organization, BUSY, 5)
    if connection.vendor == "sqlite":
        assert not UsagePeriod.objects.exists()
        assert leased_counter.is_idle
        return
    assert usage_of(organization, now=NOW).used == BUSY + 5
    leased_counter.settle_all(NOW, closing=True)
    assert open_row().used == BUSY + 5


def test_a_lease_can_be_spent_in_a_transaction(organization):
    """It was committed before; on SQLite the transaction is joined, and nothing taken from memory."""
    borrow(organization, now=NOW)
    roll_back(organization, 5)
    leased_counter.settle_all(NOW, closing=True)
    assert open_row().used == (BUSY if connection.vendor == "sqlite" else BUSY + 5)


@pytest.mark.parametrize("kept", [True, False])
def test_a_charge_joins_the_transaction_that_has_changed_its_organization(organization, kept):
    """Nobody else can count there until it is over, and the caller waits for nobody but themselves."""
    borrow(organization, now=NOW)
    with suppress(OutageError), transaction.atomic():
        update_limits(organization, limits={"api": 50}, now=NOW)
        assert not consume(organization, 50, now=NOW)
        assert consume(organization, 5, now=NOW).charge.joined
        assert usage_of(organization, now=NOW).used == BUSY + 5
        if not kept:
            raise OutageError
    leased_counter.settle_all(NOW, closing=True)
    assert usage_of(organization, now=NOW).used == (BUSY + 5 if kept else BUSY)
    assert bool(consume(organization, 50, now=NOW)) is not kept


def test_a_charge_joins_the_transaction_that_has_made_its_organization(transactional_db):
    """It is not there for anybody else yet."""
    with transaction.atomic():
        organization = OrganizationFactory()
        assert consume(organization, now=NOW)
    assert open_row().used == 1


@pytest.mark.parametrize("status", [200, 500])
def test_a_joined_charge_that_was_rolled_back_is_not_given_back_as_well(organization, rf, status):
    """A door knows what has become of it."""
    borrow(organization, now=NOW)
    request = rf.get("/api/")
    with suppress(OutageError), transaction.atomic():
        update_limits(organization, limits={"api": 50}, now=NOW)
        assert charge(request, lambda request: None, lambda: organization).decision.charge.joined
        raise OutageError
    finish(request, HttpResponse(status=status))
    leased_counter.settle_all(NOW, closing=True)
    assert usage_of(organization, now=NOW).used == BUSY


@pytest.mark.django_db
def test_in_a_test_case_it_is_counted_exactly():
    """The transaction of a test case is joined: a host's tests see what they have consumed, and no lease."""
    organization = OrganizationFactory()
    for _ in range(5):
        borrow(organization, now=NOW)
    assert open_row().used == 5 * BUSY
    assert not UsageLease.objects.exists()
    assert leased_counter.is_idle


# -- organizations that go ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["settler", "request"])
def test_an_organization_that_is_deleted_takes_its_leases_with_it(organization, by):
    """Whoever notices first, the settler or a request, nothing is left, in the database or in memory."""
    borrow(organization, now=NOW)
    consume(organization, 5, now=NOW)
    stale = type(organization)._base_manager.get(pk=organization.pk)
    organization.delete()
    if by == "request":
        with pytest.raises(OrganizationGone):
            consume(stale, LENT, now=NOW)
    for _ in range(3):
        leased_counter.settle_all(NOW)
    assert leased_counter.is_idle
    for model in (UsageLease, UsagePeriod, UsageHistory, UsageEvent):
        assert not model.objects.exists()


@pytest.mark.parametrize("locks", [False, True])
def test_a_refund_in_a_transaction_finds_what_it_gives_back(organization, locks):
    """What is on lease here is settled in that transaction, also if the caller has locked the organization."""
    borrow(organization, now=NOW)
    decision = consume(organization, LENT, now=NOW)
    with transaction.atomic():
        if locks:
            type(organization)._base_manager.select_for_update().get(pk=organization.pk)
        given = refund(decision, now=NOW)
        assert usage_of(organization, now=NOW).used == BUSY
    assert given == LENT
    leased_counter.settle_all(NOW, closing=True)
    assert open_row().used == BUSY


def test_receivers_are_called_when_the_callers_transaction_is_over(organization, configure, connected):
    """What a request in it has announced is committed before, but receivers are none of its business."""
    configure(DEFAULT_LIMIT=100, THRESHOLDS=[10])
    told = []
    connected(usage_warning, lambda **_: told.append(connection.in_atomic_block))
    with transaction.atomic():
        record(organization, 50, now=NOW)
        assert told == []
    assert told == [False]
