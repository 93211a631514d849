"""What goes wrong around leases: the database, the caller's transaction, organizations that are deleted."""

from contextlib import contextmanager, suppress
from functools import partial
from threading import Event, Timer

import pytest
from asgiref.sync import async_to_sync
from django.db import OperationalError, connection, transaction
from django.http import HttpResponse

from tests.factories import Organization, OrganizationFactory
from tests.leases.tables import NOW, borrow, on_lease, open_row
from tests.leases.threads import PATIENCE, in_thread
from tests.outages import database_down
from usage_tracking.counters import leased, leased_counter, settlement
from usage_tracking.counters.accounts import BRIEFLY
from usage_tracking.counters.settlement import CommitUnknown
from usage_tracking.databases import apart, limit_own_waits
from usage_tracking.doors import charge, finish
from usage_tracking.entitlements import update_limits
from usage_tracking.exceptions import OrganizationGone
from usage_tracking.lending import BUSY
from usage_tracking.metering import aconsume, adjust, consume, give_back, record, refund, usage_of
from usage_tracking.models import UsageEvent, UsageHistory, UsageLease, UsagePeriod
from usage_tracking.signals import usage_warning

LENT = 2 * BUSY

on_a_server = pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time: it joins.")


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


def test_an_error_passes_over_nobody(organization, monkeypatch):
    """Only who was left out for a locked row is waited for the next time."""
    borrow(organization, now=NOW)
    [account] = leased_counter._accounts.values()
    with database_down(monkeypatch), pytest.raises(OperationalError):
        leased_counter.settle_all(NOW)
    assert not account.is_due


def test_after_a_commit_without_an_answer_what_comes_back_goes_to_the_database(organization, monkeypatch):
    """What was spent may have been written, so that less of it would be counted twice or not at all."""
    borrow(organization, now=NOW)
    decision = consume(organization, 5, now=NOW)

    def write(*offers, **options):
        settlement.write(*offers, **options)
        raise CommitUnknown

    monkeypatch.setattr(leased, "write", write)
    with pytest.raises(CommitUnknown):
        leased_counter.settle_all(NOW)
    monkeypatch.undo()
    assert open_row().used == BUSY + 5
    assert give_back(decision, now=NOW) == 5
    assert open_row().used == BUSY
    leased_counter.settle_all(NOW, closing=True)
    assert (open_row().used, on_lease()) == (BUSY, [])


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


def lock_period(organization):
    """Lock its open period for as long as the transaction lasts."""
    UsagePeriod.objects.select_for_update().get(organization=organization)


def settle_with_a_limit():
    """Do as the settler does, which waits for no row for long."""
    limit_own_waits("default")
    leased_counter.settle_all(NOW)


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
    request.usage_outcome = request.usage_problem = None
    with suppress(OutageError), transaction.atomic():
        update_limits(organization, limits={"api": 50}, now=NOW)
        assert charge(request, lambda request: None, lambda: organization)
        assert request.usage_outcome.decision.charge.joined
        raise OutageError
    finish(request, HttpResponse(status=status))
    leased_counter.settle_all(NOW, closing=True)
    assert usage_of(organization, now=NOW).used == BUSY


@on_a_server
def test_that_its_transaction_must_be_joined_is_found_out_once(organization, monkeypatch):
    """It takes a wait in vain."""
    borrow(organization, now=NOW)
    tried = []
    monkeypatch.setattr(leased, "apart", lambda *args, **options: tried.append(1) or apart(*args, **options))
    with transaction.atomic():
        lock_period(organization)
        assert all(consume(organization, LENT + 1, now=NOW).charge.joined for _ in range(5))
    assert 1 <= len(tried) <= 2


@pytest.mark.parametrize("undo", ["block", "savepoint"])
def test_a_lease_that_was_settled_in_vain_is_still_to_be_settled(organization, undo):
    """However the caller's transaction undoes it: Django hears nothing of a savepoint that is made by hand."""
    borrow(organization, now=NOW)
    consume(organization, 5, now=NOW)
    with transaction.atomic():
        if undo == "block":
            with suppress(OutageError), transaction.atomic():
                refund(organization, 1, now=NOW)
                raise OutageError
        else:
            savepoint = connection.savepoint()
            refund(organization, 1, now=NOW)
            connection.savepoint_rollback(savepoint)
    leased_counter.settle_all(NOW, closing=True)
    assert (open_row().used, on_lease()) == (BUSY + 5, [])


@on_a_server
def test_what_was_joined_and_given_back_is_undone_as_a_whole(organization):
    """The lease gets nothing back that was not taken from it."""
    borrow(organization, now=NOW)
    consume(organization, 10, now=NOW)
    with suppress(OutageError), transaction.atomic():
        lock_period(organization)
        decision = consume(organization, 7, now=NOW)
        assert give_back(decision, now=NOW) == 7
        raise OutageError
    leased_counter.settle_all(NOW, closing=True)
    assert open_row().used == BUSY + 10


