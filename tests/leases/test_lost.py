"""Leases whose holders have died, or seemed to."""

from datetime import timedelta

import pytest

from tests.concurrency.books import periods_of, used_by_bucket
from tests.leases.tables import DAY, NOW, borrow, on_lease, open_row, take
from usage_tracking.counters import accounts, leased, leased_counter
from usage_tracking.leases import bury_lost_leases
from usage_tracking.lending import BUSY
from usage_tracking.metering import consume, usage_of
from usage_tracking.models import UsageEvent, UsageLease
from usage_tracking.resets import reset_expired

LENT = 2 * BUSY
EXPIRED = NOW + timedelta(seconds=31)


@pytest.fixture(autouse=True)
def _now(freeze):
    freeze(NOW)


@pytest.fixture
def stranded(organization, another):
    """A process that has spent 5 of its lease and is not heard of any more."""
    process = another()
    take(process, organization)
    take(process, organization, 5)
    return process


def losses():
    """Return (amount, charged) of each lost lease on record."""
    return [(event.data["amount"], event.data["charged"]) for event in UsageEvent.objects.filter(kind="lease_lost")]


# -- what becomes of it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lost", "charged"), [("charge", LENT), ("forgive", 0)])
def test_a_lost_lease_is_charged_or_forgiven_with_an_event(organization, stranded, configure, freeze, lost, charged):
    """As LEASE says; the event states how much, and who held it."""
    configure(LEASE={"LOST": lost})
    lease = UsageLease.objects.get()
    freeze(EXPIRED)
    assert bury_lost_leases("default") == LENT
    assert (open_row().used, open_row().on_lease) == (BUSY + charged, 0)
    event = UsageEvent.objects.get(kind="lease_lost")
    assert event.organization_id == organization.pk
    assert event.period == open_row()
    told = {name: event.data[name] for name in ("amount", "charged", "holder")}
    assert told == {"amount": LENT, "charged": charged, "holder": lease.holder}
    assert bury_lost_leases("default") == 0
    assert losses() == [(LENT, charged)]


def test_a_lease_that_has_not_expired_is_left_alone(stranded, freeze):
    """Its holder may be slow."""
    freeze(EXPIRED - timedelta(seconds=2))
    assert bury_lost_leases("default") == 0
    assert on_lease() == [LENT]


def test_a_settlement_renews_a_lease(organization, stranded, freeze):
    """The time that it has begins anew."""
    freeze(EXPIRED - timedelta(seconds=2))
    stranded.settle_all(NOW)
    freeze(EXPIRED)
    assert bury_lost_leases("default") == 0
    assert losses() == []


def test_the_scheduled_reset_sees_to_lost_leases(stranded, freeze):
    """So that nobody needs another job."""
    freeze(EXPIRED)
    reset_expired()
    assert losses() == [(LENT, LENT)]


@pytest.mark.parametrize(("lost", "admitted"), [("charge", False), ("forgive", True)])
def test_whoever_is_short_of_room_looks_for_lost_leases(organization, another, configure, freeze, lost, admitted):
    """A request that does not fit need not wait for a job."""
    configure(DEFAULT_LIMIT=100, LEASE={"LOST": lost})
    take(another(), organization)
    assert not consume(organization, 100 - BUSY)
    freeze(EXPIRED)
    assert bool(consume(organization, 100 - BUSY)) is admitted
    assert len(losses()) == 1


def test_what_is_lost_in_a_closed_bucket_is_charged_there(organization, stranded, freeze):
    """However late somebody notices."""
    midnight = open_row().bucket_start
    freeze(NOW + DAY)
    consume(organization)
    bury_lost_leases("default")
    assert used_by_bucket(organization) == {midnight: BUSY + LENT, midnight + DAY: 1}


# -- who comes back ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["charge", "forgive"])
def test_a_holder_that_comes_back_settles_what_it_has_spent_once(organization, stranded, configure, freeze, lost):
    """What it was charged and had not spent is given back; what it was forgiven and had spent is charged."""
    configure(LEASE={"LOST": lost})
    freeze(EXPIRED)
    bury_lost_leases("default")
    for _ in range(3):
        stranded.settle_all(EXPIRED, closing=True)
        assert open_row().used == BUSY + 5
    assert not UsageLease.objects.exists()


def test_a_holder_that_comes_back_in_a_request_settles_first(organization, stranded, freeze, monkeypatch):
    """It does not wait for the settler."""
    freeze(EXPIRED)
    bury_lost_leases("default")
    monkeypatch.setattr(accounts, "monotonic", lambda: 1e12)
    decision = take(stranded, organization, 1, now=EXPIRED)
    assert decision.usage.used == BUSY + 6


def test_a_holder_comes_back_to_a_closed_bucket(organization, stranded, freeze):
    """It settles there, and nowhere else."""
    midnight = open_row().bucket_start
    freeze(NOW + 20 * DAY + timedelta(hours=12))  # July
    consume(organization)
    bury_lost_leases("default")
    assert [period.used for period in periods_of(organization)] == [BUSY + LENT, 1]
    stranded.settle_all(NOW + 21 * DAY, closing=True)
    assert [period.used for period in periods_of(organization)] == [BUSY + 5, 1]
    assert used_by_bucket(organization)[midnight] == BUSY + 5


def test_after_a_week_it_is_too_late_to_come_back(stranded, freeze):
    """The loss stands as it was charged, and nothing is left of the lease."""
    freeze(EXPIRED)
    bury_lost_leases("default")
    freeze(EXPIRED + 8 * DAY)
    bury_lost_leases("default")
    assert not UsageLease.objects.exists()
    stranded.settle_all(EXPIRED + 8 * DAY, closing=True)
    assert open_row().used == BUSY + LENT


def test_nothing_is_spent_past_half_of_the_time(organization, monkeypatch, django_assert_num_queries):
    """By the holder's own clock, which nobody sets: the other half is for settling."""
    clock = [1000.0]
    for module in (accounts, leased):
        monkeypatch.setattr(module, "monotonic", lambda: clock[0])
    borrow(organization)
    clock[0] += 14
    with django_assert_num_queries(0):
        consume(organization)
    clock[0] += 1
    assert consume(organization).usage.used == BUSY + 2
    assert open_row().used == BUSY + 2
    assert usage_of(organization).used == BUSY + 2
    leased_counter.settle_all(NOW, closing=True)
