"""Deleting old history."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.factories import OrganizationFactory
from usage_tracking import pruning
from usage_tracking.exceptions import InvalidInput
from usage_tracking.metering import consume, history_of, refund
from usage_tracking.models import UsageEvent, UsageHistory, UsagePeriod
from usage_tracking.pruning import PruneReport, prune_history
from usage_tracking.verification import verify_usage

NOW = datetime(2026, 6, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def used(organization, configure):
    """An organization that used 1 on each of the 100 days before NOW."""
    configure(HISTORY_RETENTION_DAYS=30)
    for days in range(100, -1, -1):
        consume(organization, now=NOW - days * DAY)
    return organization


def days():
    """Return the days on record, oldest first."""
    return [f"{start:%m-%d}" for start in UsageHistory.objects.order_by("start").values_list("start", flat=True)]


def test_old_history_of_closed_periods_goes(used):
    """What ended more than so many days ago is deleted; the periods stay, with their numbers, and are marked."""
    before = list(UsagePeriod.objects.order_by("pk").values_list("pk", "used", "used_before_bucket"))
    assert prune_history(NOW) == PruneReport(rows=70, periods=3)
    assert (days()[0], days()[-1]) == ("05-11", "06-09")
    assert list(UsagePeriod.objects.order_by("pk").values_list("pk", "used", "used_before_bucket")) == before
    assert list(UsagePeriod.objects.order_by("start").values_list("pruned_at", flat=True)) == [NOW, NOW, NOW, None]
    assert UsageEvent.objects.filter(kind="reset").count() == 3


def test_a_second_run_finds_nothing(used):
    """Pruning is idempotent, and a later run marks no period again."""
    prune_history(NOW)
    assert prune_history(NOW) == PruneReport(rows=0, periods=0)
    assert prune_history(NOW + DAY) == PruneReport(rows=1, periods=0)


def test_the_open_period_is_never_pruned(organization, configure):
    """However old its days are: `used` of an open period is the sum of its history."""
    configure(RESET_MODE="manual")
    for number in (300, 200, 100):
        consume(organization, now=NOW - number * DAY)
    assert prune_history(NOW, days=1) == PruneReport(rows=0, periods=0)


def test_nothing_goes_by_default(used, configure):
    """Without HISTORY_RETENTION_DAYS history is kept for ever."""
    configure(HISTORY_RETENTION_DAYS=None)
    assert prune_history(NOW + 10_000 * DAY) == PruneReport(rows=0, periods=0)
    assert prune_history(NOW, days=90) == PruneReport(rows=10, periods=1)


def test_pruning_goes_in_batches_and_tells(used, monkeypatch):
    """Each batch is a transaction of its own, and reported."""
    monkeypatch.setattr(pruning, "BATCH", 30)
    told = []
    assert prune_history(NOW, progress=told.append) == PruneReport(rows=70, periods=3)
    assert told == [30, 30, 10]


def test_the_books_of_pruned_periods_are_in_order(used):
    """Verification knows that rows were pruned, and still sees a row too many."""
    prune_history(NOW)
    assert list(verify_usage(now=NOW)) == []
    UsageHistory.objects.filter(period__pruned_at=NOW).update(used=100)
    assert {finding.problem for finding in verify_usage(now=NOW)} == {"drift"}


def test_a_refund_of_what_was_pruned_gives_nothing_back(organization, configure):
    """The bucket is gone, so that the period's number stays what it was."""
    configure(HISTORY_RETENTION_DAYS=30)
    decision = consume(organization, 5, now=NOW - 90 * DAY)
    consume(organization, now=NOW)
    prune_history(NOW)
    assert refund(decision, now=NOW) == 0
    assert sorted(UsagePeriod.objects.values_list("used", flat=True)) == [1, 5]


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "30", float("nan"), 10**30, 36_501])
def test_a_bad_number_of_days_deletes_nothing(used, value):
    """It is named, and history stays."""
    with pytest.raises(InvalidInput) as caught:
        prune_history(NOW, days=value)
    assert caught.value.field == "days"
    assert len(days()) == 100


def test_pruning_leaves_others_alone(used):
    """What is pruned is each row by its own age; the chart of the days that are kept is as before."""
    other = OrganizationFactory()
    consume(other, 7, now=NOW - 5 * DAY)
    before = history_of(used, since=NOW - 29 * DAY, now=NOW)
    prune_history(NOW)
    assert history_of(used, since=NOW - 29 * DAY, now=NOW) == before
    assert sum(point.used for point in history_of(other, now=NOW)) == 7