def test_what_was_taken_before_is_given_back_in_a_transaction_that_holds_the_period(organization):
    """Nobody else can do so while it lasts."""
    borrow(organization, now=NOW)
    decision = consume(organization, 5, now=NOW)
    with transaction.atomic():
        adjust(organization, used=100, now=NOW)
        assert give_back(decision, now=NOW) == 5
    leased_counter.settle_all(NOW, closing=True)
    assert open_row().used == 95


@pytest.mark.parametrize("counter", ["exact", "leased"])
def test_a_transaction_that_has_made_room_is_admitted(organization, configure, counter):
    """What is remembered of a refusal is void for the transaction at once, and not only when it is committed."""
    configure(DEFAULT_LIMIT=10, COUNTER=counter)
    assert consume(organization, 10)
    assert not consume(organization)
    with transaction.atomic():
        update_limits(organization, limits={"api": 100})
        assert consume(organization)


@contextmanager
def meanwhile(act):
    """Somebody else's transaction, which acts and stays open until the event that it yields, or the block's end."""
    acted, enough = Event(), Event()

    def run():
        with transaction.atomic():
            act()
            acted.set()
            enough.wait(PATIENCE)

    thread = in_thread(run)
    assert acted.wait(PATIENCE)
    try:
        yield enough
    finally:
        enough.set()
        thread.result(PATIENCE)


@on_a_server
@pytest.mark.parametrize(
    ("act", "used"),
    [
        pytest.param(lambda organization: refund(organization, 1, now=NOW), [BUSY + 2], id="refund"),
        pytest.param(lambda organization: Organization._base_manager.get(pk=organization.pk).delete(), [], id="delete"),
        pytest.param(lock_period, [BUSY + 3], id="lock"),
    ],
)
def test_an_open_transaction_keeps_nobody_else_from_being_settled(organization, act, used):
    """What it has locked is settled the next time; the others are settled at once."""
    others = [OrganizationFactory() for _ in range(3)]
    for each in (organization, *others):
        borrow(each, now=NOW)
        consume(each, 3, now=NOW)
    with meanwhile(partial(act, organization)):
        in_thread(settle_with_a_limit).result(PATIENCE)
        assert [UsagePeriod.objects.get(organization=each).used for each in others] == [BUSY + 3] * 3
    leased_counter.settle_all(NOW, closing=True)
    assert list(UsagePeriod.objects.filter(organization=organization).values_list("used", flat=True)) == used


@on_a_server
def test_who_was_passed_over_gets_in_line(organization, monkeypatch):
    """A row that is always locked when the settler comes is waited for the second time."""
    borrow(organization, now=NOW)
    consume(organization, 3, now=NOW)
    waited = []
    monkeypatch.setattr(leased_counter, "_settle_alone", lambda account, *_, **options: waited.append(account))
    with meanwhile(partial(lock_period, organization)):
        in_thread(settle_with_a_limit).result(PATIENCE)
        assert waited == []
        in_thread(settle_with_a_limit).result(PATIENCE)
        assert len(waited) == 1
    monkeypatch.undo()
    leased_counter.settle_all(NOW, closing=True)
    assert open_row().used == BUSY + 3


@on_a_server
@pytest.mark.django_db(transaction=True, databases=["default", "charge"])
def test_who_cannot_join_waits_for_a_visit_in_another_thread(organization, configure):
    """A charge on CHARGE_DATABASE has no transaction that could be joined instead."""
    configure(CHARGE_DATABASE="charge")
    borrow(organization, now=NOW)
    [account] = leased_counter._accounts.values()
    with meanwhile(partial(lock_period, organization)) as enough:
        visitor = in_thread(partial(consume, organization, 100, now=NOW))
        while not account.turn.locked():
            enough.wait(0.01)
        Timer(4 * BRIEFLY, enough.set).start()
        with transaction.atomic():
            assert consume(organization, LENT + 1, now=NOW, using="charge")
        assert visitor.result(PATIENCE)
    leased_counter.settle_all(NOW, closing=True)
    assert open_row().used == BUSY + 100 + LENT + 1


@pytest.mark.django_db(transaction=True, databases=["default", "charge"])
def test_there_is_one_lease_for_both_names_of_a_database(organization, configure):
    """A caller who names CHARGE_DATABASE spends what was borrowed under its home, sync and async."""
    configure(CHARGE_DATABASE="charge")
    borrow(organization, now=NOW)
    assert consume(organization, 2, now=NOW, using="charge")
    assert async_to_sync(aconsume)(organization, 3, now=NOW, using="charge")
    assert [account.lease.spent for account in leased_counter._accounts.values()] == [5]
    leased_counter.settle_all(NOW, closing=True)
    assert open_row().used == BUSY + 5


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
