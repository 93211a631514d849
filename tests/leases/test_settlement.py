"""What was spent is counted where it was spent, once, whatever has happened there since."""

from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Event

import pytest
from django.db import InterfaceError, OperationalError, connection, transaction

from tests.concurrency.books import periods_of, unbalanced, used_by_bucket
from tests.factories import OrganizationFactory
from tests.leases.tables import DAY, NEXT_MONTH, NOW, announced, borrow, on_lease, open_row, take
from tests.leases.threads import PATIENCE, in_thread
from usage_tracking.conf import SettingError
from usage_tracking.counters import accounts, leased, leased_counter
from usage_tracking.counters.settlement import write
from usage_tracking.lending import BUSY
from usage_tracking.metering import consume, give_back, record, usage_of
from usage_tracking.models import UsageEvent, UsageLease, UsagePeriod
from usage_tracking.periods import ResetMode
from usage_tracking.resets import reset, reset_expired
from usage_tracking.signals import usage_warning

MIDNIGHT = datetime(2026, 6, 10, tzinfo=UTC)
TICK = timedelta(microseconds=1)


def close_bucket(other, organization):
    """Another process counts on the next day."""
    take(other, organization, 1, now=NOW + DAY)


def close_period(other, organization):
    """Another process counts in the next month."""
    take(other, organization, 1, now=NEXT_MONTH)


def reset_by_hand(other, organization):
    """Staff resets, and another process counts on."""
    with other.settled(organization.pk, "api", now=NOW + DAY, using="default", visitor=ResetMode.MANUAL) as [ledger]:
        ledger.close_now()
    take(other, organization, 1, now=NOW + DAY)


# -- boundaries --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("closes", [close_bucket, close_period, reset_by_hand])
@pytest.mark.parametrize("returns", [True, False])
def test_what_was_spent_is_counted_in_the_bucket_it_was_spent_in(organization, another, closes, returns):
    """Although another process has closed the bucket, or the period, before it was settled."""
    borrow(organization, now=NOW)
    consume(organization, 5, now=NOW)
    closes(another(), organization)
    assert used_by_bucket(organization) == {MIDNIGHT: BUSY, open_row().bucket_start: 1}
    leased_counter.settle_all(NOW + DAY, closing=returns)
    assert used_by_bucket(organization) == {MIDNIGHT: BUSY + 5, open_row().bucket_start: 1}
    periods = periods_of(organization)
    assert [period.used for period in periods] == ([BUSY + 6] if len(periods) == 1 else [BUSY + 5, 1])


def test_both_are_counted_where_the_host_has_two_names_for_a_key(organization):
    """An int and a str, say, from a token: each has an account, and a lease."""
    namesake = type(organization)(pk=str(organization.pk))
    for named in (organization, namesake):
        borrow(named, now=NOW)
        consume(named, 5, now=NOW)
    leased_counter.settle_all(NOW)
    assert open_row().used == 2 * (BUSY + 5)
    leased_counter.settle_all(NOW, closing=True)
    assert (open_row().used, open_row().on_lease) == (2 * (BUSY + 5), 0)


def test_what_was_spent_before_a_reset_in_the_same_process_is_in_the_period_that_it_closes(organization):
    """And the next request begins anew."""
    borrow(organization, now=NOW)
    consume(organization, 5, now=NOW)
    assert reset(organization, now=NOW + TICK).used == 0
    assert consume(organization, now=NOW + TICK).usage.used == 1
    assert [period.used for period in periods_of(organization)] == [BUSY + 5, 1]


def test_the_scheduled_job_leaves_what_is_on_lease_to_its_holder(organization, another, configure):
    """Many periods are closed at once, but for those on lease, which are closed one by one; nothing is lost."""
    configure(RESET_MODE="scheduled")
    other = another()
    take(other, organization)
    take(other, organization, 5)
    assert reset_expired(NEXT_MONTH).closed == 1
    other.settle_all(NEXT_MONTH, closing=True)
    assert [period.used for period in periods_of(organization)] == [BUSY + 5, 0]


