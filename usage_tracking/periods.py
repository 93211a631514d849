"""Calendar arithmetic: when usage periods begin and end.

A calendar lays boundaries on the time line at ``anchor + n * interval``, for every whole ``n``, also
below zero. Each is stepped from the anchor itself, never from its neighbour: an anchor on the 31st gives
31 January, 28 February and 31 March, where chained steps would stay on the 28th for good.

Naive datetimes are wall times in the calendar's zone. All instants handed out are aware and in UTC.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from difflib import get_close_matches
from enum import StrEnum
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from dateutil.relativedelta import relativedelta

UTC_ZONE = ZoneInfo("UTC")

# A Monday, the first of its month and of its year: stepped from here, every period is a calendar period.
DEFAULT_ANCHOR = datetime(2001, 1, 1)  # noqa: DTZ001 - a wall time, in whichever zone the calendar has

# Where anchors and instants may lie: so far from the ends of datetime that no step can overflow.
FIRST_YEAR, LAST_YEAR = 1900, 2200


class ResetPeriod(StrEnum):
    """How long a period lasts."""

    HOURLY = "hourly"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    QUARTERLY = "quarterly"
    YEARLY = "yearly"


class ResetMode(StrEnum):
    """What closes a period: the first use after its end, the scheduled job, or a person."""

    LAZY = "lazy"
    SCHEDULED = "scheduled"
    MANUAL = "manual"


class Bucket(StrEnum):
    """The stretch of time that one row of history covers."""

    DAY = "day"
    HOUR = "hour"


_INTERVAL: dict[ResetPeriod, timedelta | relativedelta] = {
    ResetPeriod.HOURLY: timedelta(hours=1),
    ResetPeriod.DAILY: timedelta(days=1),
    ResetPeriod.WEEKLY: timedelta(weeks=1),
    ResetPeriod.MONTHLY: relativedelta(months=1),
    ResetPeriod.QUARTERLY: relativedelta(months=3),
    ResetPeriod.YEARLY: relativedelta(years=1),
}

_MEAN_YEAR = timedelta(days=365.2425)  # the Gregorian calendar: 97 leap years in 400
_MEAN_LENGTH = {
    ResetPeriod.HOURLY: timedelta(hours=1),
    ResetPeriod.DAILY: timedelta(days=1),
    ResetPeriod.WEEKLY: timedelta(weeks=1),
    ResetPeriod.MONTHLY: _MEAN_YEAR / 12,
    ResetPeriod.QUARTERLY: _MEAN_YEAR / 4,
    ResetPeriod.YEARLY: _MEAN_YEAR,
}


@dataclass(frozen=True, slots=True)
class Period:
    """The half-open stretch ``[start, end)``; without an ``end`` it lasts until somebody resets it."""

    start: datetime
    end: datetime | None

    def __contains__(self, instant: datetime) -> bool:
        return self.start <= instant and (self.end is None or instant < self.end)

    @property
    def seconds(self) -> int | None:
        """The length in whole seconds, rounded down; None without an end."""
        return None if self.end is None else (self.end - self.start) // timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Calendar:
    """Boundaries at ``anchor + n * interval``, and the periods between them.

    A naive anchor is a wall time in ``zone``. An aware one is that instant, read off a wall clock in ``zone``.

    Days and longer intervals are stepped on that wall clock, so a period that begins at midnight does so
    all year round. Days beyond a month's end become its last day, and a wall time that occurs twice or never
    is read as PEP 495 says for ``fold=0``: the first of the two, or the offset from before the gap.
    Hours are 3600 elapsed seconds, counted from the anchor's instant.
    """

    reset_period: ResetPeriod
    anchor: datetime = DEFAULT_ANCHOR
    zone: ZoneInfo = UTC_ZONE

    def boundary(self, n: int) -> datetime:
        """Return the instant ``anchor + n * interval``, in UTC: never before boundary ``n - 1``, seldom at it.

        Two boundaries meet when the zone skipped the day between them, as Pacific/Apia did on 2011-12-30.
        They cannot pass each other: no IANA zone ever put its clocks forward by more than 24 hours.
        """
        return self._stepped(self._wall_anchor(), n)

    def period_at(self, instant: datetime) -> Period:
        """Return the one period that contains the aware ``instant``; it is never empty.

        Raises ValueError when ``instant`` is naive, or not in the years 1900 to 2200.
        """
        return Period(*self._around(instant)[1:])

    def next_boundary(self, after: datetime) -> datetime:
        """Return the first boundary later than the aware instant ``after``; raises as ``period_at`` does."""
        return self._around(after)[2]

    def boundaries(self, after: datetime) -> Iterator[datetime]:
        """Yield the boundaries later than the aware instant ``after``, each once; raises as ``period_at`` does.

        The same as asking ``next_boundary`` again and again, at a fifth of its price.
        """
        anchor = self._wall_anchor()
        n, last, boundary = self._around(after)
        while True:
            if boundary > last:
                yield boundary
            n, last, boundary = n + 1, boundary, self._stepped(anchor, n + 2)

    def _wall_anchor(self) -> datetime:
        """Return the anchor as the zone's wall clock shows it, aware."""
        if _is_naive(self.anchor):
            return self.anchor.replace(tzinfo=self.zone, fold=0)
        return self.anchor.astimezone(self.zone)

    def _stepped(self, anchor: datetime, n: int) -> datetime:
        step = n * _INTERVAL[self.reset_period]
        if self.reset_period == ResetPeriod.HOURLY:
            return anchor.astimezone(UTC) + step
        # Arithmetic on an aware datetime leaves its offset aside: this is a step of the wall clock.
        return (anchor + step).replace(fold=0).astimezone(UTC)

    def _around(self, instant: datetime) -> tuple[int, datetime, datetime]:
        """Return the last boundary that is not later than ``instant``, its number before it, and the first that is."""
        if _is_naive(instant):
            raise ValueError(f"{instant} is naive: a calendar looks up instants, which are datetimes with a time zone")
        _check_year(instant)
        # Counting mean lengths lands a few steps off at most, as months, years and days with a clock change
        # are not all of one length. Walking on to where the instant is also passes by boundaries that meet.
        n = (instant - self.boundary(0)) // _MEAN_LENGTH[self.reset_period]
        start, end = self.boundary(n), self.boundary(n + 1)
        while start > instant:
            n -= 1
            start, end = self.boundary(n), start
        while end <= instant:
            n += 1
            start, end = end, self.boundary(n + 1)
        return n, start, end


