"""Who is lent how much, and what that means to everybody else."""

from itertools import pairwise

import pytest

from tests.leases.tables import NOW, borrow, on_lease, open_row, take
from usage_tracking import lending
from usage_tracking.counters import leased_counter
from usage_tracking.counters.exact import ExactCounter
from usage_tracking.lending import BUSY, Demand, kept, share
from usage_tracking.metering import consume, record, usage_of, would_allow

# -- arithmetic --------------------------------------------------------------------------------------------------------


def test_a_busy_process_keeps_what_it_needs_for_two_intervals():
    """One that is not busy keeps nothing, however much a call of it takes."""
    assert [kept(Demand(BUSY, BUSY)), kept(Demand(500, BUSY)), kept(Demand(500, 500))] == [2 * BUSY, 1000, 1000]
    assert [kept(Demand(0, 0)), kept(Demand(10**6, BUSY - 1))] == [0, 0]


def test_nobody_borrows_more_than_an_eighth_of_what_is_free():
    """However much is wanted; and never more than is wanted."""
    for free in range(-50, 3000):
        assert share(10**9, free) <= max(free, 0) // 8
        assert share(100, free) <= 100


def test_shares_shrink_with_what_is_left():
    """Until nothing is lent any more: the last units are counted one by one."""
    shares = [share(10**9, free) for free in range(3000, -50, -1)]
    assert all(earlier >= later for earlier, later in pairwise(shares))
    assert [share(10**9, free) for free in (17, 16, 15, 1, 0, -1)] == [2, 2, 0, 0, 0, 0]


def test_the_number_of_grants_grows_with_the_logarithm_of_the_quota():
    """Ten times the quota costs as many grants more, wherever one starts."""

    def grants(free):
        count = 0
        while size := share(free, free):
            free -= size
            count += 1
        return count

    counts = [grants(10**exponent) for exponent in range(3, 12)]
    assert all(0 < more - less <= 18 for less, more in pairwise(counts))


# -- the first lease ---------------------------------------------------------------------------------------------------


def test_an_idle_organization_is_counted_in_the_database(organization):
    """What is asked for now and then needs no lease."""
    for _ in range(BUSY - 1):
        consume(organization, now=NOW)
    assert on_lease() == []
    assert open_row().used == BUSY - 1


def test_a_few_large_amounts_need_no_lease(organization):
    """A hundred units, ninety of which are in one call, are not asked for often."""
    for amount in (90, 5, 5):
        consume(organization, amount, now=NOW)
    assert on_lease() == []
    assert open_row().used == 100


def test_a_busy_organization_is_counted_from_memory(organization, django_assert_num_queries):
    """Once a process was called BUSY times in an interval, the requests behind it do not reach the database."""
    for _ in range(BUSY):
        consume(organization, now=NOW)
    assert on_lease() == [2 * BUSY]
    assert open_row().on_lease == 2 * BUSY
    with django_assert_num_queries(0):
        decisions = [consume(organization, now=NOW) for _ in range(2 * BUSY)]
    assert [decision.usage.used for decision in decisions] == list(range(BUSY + 1, 3 * BUSY + 1))
    assert open_row().used == BUSY


def test_leases_that_run_out_within_one_interval_grow_with_all_that_it_took(organization, configure):
    """What earlier leases of the interval have spent is demand, too."""
    configure(DEFAULT_LIMIT=100_000)
    taken = 0
    for _ in range(4):
        for _ in range(BUSY if not taken else on_lease()[0] + 1):
            consume(organization, now=NOW)
            taken += 1
        assert on_lease() == [2 * taken]


def test_nothing_is_lent_near_the_limit(organization, configure):
    """There, every unit is counted in the database, up to the limit."""
    configure(DEFAULT_LIMIT=20)
    assert [bool(consume(organization, now=NOW)) for _ in range(25)] == [True] * 20 + [False] * 5
    assert on_lease() == []
    assert open_row().used == 20