def test_late_usage_moves_with_its_lease(organization, another, configure):
    """A scheduled period goes on past its end; what is on lease there belongs to the next period, once there is one."""
    configure(RESET_MODE="scheduled")
    other = another()
    consume(organization, now=NOW)
    take(other, organization, now=NEXT_MONTH)
    take(other, organization, 5, now=NEXT_MONTH)
    reset_expired(NEXT_MONTH)
    assert [row.on_lease for row in periods_of(organization)] == [0, sum(on_lease())]
    other.settle_all(NEXT_MONTH, closing=True)
    assert [row.used for row in periods_of(organization)] == [1, BUSY + 5]


def test_nothing_is_settled_into_a_closed_period_whose_end_is_where_a_bucket_begins(organization, another, configure):
    """What was lent in that bucket is of the next period, which a job that is a month late closes as well."""
    configure(RESET_MODE="scheduled")
    other, july, august = another(), datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 8, 1, tzinfo=UTC)
    consume(organization, now=NOW)
    take(other, organization, now=july)
    take(other, organization, 5, now=july)
    reset_expired(august)
    other.settle_all(august)
    assert [row.used for row in periods_of(organization)] == [1, BUSY + 5, 0]
    assert used_by_bucket(organization)[july] == BUSY + 5
    assert not unbalanced()


@pytest.mark.parametrize("boundary", [MIDNIGHT + DAY, datetime(2026, 7, 1, tzinfo=UTC)])
def test_a_lease_ends_with_its_bucket(organization, boundary):
    """The first request after midnight, or in the next month, is counted there, and what came before it, before it."""
    borrow(organization, now=boundary - DAY / 2)
    assert consume(organization, 2, now=boundary - TICK).charge.bucket_start == boundary - DAY
    assert consume(organization, now=boundary).charge.bucket_start == boundary
    assert used_by_bucket(organization) == {boundary - DAY: BUSY + 2, boundary: 1}


def test_a_clock_that_lags_behind_does_not_spend_from_a_later_bucket(organization):
    """It is held to the open bucket, as under the exact counter."""
    borrow(organization, now=NOW + DAY)
    assert consume(organization, now=NOW).charge.bucket_start == MIDNIGHT + DAY
    assert usage_of(organization, now=NOW + DAY).used == BUSY + 1


def test_a_bucket_that_is_empty_again_is_kept_while_something_of_it_is_on_lease(organization, another):
    """What is spent of the lease after all is counted there."""
    charges = [consume(organization, now=NOW).charge for _ in range(BUSY)]
    other = another()
    assert sum(other.give_back(charge, now=NOW) for charge in charges) == BUSY
    consume(organization, 5, now=NOW)
    close_bucket(other, organization)
    leased_counter.settle_all(NOW + DAY, closing=True)
    assert used_by_bucket(organization) == {MIDNIGHT: 5, MIDNIGHT + DAY: 1}


# -- who comes in between ----------------------------------------------------------------------------------------------


@pytest.fixture
def busy(organization):
    """Two organizations on lease here, each with 5 to settle."""
    organizations = [organization, OrganizationFactory()]
    for each in organizations:
        borrow(each, now=NOW)
        consume(each, 5, now=NOW)
    return organizations


@pytest.mark.parametrize("closing", [False, True])
def test_a_row_that_somebody_has_locked_is_waited_for_when_all_is_returned(organization, monkeypatch, closing):
    """Otherwise it is settled the next time, so that it keeps nobody else waiting."""
    if not connection.features.has_select_for_update_skip_locked:
        pytest.skip("This database waits for the row in any case.")
    borrow(organization, now=NOW)
    consume(organization, 5, now=NOW)
    passed_by = Event()

    def write_and_tell(offers, **options):
        settled = write(offers, **options)
        passed_by.set()
        return settled

    with monkeypatch.context() as patch, transaction.atomic():
        UsagePeriod.objects.select_for_update().get()
        patch.setattr(leased, "write", write_and_tell)
        settlement = in_thread(lambda: leased_counter.settle_all(NOW, closing=closing))
        assert passed_by.wait(PATIENCE)
        if not closing:
            settlement.result(PATIENCE)
    settlement.result(PATIENCE)
    assert (open_row().used, len(on_lease())) == ((BUSY + 5, 0) if closing else (BUSY, 1))


