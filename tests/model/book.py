"""What the engine is held to: amounts in buckets, buckets in periods, no database and no rails."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from usage_tracking.periods import Calendar, Period, ResetPeriod, parse_anchor

BEGINNING = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
TICK = timedelta(microseconds=1)
THRESHOLDS = [50, 80, 120]
DEFAULT_LIMITS = {"api": 10, "tokens": None}


@dataclass(kw_only=True)
class Config:
    """What is stored on the organization."""

    limits: dict[str, int | None] = field(default_factory=dict)
    reset_mode: str = ""
    reset_period: str = ""
    anchor: str = ""
    time_zone: str = ""
    enforcement: str = ""

    @property
    def mode(self) -> str:
        """Who closes a period."""
        return self.reset_mode or "lazy"

    @property
    def calendar(self) -> Calendar:
        """Where periods begin and end."""
        zone = ZoneInfo(self.time_zone or "UTC")
        return Calendar(ResetPeriod(self.reset_period or "monthly"), parse_anchor(self.anchor or "2001-01-01"), zone)

    def days(self, bucket: str) -> Calendar:
        """Where buckets begin and end, besides."""
        return Calendar(ResetPeriod.HOURLY if bucket == "hour" else ResetPeriod.DAILY, zone=self.calendar.zone)

    def period_at(self, now: datetime) -> Period:
        """What a first use opens."""
        return Period(now, None) if self.mode == "manual" else self.calendar.period_at(now)


@dataclass(kw_only=True)
class Bucket:
    """What was used and refused in one stretch of history."""

    start: datetime
    end: datetime
    used: int = 0
    refused: int = 0

    def take(self, amount: int) -> int:
        """Give back up to `amount`; return how much there was."""
        given = min(amount, self.used)
        self.used -= given
        return given


@dataclass(kw_only=True)
class Stretch:
    """One period: buckets, oldest first; the last of an open period is still filling."""

    start: datetime
    end: datetime | None
    limit: int | None = None
    buckets: list[Bucket] = field(default_factory=list)
    told: set[tuple[int | None, int]] = field(default_factory=set)

    @property
    def used(self) -> int:
        """What was used in all of it."""
        return sum(bucket.used for bucket in self.buckets)

    @property
    def refused(self) -> int:
        """What was refused in all of it."""
        return sum(bucket.refused for bucket in self.buckets)

    def has_ended(self, now: datetime) -> bool:
        """Whether it is over, closed or not."""
        return self.end is not None and self.end <= now


class Book:
    """The periods of one meter, as the promises describe them."""

    def __init__(self, config: Config, meter: str, bucket: str) -> None:
        self.config = config
        self.meter = meter
        self.bucket = bucket
        self.open: Stretch | None = None
        self.closed: list[Stretch] = []
        # What governs the open period; the config may be ahead of it.
        self.mode = "lazy"
        self.enforcement = "hard"

    @property
    def limit(self) -> int | None:
        """What the config says; the open period may be behind."""
        return self.config.limits.get(self.meter, DEFAULT_LIMITS[self.meter])

    @property
    def current(self) -> Stretch:
        """The open period."""
        assert self.open is not None
        return self.open

    def visit(self, now: datetime, visitor: str = "lazy") -> datetime:
        """Close what has ended, hold the open period to the config; return the instant that counts."""
        if self.open is None:
            self._begin(self.config.period_at(now), now)
        now = max(now, self.current.buckets[-1].start)
        if self.current.buckets[-1].end <= now:
            self._next_bucket(now)
        waits = visitor == "lazy" and self.mode == self.config.mode == "scheduled"
        if self.current.has_ended(now) and not waits:
            self._close(now)
        self._govern(now)
        return now

    @property
    def begun(self) -> datetime:
        """When the bucket that is filling began."""
        return BEGINNING if self.open is None else self.open.buckets[-1].start

    def is_behind(self, now: datetime) -> bool:
        """Whether the open period does not hold to the config yet; where a period that has ended ends is settled."""
        if self.open is None:
            return False
        terms = self.limit, self.config.enforcement or "hard", self.config.mode
        same_end = self.open.has_ended(now) or self.open.end == self._end_after(max(now, self.open.start))
        return terms != (self.open.limit, self.enforcement, self.mode) or not same_end

    def count(self, now: datetime, amount: int, *, refusable: bool = True) -> bool:
        """Take the amount if it fits, or must be counted anyway."""
        self.visit(now)
        fits = self.current.limit is None or self.current.used + amount <= self.current.limit
        taken = fits or not refusable or self.enforcement != "hard"
        if taken:
            self.current.buckets[-1].used += amount
        else:
            self.current.buckets[-1].refused += 1
        self.announce(refused=not taken)
        return taken

    def refund_newest(self, now: datetime, amount: int) -> int:
        """Take an amount out of the open period's newest buckets."""
        self.visit(now)
        left = amount
        for bucket in reversed(self.current.buckets):
            left -= bucket.take(left)
        self.announce()
        return amount - left

    def refund_bucket(self, now: datetime, start: datetime, amount: int, *, visit: bool = True) -> int:
        """Take an amount out of the bucket that was charged."""
        if visit:
            self.visit(now)
        for stretch in [*self.closed, self.current]:
            for bucket in stretch.buckets:
                if bucket.start == start:
                    given = bucket.take(amount)
                    self.announce()
                    return given
        return 0

    def adjust(self, now: datetime, used: int) -> None:
        """Set what the open period has used."""
        self.visit(now)
        difference = used - self.current.used
        if difference > 0:
            self.current.buckets[-1].used += difference
        else:
            self.refund_newest(now, -difference)
        self.announce()

    def reset(self, now: datetime) -> None:
        """Close by hand; what has ended is closed at its end, and an untouched new period is left alone."""
        closed_before = len(self.closed)
        now = self.visit(now, "manual")
        if len(self.closed) == closed_before or self.current.used or self.current.refused:
            old = self.current
            # An instant after what went before, so that no period is empty.
            now = max(now, old.buckets[-1].start + TICK, old.start + TICK)
            self._end_bucket(now)
            old.end = now
            if len(self.closed) > closed_before:
                # It existed for no time at all; what it carried over was told while it was late.
                old.told.clear()
            self.closed.append(old)
            self._begin(Period(now, self._end_after(now)), now)
        self.announce()

    def announce(self, *, refused: bool = False, lowered: bool = False) -> None:
        """Tell each threshold of the open period and its limit once."""
        limit, used = self.current.limit, self.current.used
        if limit is None:
            return
        for percent in [*THRESHOLDS, 100]:
            if used and used * 100 >= percent * limit:
                self.current.told.add((limit, percent))
        if refused or (lowered and limit == 0):
            self.current.told.add((limit, 100))

    def used_at(self, now: datetime) -> int:
        """What a reader sees: a period that has ended and waits for nobody counts as closed."""
        if self.open is None or (self.open.has_ended(now) and self.mode != "scheduled"):
            return 0
        return self.open.used

    # A bucket lies between two midnights (or full hours) and between two period boundaries.

    def _begin(self, period: Period, now: datetime) -> None:
        self.open = Stretch(start=period.start, end=period.end, limit=self.limit)
        self.mode, self.enforcement = self.config.mode, self.config.enforcement or "hard"
        self.open.buckets.append(self._bucket_at(now, earliest=period.start))

    def _bucket_at(self, now: datetime, *, earliest: datetime) -> Bucket:
        day = self.config.days(self.bucket).period_at(now)
        assert day.end is not None
        starts, ends = [day.start, earliest], [day.end]
        if self.config.mode != "manual":
            period = self.config.calendar.period_at(now)
            assert period.end is not None
            starts.append(period.start)
            ends.append(period.end)
        return Bucket(start=max(starts), end=min(ends))

    def _end_bucket(self, end: datetime) -> None:
        bucket = self.current.buckets[-1]
        bucket.end = end
        if not bucket.used and not bucket.refused:
            self.current.buckets.pop()

    def _next_bucket(self, now: datetime) -> None:
        earliest = self.current.buckets[-1].end
        self._end_bucket(earliest)
        if self.current.end is not None and self.current.has_ended(now):
            earliest = max(earliest, self.current.end)
        self.current.buckets.append(self._bucket_at(now, earliest=earliest))

    def _close(self, now: datetime) -> None:
        """Close the expired period; intervals that have passed since become periods if they saw usage."""
        old, ended = self.current, self.current.end
        assert ended is not None
        filling = old.buckets.pop()
        late = [bucket for bucket in old.buckets if bucket.start >= ended]
        old.buckets = [bucket for bucket in old.buckets if bucket.start < ended]
        self.closed.append(old)
        current = Period(ended, None) if self.config.mode == "manual" else self.config.calendar.period_at(now)
        passed = [bucket for bucket in late if bucket.start < current.start]
        carried = [bucket for bucket in late if bucket.start >= current.start]
        if filling.start >= ended:
            carried.append(filling)
        # No bucket is ever split: it belongs to the interval that it begins in.
        start = max([current.start, ended, *(bucket.end for bucket in passed)])
        start = min([start, *(bucket.start for bucket in carried)])
        until = ended
        while passed:
            interval = self.config.calendar.period_at(passed[0].start)
            assert interval.end is not None
            inside = [bucket for bucket in passed if bucket.start < interval.end]
            passed = passed[len(inside) :]
            end = max(min(interval.end, start), inside[-1].end)
            stretch = Stretch(start=max(interval.start, until), end=end, limit=old.limit, buckets=inside)
            self.closed.append(stretch)
            until = end
        self._begin(Period(start, current.end), now)
        if filling.start >= ended:
            self.current.buckets = carried

    def _govern(self, now: datetime) -> None:
        old_limit = self.current.limit
        lowered = self.limit is not None and (old_limit is None or self.limit < old_limit)
        self.current.limit = self.limit
        self.mode, self.enforcement = self.config.mode, self.config.enforcement or "hard"
        boundary = self._end_after(now)
        if self.current.end != boundary and not self.current.has_ended(now):
            self.current.end = boundary
            # Whoever comes with a clock that lags behind this change counts as coming at the change.
            if self.current.buckets[-1].start < now:
                self._end_bucket(now)
                self.current.buckets.append(self._bucket_at(now, earliest=now))
        if boundary is not None:
            self.current.buckets[-1].end = min(self.current.buckets[-1].end, boundary)
        self.announce(lowered=lowered)

    def _end_after(self, now: datetime) -> datetime | None:
        return None if self.config.mode == "manual" else self.config.calendar.next_boundary(now)