def test_a_limit_is_reached_to_the_unit(organization, configure):
    """From leases that shrink, and then one by one."""
    configure(DEFAULT_LIMIT=200)
    assert [bool(consume(organization, now=NOW)) for _ in range(210)] == [True] * 200 + [False] * 10
    assert usage_of(organization, now=NOW).used == 200
    leased_counter.settle_all(NOW, closing=True)
    assert open_row().used == 200


def test_a_refusal_at_the_limit_is_made_from_memory(organization, configure, django_assert_num_queries):
    """After the database has said it once."""
    configure(DEFAULT_LIMIT=10)
    assert not consume(organization, 11, now=NOW)
    with django_assert_num_queries(0):
        assert not consume(organization, 11, now=NOW)


def test_what_is_counted_afterwards_comes_from_the_lease_too(organization, django_assert_num_queries):
    """`record()` as well; past the lease it is counted in the database, past the limit if need be."""
    borrow(organization, now=NOW)
    with django_assert_num_queries(0):
        record(organization, 10, now=NOW)
    assert record(organization, 2000, now=NOW).usage.used == BUSY + 2010


# -- what others see ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counter", ["exact", "leased"])
def test_what_is_on_lease_is_as_good_as_used_to_others(organization, configure, another, counter):
    """Another process, whichever counter it has, gets the rest and not a unit more."""
    configure(DEFAULT_LIMIT=100, THRESHOLDS=[])
    other = {"exact": ExactCounter, "leased": another}[counter]()
    borrow(organization, now=NOW)
    [lent] = on_lease()
    free = 100 - BUSY - lent
    assert not take(other, organization, free + 1)
    for amount in (free - 1, 1):
        assert take(other, organization, amount)
    assert not take(other, organization, 1)
    assert consume(organization, lent, now=NOW)
    assert not consume(organization, now=NOW)
    leased_counter.settle_all(NOW, closing=True)
    assert open_row().used == 100 - sum(on_lease())


def test_readers_in_the_same_process_see_what_is_not_settled(organization):
    """`usage_of` is at the latest count here, and lags elsewhere."""
    borrow(organization, now=NOW)
    consume(organization, 5, now=NOW)
    assert usage_of(organization, now=NOW).used == BUSY + 5
    assert open_row().used == BUSY


def test_whoever_asks_beforehand_is_told_what_consume_would_do(organization, configure):
    """`would_allow` knows that what this process has on lease is its own."""
    configure(DEFAULT_LIMIT=100)
    borrow(organization, now=NOW)
    consume(organization, 5, now=NOW)
    left = 100 - BUSY - 5
    assert not would_allow(organization, left + 1, now=NOW)
    assert would_allow(organization, left, now=NOW)
    assert consume(organization, left, now=NOW)


# -- the next ones -----------------------------------------------------------------------------------------------------


def test_a_lease_in_use_is_topped_up_by_demand(organization):
    """A settlement writes what was spent and lends what two intervals like this one need."""
    borrow(organization, now=NOW)
    consume(organization, 2 * BUSY, now=NOW)
    leased_counter.settle_all(NOW)
    assert open_row().used == 3 * BUSY
    assert on_lease() == [lending.AHEAD * 3 * BUSY]
    assert usage_of(organization, now=NOW).used == 3 * BUSY


def test_a_lease_out_of_use_is_returned(organization):
    """Two intervals later there is none."""
    borrow(organization, now=NOW)
    for _ in range(3):
        leased_counter.settle_all(NOW)
    assert on_lease() == []
    assert open_row().on_lease == 0
    assert leased_counter.is_idle


def test_a_process_that_stops_returns_everything_and_borrows_no_more(organization, another):
    """Requests that still come are counted in the database."""
    process = another()
    take(process, organization)
    take(process, organization, 3)
    process.stop()
    assert on_lease() == []
    assert open_row().used == BUSY + 3
    # By the clock of the machine, it has settled in a later month.
    take(process, organization)
    assert on_lease() == []
    assert usage_of(organization, now=NOW).used == 2 * BUSY + 3
