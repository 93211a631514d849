"""The time series: what was used and refused, bucket by bucket, zero-filled."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from django.utils.translation import gettext

from usage_tracking.conf import suggestion, usage_settings
from usage_tracking.exceptions import InvalidInput
from usage_tracking.ledger import instant
from usage_tracking.models import UsageHistory, UsagePeriod, UsageTrackedOrganization
from usage_tracking.organizations import database_of
from usage_tracking.periods import FIRST_YEAR, Bucket, Calendar, ResetPeriod
from usage_tracking.plans import meter_named, meters_named, sources_of
from usage_tracking.quotas import DEFAULT_METER

__all__ = ["HistoryBucket", "HistoryPoint", "boundaries_between", "histories_of", "histories_of_each", "history_of"]

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
    unknown bucket, one finer than is stored, an empty, reversed or naive range, or one of more than 10,000 points.
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
    return histories_of_each([organization], meters, since=since, until=until, last=last, bucket=bucket, now=now)[
        organization.pk
    ]


def histories_of_each(
    organizations: Iterable[UsageTrackedOrganization],
    meters: Iterable[str] | None = None,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    last: int | None = None,
    bucket: HistoryBucket = "day",
    now: datetime | None = None,
) -> dict[Any, dict[str, list[HistoryPoint]]]:
    """Return {organization key: {meter: points}}, as `history_of` tells each, in two queries however many there are.

    Each in its own organization's time zone. `meters` (default: all of METERS) keeps its order. Raises like
    `history_of`.
    """
    described = meters_named(meters)
    now = instant(now)
    frames: dict[ZoneInfo, _Frame] = {}
    by_database: dict[str, dict[Any, _Frame]] = defaultdict(dict)
    for organization in organizations:
        zone = sources_of(organization, meter_named(DEFAULT_METER)).time_zone.value
        if zone not in frames:
            frames[zone] = _Frame(boundaries_between(since, until, bucket, zone, last=last, now=now), zone)
        by_database[database_of(organization)][organization.pk] = frames[zone]
    return {
        key: {
            meter: [
                HistoryPoint(start=start, end=end, used=used, refused=refused)
                for (start, end), (used, refused) in zip(pairwise(framed[key].local), counts, strict=True)
            ]
            for meter, counts in by_meter.items()
        }
        for using, framed in by_database.items()
        for key, by_meter in _counts(framed, [meter.name for meter in described], using).items()
    }


def boundaries_between(
    since: datetime | None,
    until: datetime | None,
    bucket: str,
    zone: ZoneInfo,
    *,
    last: int | None = None,
    now: datetime | None = None,
) -> list[datetime]:
    """Return where the points that `history_of` tells of a range begin, and where the last ends, in UTC.

    Raises like it; reads nothing.
    """
    calendar = _history_calendar(bucket, zone)
    is_running = until is None
    until = instant(now) if until is None else instant(until, field="until")
    if since is None:
        steps, field = (DEFAULT_POINTS, "until") if last is None else (_checked_last(last), "last")
        since = _steps_back(calendar, until, steps, field=field)
    elif last is None:
        since = instant(since, field="since")
    else:
        message = gettext("last and since both say where the history begins; give one of them.")
        raise InvalidInput(message, field="last")
    # Up to now is up to the end of the running bucket, which the instant that a bucket begins is in.
    if since > until or (since == until and not is_running):
        message = gettext("since (%(since)s) must be before until (%(until)s).")
        message %= {"since": since.isoformat(), "until": until.isoformat()}
        raise InvalidInput(message, field="since")
    return _boundaries(calendar, since, until)


class _Frame:
    """The points of one zone, before anything is counted in them."""

    def __init__(self, boundaries: list[datetime], zone: ZoneInfo) -> None:
        *self.starts, self.end = boundaries
        self.local = [boundary.astimezone(zone) for boundary in boundaries]


def _counts(framed: Mapping[Any, _Frame], meters: Collection[str], using: str) -> dict[Any, dict[str, list[list[int]]]]:
    """Return [used, refused] of each point, by organization and meter."""
    counts = {key: {meter: [[0, 0] for _ in frame.starts] for meter in meters} for key, frame in framed.items()}
    since = min(frame.starts[0] for frame in framed.values())
    until = max(frame.end for frame in framed.values())
    for key, meter, start, used, refused in _stored(list(framed), meters, since, until, using):
        frame = framed[key]
        # Zones differ in where the first and the last point lie, and an open bucket may be anywhere.
        if frame.starts[0] <= start < frame.end:
            count = counts[key][meter][bisect_right(frame.starts, start) - 1]
            count[0] += used
            count[1] += refused
    return counts


def _history_calendar(bucket: str, zone: ZoneInfo) -> Calendar:
    known = list(HISTORY_STEPS)
    if bucket not in known:
        message = gettext("bucket cannot be %(value)r.") % {"value": bucket} + suggestion(bucket, known)
        raise InvalidInput(message, field="bucket")
    if bucket == "hour" and usage_settings.HISTORY_BUCKET == Bucket.DAY:
        message = gettext("bucket cannot be 'hour': history is stored by the day (HISTORY_BUCKET).")
        raise InvalidInput(message, field="bucket")
    return Calendar(HISTORY_STEPS[bucket], zone=zone)


def _checked_last(last: object) -> int:
    if type(last) is not int or not 1 <= last <= MAX_POINTS:
        message = gettext("last must be a whole number from 1 to %(maximum)s, not %(value)r.")
        message %= {"maximum": MAX_POINTS, "value": last}
        raise InvalidInput(message, field="last")
    return last


def _steps_back(calendar: Calendar, until: datetime, steps: int, *, field: str) -> datetime:
    start = until
    for _ in range(steps):
        start = calendar.period_at(start - timedelta(microseconds=1)).start
        if start.year <= FIRST_YEAR:
            message = gettext("the %(steps)s buckets before %(until)s begin too early: not before %(year)s.")
            message %= {"steps": steps, "until": until.isoformat(), "year": FIRST_YEAR + 1}
            raise InvalidInput(message, field=field)
    return start


def _boundaries(calendar: Calendar, since: datetime, until: datetime) -> list[datetime]:
    """Return the calendar's boundaries around [since, until), and those between; two at least."""
    boundaries = [calendar.period_at(since).start]
    for boundary in calendar.boundaries(since):
        boundaries.append(boundary)
        if boundary >= until or len(boundaries) > MAX_POINTS + 1:
            break
    if len(boundaries) > MAX_POINTS + 1:
        message = gettext("since and until span more than %(maximum)s buckets; ask for a coarser bucket.")
        message %= {"maximum": MAX_POINTS}
        raise InvalidInput(message, field="since")
    return boundaries


def _stored(
    keys: Collection[Any], meters: Collection[str], since: datetime, until: datetime, using: str
) -> Iterator[tuple[Any, str, datetime, int, int]]:
    """Yield (key, meter, start, used, refused) of the history rows in [since, until), and of all open buckets."""
    ours = {"organization_id__in": keys, "meter__in": list(meters)}
    history = UsageHistory.objects.using(using).filter(**ours, start__gte=since, start__lt=until)
    rows = history.values_list("organization_id", "meter", "start", "used", "refused")
    # On PostgreSQL an iterator is a cursor on the server: three round trips more, which the rows of one are not worth.
    yield from rows if len(keys) == 1 else rows.iterator()
    # Columns alone and without arithmetic: what the ORM makes of more costs as much as a hundred rows.
    periods = UsagePeriod.objects.using(using).filter(**ours, is_open=True)
    for key, meter, start, used, used_before, refused, refused_before in periods.values_list(
        "organization_id",
        "meter",
        "bucket_start",
        "used",
        "used_before_bucket",
        "refused",
        "refused_before_bucket",
    ):
        yield key, meter, start, used - used_before, refused - refused_before
