"""What the leased counter has written."""

from datetime import UTC, datetime, timedelta

from usage_tracking.lending import BUSY
from usage_tracking.metering import consume
from usage_tracking.models import UsageEvent, UsageLease, UsagePeriod

NOW = datetime(2026, 6, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)
NEXT_MONTH = NOW + timedelta(days=30)


def borrow(organization, *, meter="api", now=None):
    """Consume BUSY units, one by one: the last of them brings this process a lease of twice as many."""
    for _ in range(BUSY):
        decision = consume(organization, meter=meter, now=now)
    return decision


def take(counter, organization, amount=None, *, now=NOW, meter="api"):
    """Consume in the process that a counter stands for; without an amount as `borrow` does."""
    if amount is None:
        return [take(counter, organization, 1, now=now, meter=meter) for _ in range(BUSY)][-1]
    return counter.take(organization, amount, meter, now=now, using="default")


def open_row(meter="api"):
    """Return the open period."""
    return UsagePeriod.objects.get(is_open=True, meter=meter)


def on_lease():
    """Return what each live lease has left, by the database, oldest first."""
    leases = UsageLease.objects.filter(lost_at=None).order_by("pk")
    return [lease.granted - lease.settled for lease in leases]


def announced():
    """Return (period, threshold) of all that was announced, in order."""
    events = UsageEvent.objects.filter(kind__in=["warning", "exceeded"]).order_by("pk")
    return list(events.values_list("period_id", "threshold"))