def bucket_calendar(bucket: Bucket, zone: ZoneInfo) -> Calendar:
    """Return the calendar of history rows: days from midnight to midnight in ``zone``, or hours.

    Hours being elapsed time, those of a zone that moved by half an hour since 2001 may begin at half past.
    """
    return Calendar(ResetPeriod.DAILY if bucket == Bucket.DAY else ResetPeriod.HOURLY, zone=zone)


# RFC 3339 with an optional time and offset. fromisoformat() alone also takes "2024-01-31?09:00" and weeks.
_ISO_8601 = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d(:\d\d)?)?)?", re.ASCII)


def parse_anchor(value: str | datetime | date) -> datetime:
    """Return the anchor that ``value`` spells in ISO 8601: aware if it names an offset, else a naive wall time.

    A date stands for its midnight. Raises ValueError, saying what is wrong, for any other text or type, a date
    or time that does not exist, and years before 1900 or after 2200.
    """
    if isinstance(value, datetime):
        anchor = value
    elif isinstance(value, date):
        anchor = datetime.combine(value, time())
    elif _ISO_8601.fullmatch(str(value)):
        try:
            anchor = datetime.fromisoformat(str(value))
        except ValueError as error:
            raise ValueError(f"{value!r} does not exist: {error}") from error
    else:
        raise ValueError(
            f"{value!r} is not in ISO 8601, such as 2001-01-31, 2001-01-31T09:00 or 2001-01-31T09:00+02:00"
        )
    _check_year(anchor)
    return anchor


def parse_zone(value: str) -> ZoneInfo:
    """Return the time zone of that IANA name; the same name always gives the same object.

    Raises ValueError, with the nearest name there is, for everything else: paths, offsets, any other type.
    """
    if str(value) in _zone_names():
        return _zone(str(value))
    known = {name.casefold(): name for name in _zone_names()}
    nearest = get_close_matches(str(value).casefold(), known, n=1, cutoff=0.5)
    hint = f"did you mean {known[nearest[0]]!r}?" if nearest else "names look like 'Europe/Berlin' or 'UTC'"
    raise ValueError(f"{value!r} is not the IANA name of a time zone; {hint}")


# ZoneInfo's own cache keeps only the eight last used alive; the others would be read from disk again.
_zone = cache(ZoneInfo)


@cache
def _zone_names() -> frozenset[str]:
    """All IANA names, less the two that do not say where: the machine's own zone, and "not configured"."""
    return frozenset(available_timezones() - {"localtime", "Factory"})


def _is_naive(moment: datetime) -> bool:
    return moment.utcoffset() is None  # the standard library's own definition; a tzinfo alone is not enough


def _check_year(moment: datetime) -> None:
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise ValueError(f"{moment} lies outside the years {FIRST_YEAR} to {LAST_YEAR}")
