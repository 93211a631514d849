"""The time series: what was used and refused, bucket by bucket, zero-filled."""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal
from zoneinfo import ZoneInfo

from usage_tracking.conf import nearest, usage_settings
from usage_tracking.exceptions import InvalidInput
from usage_tracking.ledger import database_of, instant
from usage_tracking.models import UsageHistory, UsagePeriod, UsageTrackedOrganization
from usage_tracking.periods import FIRST_YEAR, Bucket, Calendar, ResetPeriod
from usage_tracking.plans import meter_named, sources_of
from usage_tracking.quotas import DEFAULT_METER

__all__ = ["HistoryBucket", "HistoryPoint", "histories_of", "history_of", "spans_between"]

HistoryBucket = Literal["hour", "day", "week", "month"]
"""What one point covers."""

HISTORY_STEPS: Final[dict[str, ResetPeriod]] = {
    "hour": ResetPeriod.HOURLY,
    "day": ResetPeriod.DAILY,
    "week": ResetPeriod.WEEKLY,
    "month": ResetPeriod.MONTHLY,
}

MAX_POINTS: Final = 10_000
DEFAULT_POINTS: Final = 30


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
    last: int | None = None,
    bucket: HistoryBucket = "day",
    now: datetime | None = None,
) -> list[HistoryPoint]:
    """Return the usage from `since` to `until` (default: now), zero-filled, oldest first.

    One point per hour, day, week (from Monday) or month of the organization's time zone; those at the ends are whole.
    Instead of `since`, `last` may say how many buckets there are to be (default: 30). Raises InvalidInput for an
    unknown bucket, one finer than is stored, a reversed or naive range, or one of more than 10,000 points.
    """
    return histories_of(organization, [meter], since=since, until=until, last=last, bucket=bucket, now=now)[meter]


def histories_of(
    organization: UsageTrackedOrganization,
    meters: Iterable[str] | None = None,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    last: int | None = None,
    bucket: HistoryBucket = "day",
    now: datetime | None = None,
) -> dict[str, list[HistoryPoint]]:
    """Return {meter: points}, as `history_of` tells each, in two queries however many there are.

    `meters` (default: all of METERS) keeps its order. Raises like `history_of`.
    """
    described = [meter_named(meter) for meter in (usage_settings.METERS if meters is None else meters)]
    zone = sources_of(organization, meter_named(DEFAULT_METER)).time_zone.value
    spans = spans_between(since, until, bucket, zone, last=last, now=now)
    starts = [start for start, _ in spans]
    counts = {meter.name: [[0, 0] for _ in spans] for meter in described}
    for meter, start, used, refused in _stored(organization, counts, starts[0], spans[-1][1]):
        count = counts[meter][bisect_right(starts, start) - 1]
        count[0] += used
        count[1] += refused
    return {
        meter: [
            HistoryPoint(start=start.astimezone(zone), end=end.astimezone(zone), used=used, refused=refused)
            for (start, end), (used, refused) in zip(spans, points, strict=True)
        ]
        for meter, points in counts.items()
    }


def spans_between(
    since: datetime | None,
    until: datetime | None,
    bucket: str,
    zone: ZoneInfo,
    *,
    last: int | None = None,
    now: datetime | None = None,
) -> list[tuple[datetime, datetime]]:
    """Return start and end of each point that `history_of` tells of a range. Raises like it; reads nothing."""
    calendar = _history_calendar(bucket, zone)
    until = instant(now) if until is None else instant(until, field="until")
    if since is None:
        steps, field = (DEFAULT_POINTS, "until") if last is None else (_checked_last(last), "last")
        since = _steps_back(calendar, until, steps, field=field)
    elif last is None:
        since = instant(since, field="since")
    else:
        message = "last and since both say where the history begins; give one of them."
        raise InvalidInput(message, field="last")
    if since > until:
        message = f"since ({since.isoformat()}) must not be after until ({until.isoformat()})."
        raise InvalidInput(message, field="since")
    return _spans(calendar, since, until)


def _history_calendar(bucket: str, zone: ZoneInfo) -> Calendar:
    known = list(HISTORY_STEPS)
    if bucket not in known:
        message = f"bucket cannot be {bucket!r}.{nearest(bucket, known)}"
        raise InvalidInput(message, field="bucket")
    if bucket == "hour" and usage_settings.HISTORY_BUCKET == Bucket.DAY:
        message = "bucket cannot be 'hour': history is stored by the day (HISTORY_BUCKET)."
        raise InvalidInput(message, field="bucket")
    return Calendar(HISTORY_STEPS[bucket], zone=zone)


def _checked_last(last: object) -> int:
    if type(last) is not int or not 1 <= last <= MAX_POINTS:
        message = f"last must be a whole number from 1 to {MAX_POINTS}, not {last!r}."
        raise InvalidInput(message, field="last")
    return last


def _steps_back(calendar: Calendar, until: datetime, steps: int, *, field: str) -> datetime:
    start = until
    for _ in range(steps):
        start = calendar.period_at(start - timedelta(microseconds=1)).start
        if start.year <= FIRST_YEAR:
            message = f"the {steps} buckets before {until.isoformat()} begin too early: not before {FIRST_YEAR + 1}."
            raise InvalidInput(message, field=field)
    return start


def _spans(calendar: Calendar, since: datetime, until: datetime) -> list[tuple[datetime, datetime]]:
    """Return start and end of the calendar's steps that [since, until) touches; at least one."""
    spans: list[tuple[datetime, datetime]] = []
    start = calendar.period_at(since).start
    for end in calendar.boundaries(since):
        spans.append((start, end))
        start = end
        if end >= until or len(spans) > MAX_POINTS:
            break
    if len(spans) > MAX_POINTS:
        message = f"since and until span more than {MAX_POINTS} buckets; ask for a coarser bucket."
        raise InvalidInput(message, field="since")
    return spans


def _stored(
    organization: UsageTrackedOrganization, meters: Collection[str], since: datetime, until: datetime
) -> Iterator[tuple[str, datetime, int, int]]:
    """Yield (meter, start, used, refused) of the history rows, and open buckets, that begin in [since, until)."""
    using = database_of(organization)
    ours = {"organization_id": organization.pk, "meter__in": list(meters)}
    rows = UsageHistory.objects.using(using).filter(**ours, start__gte=since, start__lt=until)
    yield from rows.values_list("meter", "start", "used", "refused").iterator()
    for row in UsagePeriod.objects.using(using).filter(
        **ours, is_open=True, bucket_start__gte=since, bucket_start__lt=until
    ):
        yield row.meter, row.bucket_start, row.used - row.used_before_bucket, row.refused - row.refused_before_bucket
