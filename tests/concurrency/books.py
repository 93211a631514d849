"""What must be true of the tables after a storm, and while it lasts."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

from django.db.models import F, OuterRef, Q, Subquery, Sum
from django.db.models.functions import Coalesce

from usage_tracking.models import UsageEvent, UsageHistory, UsageLease, UsagePeriod

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from usage_tracking.models import UsageTrackedOrganization


def unbalanced() -> list[UsagePeriod]:
    """Return the periods whose `used` is not their history rows + their open bucket; one statement, one snapshot."""
    recorded = UsageHistory.objects.filter(period=OuterRef("pk")).order_by().values("period").annotate(sum=Sum("used"))
    rows = UsagePeriod.objects.annotate(recorded=Coalesce(Subquery(recorded.values("sum")), 0))
    drifted = ~Q(used_before_bucket=F("recorded")) | Q(is_open=None) & ~Q(used=F("recorded"))
    return list(rows.filter(drifted))


def misstated() -> list[UsagePeriod]:
    """Return the periods whose `on_lease` is not what their live leases have left; one statement, one snapshot."""
    live = UsageLease.objects.filter(period=OuterRef("pk"), lost_at=None).order_by().values("period")
    lent = live.annotate(sum=Sum(F("granted") - F("settled"))).values("sum")
    rows = UsagePeriod.objects.annotate(lent=Coalesce(Subquery(lent), 0))
    wrong = Q(is_open=True) & ~Q(on_lease=F("lent")) | Q(is_open=None) & ~Q(on_lease=0)
    return list(rows.filter(wrong))


def periods_of(organization: UsageTrackedOrganization) -> list[UsagePeriod]:
    """Return all periods of the organization's `api` meter, oldest first, after checking that they fit together."""
    assert unbalanced() == []
    assert misstated() == []
    periods = list(UsagePeriod.objects.filter(organization=organization, meter="api").order_by("start"))
    assert [period.is_open for period in periods] == [None] * (len(periods) - 1) + [True]
    for earlier, later in pairwise(periods):
        assert earlier.end is not None
        assert earlier.end <= later.start
    for row in UsageHistory.objects.filter(organization=organization).select_related("period"):
        assert row.period.start <= row.start
        assert row.period.end is None or row.end <= row.period.end
    return periods


def used_by_bucket(organization: UsageTrackedOrganization) -> Counter[datetime]:
    """Return what is on record for each bucket that has usage, the open one included, by its start."""
    buckets = Counter(dict(UsageHistory.objects.filter(organization=organization).values_list("start", "used")))
    for row in UsagePeriod.objects.filter(organization=organization, is_open=True):
        buckets[row.bucket_start] += row.used - row.used_before_bucket
    return +buckets


def events_of(organization: UsageTrackedOrganization, *kinds: str) -> list[UsageEvent]:
    """Return the organization's events of some kinds, oldest first."""
    return list(UsageEvent.objects.filter(organization=organization, kind__in=kinds).order_by("pk"))


def signals_in(notebook: Path) -> list[tuple[str, int]]:
    """Return (kind, key of the event) of each signal that was sent, in the order of their arrival."""
    if not notebook.exists():
        return []
    lines = [line.split() for line in notebook.read_text(encoding="utf-8").splitlines()]
    return [(kind, int(event)) for kind, event in lines]


def told(organization: UsageTrackedOrganization, *kinds: str) -> list[tuple[str, int]]:
    """Return what `signals_in` must be when each event of these kinds has been told once, in order."""
    return [(event.kind, event.pk) for event in events_of(organization, *kinds)]