@pytest.mark.parametrize("error", [OperationalError, InterfaceError, RuntimeError])
def test_a_settlement_that_fails_holds_up_nobody(busy, monkeypatch, error):
    """Whatever it was: everybody's turn ends, what could be settled is, and the rest when it is tried again."""
    monkeypatch.setattr(leased, "BATCH", 1)
    batches = []

    def write_second(offers, **options):
        batches.append(offers)
        if len(batches) == 1:
            raise error("It failed.")
        return write(offers, **options)

    with monkeypatch.context() as patch:
        patch.setattr(leased, "write", write_second)
        with pytest.raises(error):
            leased_counter.settle_all(NOW)
    assert [UsagePeriod.objects.get(organization=each).used for each in busy] == [BUSY, BUSY + 5]
    for each in busy:
        assert in_thread(partial(consume, each, 100, now=NOW)).result(PATIENCE)
    assert [UsagePeriod.objects.get(organization=each).used for each in busy] == [BUSY + 105, BUSY + 105]


def test_a_lease_whose_settings_are_broken_holds_up_nobody(busy, configure):
    """The settings are read anew each time."""
    configure(LEASE={"LOST": "?"})
    with pytest.raises(SettingError):
        leased_counter.settle_all(NOW)
    configure(LEASE={})
    for each in busy:
        assert in_thread(partial(consume, each, 100, now=NOW)).result(PATIENCE)


# -- announcements -----------------------------------------------------------------------------------------------------


@pytest.fixture
def at_ten_percent(configure):
    """Warn at 10 of 100."""
    configure(DEFAULT_LIMIT=100, THRESHOLDS=[10])


def test_a_threshold_is_announced_when_it_is_settled(organization, at_ten_percent, connected):
    """Once: the settlement that finds it reached tells it, and the next ones do not."""
    told = []
    connected(usage_warning, lambda used, **_: told.append(used))
    borrow(organization, now=NOW)
    consume(organization, 5, now=NOW)
    assert told == []
    for _ in range(4):
        leased_counter.settle_all(NOW)
    assert told == [BUSY + 5]
    assert announced() == [(open_row().pk, 10)]


def test_a_lease_that_has_something_to_announce_is_returned_like_any_other(organization, at_ten_percent):
    """The way through the slow path lends nothing when all is returned."""
    borrow(organization, now=NOW)
    consume(organization, 5, now=NOW)
    leased_counter.settle_all(NOW, closing=True)
    assert (announced(), on_lease()) == ([(open_row().pk, 10)], [])


@pytest.mark.parametrize("closes", [close_period, reset_by_hand])
def test_a_threshold_of_a_closed_period_is_announced_by_a_late_settlement(
    organization, another, at_ten_percent, closes
):
    """Once, and about that period."""
    borrow(organization, now=NOW)
    period = open_row()
    consume(organization, 5, now=NOW)
    closes(another(), organization)
    assert announced() == []
    for _ in range(3):
        leased_counter.settle_all(NEXT_MONTH)
    assert announced() == [(period.pk, 10)]


def ask(organization):
    """The next request comes in the next month."""
    consume(organization, now=NEXT_MONTH)


def do_reset(organization):
    """Staff resets."""
    reset(organization, now=NOW)


def run_the_job(organization):
    """The job comes in the next month."""
    reset_expired(NEXT_MONTH)


@pytest.mark.parametrize("visit", [ask, do_reset, run_the_job])
def test_a_threshold_is_announced_by_the_visit_that_settles_it_and_closes_its_period(
    organization, at_ten_percent, visit
):
    """Before the reset."""
    borrow(organization, now=NOW)
    period = open_row()
    consume(organization, 5, now=NOW)
    visit(organization)
    assert not UsagePeriod.objects.get(pk=period.pk).is_open
    assert announced() == [(period.pk, 10)]
    kinds = UsageEvent.objects.filter(period=period).order_by("pk").values_list("kind", flat=True)
    assert list(kinds) == ["warning", "reset"]


def test_a_receiver_may_consume(organization, at_ten_percent, connected):
    """From a settlement, and from a request that has to ask the database: nobody waits for themselves."""

    def consume_again(**_):
        consume(organization, 2, now=NOW)

    connected(usage_warning, consume_again)

    def requests():
        borrow(organization, now=NOW)
        consume(organization, 5, now=NOW)
        leased_counter.settle_all(NOW)  # warns at 10
        reset(organization, now=NOW)
        record(organization, 50, now=NOW)  # once more

    in_thread(requests).result(PATIENCE)
    leased_counter.settle_all(NOW, closing=True)
    assert [period.used for period in periods_of(organization)] == [BUSY + 7, 52]


