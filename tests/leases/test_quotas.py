"""Limits that change, enforcement that does not refuse, and meters that are counted differently."""

from datetime import timedelta

import pytest
from asgiref.sync import async_to_sync

from tests.leases.tables import NOW, announced, borrow, on_lease, open_row, take
from usage_tracking.counters import leased_counter
from usage_tracking.entitlements import update_limits
from usage_tracking.lending import BUSY
from usage_tracking.metering import aconsume, adjust, consume, refund, usage_of
from usage_tracking.models import UsageEvent, UsageLease
from usage_tracking.quotas import MAX_AMOUNT

LENT = 2 * BUSY


# -- limits ------------------------------------------------------------------------------------------------------------


def test_a_limit_lowered_in_the_same_process_holds_at_once(organization):
    """What was on lease is handed in first."""
    borrow(organization, now=NOW)
    consume(organization, 5, now=NOW)
    update_limits(organization, limits={"api": 10}, now=NOW)
    assert not consume(organization, now=NOW)
    assert (open_row().used, on_lease()) == (BUSY + 5, [])


def test_a_limit_lowered_elsewhere_is_passed_by_no_more_than_what_was_on_lease(organization, another):
    """Who has borrowed may spend what is borrowed; after that, nothing is lent and nothing admitted."""
    other = another()
    take(other, organization)
    update_limits(organization, limits={"api": BUSY}, now=NOW)
    assert not consume(organization, now=NOW)
    admitted = sum(bool(take(other, organization, 1)) for _ in range(LENT + 10))
    assert admitted == LENT
    other.settle_all(NOW)
    assert on_lease() == []
    assert open_row().used == BUSY + LENT
    assert announced() == [(open_row().pk, 80), (open_row().pk, 100)]


def test_a_raised_limit_is_seen_at_once_in_the_same_process(organization, configure):
    """The refusal that was kept in memory is void."""
    configure(DEFAULT_LIMIT=10)
    borrow(organization, now=NOW)
    assert not consume(organization, 5, now=NOW)
    update_limits(organization, limits={"api": 1000}, now=NOW)
    assert consume(organization, 5, now=NOW)


def test_what_is_refused_because_it_is_on_lease_elsewhere_is_not_announced_as_exceeded(
    organization, another, configure
):
    """It may come back unspent: the limit is exceeded when it is used, or when what is used leaves no room."""
    configure(DEFAULT_LIMIT=100, THRESHOLDS=[])
    take(another(), organization)
    assert not consume(organization, 100 - BUSY, now=NOW)
    assert announced() == []
    later = NOW + timedelta(seconds=2)  # until then it is refused from memory
    assert not consume(organization, 100 - BUSY + 1, now=later)
    assert announced() == [(open_row().pk, 100)]


def test_a_correction_counts_what_is_on_lease_here_first(organization):
    """The event says what was used in truth."""
    borrow(organization, now=NOW)
    consume(organization, 5, now=NOW)
    assert adjust(organization, used=3, now=NOW).used == 3
    assert UsageEvent.objects.get(kind="adjusted").data["previous_used"] == BUSY + 5
    leased_counter.settle_all(NOW, closing=True)
    assert open_row().used == 3


@pytest.mark.parametrize("of_a_decision", [True, False])
def test_a_refund_counts_what_is_on_lease_here_first(organization, of_a_decision):
    """So that there is something to give back."""
    borrow(organization, now=NOW)
    decision = consume(organization, 5, now=NOW)
    given = refund(decision, now=NOW) if of_a_decision else refund(organization, 5, now=NOW)
    assert given == 5
    assert UsageEvent.objects.get(kind="refunded").data["amount"] == 5
    assert usage_of(organization, now=NOW).used == open_row().used == BUSY


# -- enforcement -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("enforcement", ["soft", "shadow"])
def test_where_nothing_is_refused_leases_pass_the_limit(organization, configure, enforcement, caplog):
    """All of it is counted, and announced once; shadow logs each that hard would have refused, as it always does."""
    configure(DEFAULT_LIMIT=10, ENFORCEMENT=enforcement)
    borrow(organization, now=NOW)
    assert on_lease() == [LENT]
    assert all(consume(organization, now=NOW) for _ in range(LENT))
    for _ in range(4):
        leased_counter.settle_all(NOW)
    assert (open_row().used, on_lease()) == (BUSY + LENT, [])
    assert announced() == [(open_row().pk, 80), (open_row().pk, 100)]
    logged = [record for record in caplog.records if record.name == "usage_tracking.shadow"]
    assert len(logged) == (BUSY + LENT - 10 if enforcement == "shadow" else 0)


def test_an_unlimited_meter_is_lent_what_it_needs(organization, configure):
    """And never more than numbers can hold."""
    configure(DEFAULT_LIMIT=None)
    borrow(organization, now=NOW)
    consume(organization, LENT, now=NOW)
    leased_counter.settle_all(NOW, closing=True)
    assert open_row().used == BUSY + LENT
    adjust(organization, used=MAX_AMOUNT - 15, now=NOW)
    borrow(organization, now=NOW)
    assert on_lease() == []


# -- meters ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("default", "leased"), [("leased", "api"), ("exact", "tokens")])
def test_each_meter_has_its_own_counter(organization, configure, default, leased):
    """COUNTER says it for all, and METERS for one; what one of them does is nothing to the other."""
    others = {"leased": "exact", "exact": "leased"}
    configure(COUNTER=default, METERS={"tokens": {"counter": others[default], "default_limit": 1000}})
    for meter in ("api", "tokens"):
        borrow(organization, meter=meter, now=NOW)
        consume(organization, 5, meter, now=NOW)
    assert UsageLease.objects.get().meter == leased
    [exact] = {"api", "tokens"} - {leased}
    assert (open_row(exact).used, open_row(leased).used) == (BUSY + 5, BUSY)
    update_limits(organization, limits={exact: 500}, now=NOW)
    assert [usage_of(organization, meter, now=NOW).used for meter in ("api", "tokens")] == [BUSY + 5, BUSY + 5]
    leased_counter.settle_all(NOW, closing=True)
    assert open_row(leased).used == BUSY + 5


def test_a_meter_that_is_not_leased_any_more_is_settled_all_the_same(organization, configure):
    """After a change of settings under `override_settings`, nothing is lost."""
    borrow(organization, now=NOW)
    consume(organization, 5, now=NOW)
    configure(COUNTER="exact")
    assert consume(organization, now=NOW)
    leased_counter.settle_all(NOW, closing=True)
    assert open_row().used == BUSY + 6


def test_while_counting_is_switched_off_nothing_is_lent(organization, configure):
    """Everything is allowed, and nothing counted; what was spent before is settled."""
    borrow(organization, now=NOW)
    consume(organization, 5, now=NOW)
    configure(ENABLED=False)
    assert all(consume(organization, 500, now=NOW) for _ in range(10))
    assert async_to_sync(aconsume)(organization, now=NOW)  # which looks into memory first
    for _ in range(3):
        leased_counter.settle_all(NOW)
    assert (open_row().used, on_lease()) == (BUSY + 5, [])
