"""How much is lent, and when it is called back."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from tests.factories import OrganizationFactory
from usage_tracking import refusals
from usage_tracking.counters.exact import ExactCounter
from usage_tracking.counters.leased import LeasedCounter
from usage_tracking.lending import BUSY, is_called_back, share
from usage_tracking.models import UsageLease, UsagePeriod

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("wanted", "free", "on_lease", "expected"),
    [
        (16, 10**6, 0, 16),
        (1000, 800, 0, 100),
        (1000, 800, 400, 50),
        (1000, 400, 400, 0),  # half of what is left is for those who have none
        (1000, 16, 0, 2),
        (1000, 15, 0, 0),
        (1, 10**6, 0, 0),
        (16, -5, 10, 0),  # the limit was lowered
    ],
)
def test_a_loan_is_an_eighth_of_what_is_free_at_most(wanted, free, on_lease, expected):
    """Near the limit, and where as much is on lease as is free, nothing is lent."""
    assert share(wanted, free, on_lease=on_lease) == expected


@pytest.mark.parametrize(("seconds", "expected"), [(-1, True), (0, True), (1.9, True), (2, False)])
def test_what_is_called_back_stays_back_until_a_retry(seconds, expected):
    """Everybody has settled once, and whoever was refused has forgotten the refusal."""
    assert is_called_back(NOW, NOW + timedelta(seconds=seconds), 1) is expected
    assert is_called_back(None, NOW, 1) is False


@pytest.fixture
def counters(configure, monkeypatch):
    """Two counters as two processes have them, whose settlers come when the test says so."""
    configure(COUNTER="leased", DEFAULT_LIMIT=100)
    pair = LeasedCounter(ExactCounter()), LeasedCounter(ExactCounter())
    monkeypatch.setattr("usage_tracking.counters.leased.must_be_joined", lambda using: False)
    for counter in pair:
        monkeypatch.setattr(counter._settler, "ensure_running", lambda: None)
        # At the end of the test run there is nothing to return.
        monkeypatch.setattr(counter._settler, "stop", lambda: None)
    yield pair
    for counter in pair:
        counter.forget()


def take_all(counter, organization):
    """Take one at a time until the answer is no; return how many were taken."""
    taken = 0
    while counter.take(organization, 1, "api", now=timezone.now(), using="default"):
        taken += 1
    return taken


@pytest.mark.django_db(transaction=True)
def test_an_idle_lease_comes_back_when_somebody_was_refused_for_want_of_it(counters, freeze):
    """The holder's next settlement returns it, also if it was just busy; a retry a second later finds all of it."""
    freeze(NOW)
    holder, other = counters
    organization = OrganizationFactory()
    for _ in range(BUSY):
        assert holder.take(organization, 1, "api", now=NOW, using="default")
    on_lease = UsageLease.objects.get().granted
    assert on_lease > 1

    assert take_all(other, organization) == 100 - BUSY - on_lease
    assert UsagePeriod.objects.get().called_back_at == NOW

    holder.settle_all(NOW)
    assert not UsageLease.objects.exists()
    assert UsagePeriod.objects.get().on_lease == 0

    freeze(NOW + timedelta(seconds=1))
    refusals.clear()  # that of the other process
    assert take_all(other, organization) == on_lease
    assert UsagePeriod.objects.get().used == 100


@pytest.mark.django_db(transaction=True)
def test_nothing_is_lent_until_whoever_was_refused_may_have_asked_again(counters, freeze, configure):
    """A busy process counts one by one until then, and borrows again afterwards."""
    freeze(NOW)
    holder, _ = counters
    organization = OrganizationFactory()
    holder.take(organization, 1, "api", now=NOW, using="default")
    UsagePeriod.objects.update(called_back_at=NOW)
    for _ in range(3 * BUSY):
        assert holder.take(organization, 1, "api", now=NOW, using="default")
    assert not UsageLease.objects.exists()
    later = NOW + timedelta(seconds=2)
    freeze(later)
    next(iter(holder._accounts.values())).rests_until = 0
    assert holder.take(organization, 1, "api", now=later, using="default")
    assert UsageLease.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_refusal_of_what_would_not_fit_anyway_calls_nothing_back(counters, freeze):
    """Somebody who asks for more than is left cannot keep others from borrowing."""
    freeze(NOW)
    holder, other = counters
    organization = OrganizationFactory()
    for _ in range(BUSY):
        holder.take(organization, 1, "api", now=NOW, using="default")
    assert not other.take(organization, 1000, "api", now=NOW, using="default")
    assert UsagePeriod.objects.get().called_back_at is None