# -- refunds -----------------------------------------------------------------------------------------------------------


def test_what_is_given_back_is_on_the_lease_again(organization, django_assert_num_queries):
    """Without the database, while its bucket is on lease here."""
    borrow(organization, now=NOW)
    decision = consume(organization, 5, now=NOW)
    with django_assert_num_queries(0):
        assert give_back(decision, now=NOW) == 5
        assert consume(organization, 2 * BUSY, now=NOW)
    leased_counter.settle_all(NOW, closing=True)
    assert open_row().used == 3 * BUSY


@pytest.mark.parametrize("returned", [False, True])
def test_what_is_given_back_after_it_was_settled_is_counted_no_more(organization, returned):
    """Whether the lease that it came from is still there or not."""
    borrow(organization, now=NOW)
    decision = consume(organization, 5, now=NOW)
    leased_counter.settle_all(NOW, closing=returned)
    assert give_back(decision, now=NOW) == 5
    assert usage_of(organization, now=NOW).used == BUSY
    leased_counter.settle_all(NOW, closing=True)
    assert open_row().used == BUSY


def test_what_is_given_back_while_it_is_settled_is_counted_no_more(organization, monkeypatch):
    """It waits for the settlement."""
    borrow(organization, now=NOW)
    decision = consume(organization, 5, now=NOW)
    [account] = leased_counter._accounts.values()
    refunds = []

    def write_meanwhile(offers, **options):
        assert not account.take_back(decision.charge)
        refunds.append(in_thread(lambda: give_back(decision, now=NOW)))
        settled = write(offers, **options)
        assert not refunds[0].done()
        return settled

    with monkeypatch.context() as patch:
        patch.setattr(leased, "write", write_meanwhile)
        leased_counter.settle_all(NOW)
    assert refunds[0].result(PATIENCE) == 5
    assert usage_of(organization, now=NOW).used == BUSY
    leased_counter.settle_all(NOW, closing=True)
    assert open_row().used == BUSY


def test_what_is_given_back_after_its_period_was_closed_comes_out_of_it(organization, another):
    """The lease knows its bucket, whoever has closed it."""
    borrow(organization, now=NOW)
    decision = consume(organization, 5, now=NOW)
    close_period(another(), organization)
    assert give_back(decision, now=NEXT_MONTH) == 5
    leased_counter.settle_all(NEXT_MONTH, closing=True)
    assert [period.used for period in periods_of(organization)] == [BUSY, 1]


# -- commits whose answer is lost --------------------------------------------------------------------------------------


@pytest.mark.parametrize("closing", [False, True])
def test_a_settlement_whose_answer_was_lost_is_repeated_and_counts_once(organization, monkeypatch, closing):
    """Memory holds totals: what is in the database already is not added to it."""
    borrow(organization, now=NOW)
    consume(organization, 5, now=NOW)

    def write_and_fail(offers, **options):
        write(offers, **options)
        raise OperationalError("server closed the connection unexpectedly")

    with monkeypatch.context() as patch:
        patch.setattr(leased, "write", write_and_fail)
        with pytest.raises(OperationalError):
            leased_counter.settle_all(NOW, closing=closing)
    consume(organization, 3, now=NOW)
    leased_counter.settle_all(NOW, closing=True)
    assert open_row().used == BUSY + 8
    assert not UsageLease.objects.exists()


def test_a_visit_whose_answer_was_lost_settles_once(organization, monkeypatch):
    """The request's own amount is counted, as its error says it may be; what was on lease is counted once.

    The lease that was lent in it is nobody's: it is lost when it expires.
    """
    borrow(organization, now=NOW)
    consume(organization, 5, now=NOW)
    locked = accounts.locked

    def lock_and_fail(*args, **options):
        manager = locked(*args, **options)

        class Failing:
            def __enter__(self):
                return manager.__enter__()

            def __exit__(self, *error):
                manager.__exit__(*error)
                raise OperationalError("server closed the connection unexpectedly")

        return Failing()

    with monkeypatch.context() as patch:
        patch.setattr(accounts, "locked", lock_and_fail)
        with pytest.raises(OperationalError):
            consume(organization, 50, now=NOW)
    consume(organization, 3, now=NOW)
    leased_counter.settle_all(NOW, closing=True)
    assert open_row().used == BUSY + 5 + 50 + 3
    assert UsageLease.objects.get().settled == 0
