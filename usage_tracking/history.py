"""The time series: what was used and refused, bucket by bucket, zero-filled."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal
from zoneinfo import ZoneInfo

from usage_tracking.conf import nearest, usage_settings
from usage_tracking.exceptions import InvalidInput
from usage_tracking.ledger import database_of, instant
from usage_tracking.models import UsageHistory, UsagePeriod, UsageTrackedOrganization
from usage_tracking.periods import Bucket, Calendar, ResetPeriod
from usage_tracking.plans import meter_named, sources_of
from usage_tracking.quotas import DEFAULT_METER

__all__ = ["HistoryBucket", "HistoryPoint", "history_of"]

HistoryBucket = Literal["hour", "day", "week", "month"]
"""What one point covers."""

HISTORY_STEPS: Final[dict[str, ResetPeriod]] = {
    "hour": ResetPeriod.HOURLY,
    "day": ResetPeriod.DAILY,
    "week": ResetPeriod.WEEKLY,
    "month": ResetPeriod.MONTHLY,
}

MAX_POINTS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPoint:
    """Usage and refusals in [start, end), aware and in the organization's time zone."""

    start: datetime
    end: datetime
    used: int
    refused: int


def history_of(
    organization: UsageTrackedOrganization,
    meter: str = DEFAULT_METER,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    bucket: HistoryBucket = "day",
    now: datetime | None = None,
) -> list[HistoryPoint]:
    """Return the usage from `since` (default: 30 buckets) to `until` (default: now), zero-filled, oldest first.

    One point per hour, day, week (from Monday) or month of the organization's time zone; those at the ends are whole.
    Raises InvalidInput for an unknown bucket, one finer than is stored, a reversed or naive range, or one of more than
    10,000 points.
    """
    described = meter_named(meter)
    zone = sources_of(organization, described).time_zone.value
    calendar = _history_calendar(bucket, zone)
    until = instant(now) if until is None else instant(until, field="until")
    since = _steps_back(calendar, until, 30) if since is None else instant(since, field="since")
    if since > until:
        message = f"since ({since.isoformat()}) must not be after until ({until.isoformat()})."
        raise InvalidInput(message, field="since")
    spans = _spans(calendar, since, until)
    starts = [start for start, _ in spans]
    used, refused = [0] * len(spans), [0] * len(spans)
    for start, row_used, row_refused in _stored(organization, meter, starts[0], spans[-1][1]):
        index = bisect_right(starts, start) - 1
        used[index] += row_used
        refused[index] += row_refused
    return [
        HistoryPoint(start=start.astimezone(zone), end=end.astimezone(zone), used=used[index], refused=refused[index])
        for index, (start, end) in enumerate(spans)
    ]


def _history_calendar(bucket: str, zone: ZoneInfo) -> Calendar:
    known = list(HISTORY_STEPS)
    if bucket not in known:
        message = f"bucket cannot be {bucket!r}.{nearest(bucket, known)}"
        raise InvalidInput(message, field="bucket")
    if bucket == "hour" and usage_settings.HISTORY_BUCKET == Bucket.DAY:
        message = "bucket cannot be 'hour': history is stored by the day (HISTORY_BUCKET)."
        raise InvalidInput(message, field="bucket")
    return Calendar(HISTORY_STEPS[bucket], zone=zone)


def _steps_back(calendar: Calendar, until: datetime, steps: int) -> datetime:
    start = until
    for _ in range(steps):
        start = instant(calendar.period_at(start - timedelta(microseconds=1)).start, field="until")
    return start


def _spans(calendar: Calendar, since: datetime, until: datetime) -> list[tuple[datetime, datetime]]:
    """Return start and end of the calendar's steps that [since, until) touches; at least one."""
    start, end = calendar.period_at(since).start, calendar.next_boundary(since)
    spans = [(start, end)]
    while end < until and len(spans) <= MAX_POINTS:
        start, end = end, calendar.next_boundary(end)
        spans.append((start, end))
    if len(spans) > MAX_POINTS:
        message = f"since and until span more than {MAX_POINTS} buckets; ask for a coarser bucket."
        raise InvalidInput(message, field="since")
    return spans


def _stored(
    organization: UsageTrackedOrganization, meter: str, since: datetime, until: datetime
) -> Iterator[tuple[datetime, int, int]]:
    """Yield (start, used, refused) of the history rows, and of the open bucket, that begin in [since, until)."""
    using = database_of(organization)
    ours = {"organization_id": organization.pk, "meter": meter}
    rows = UsageHistory.objects.using(using).filter(**ours, start__gte=since, start__lt=until)
    yield from rows.values_list("start", "used", "refused").iterator()
    row = (
        UsagePeriod.objects.using(using)
        .filter(**ours, is_open=True, bucket_start__gte=since, bucket_start__lt=until)
        .first()
    )
    if row is not None:
        yield row.bucket_start, row.used - row.used_before_bucket, row.refused - row.refused_before_bucket
