"""From a time series to the coordinates of a chart: geometry only. Templates draw it.

x runs from 0 to 100 and is meant as a percentage, so that a chart is as wide as its place and its text keeps its
size. y runs from 0, the top, to `height`, in pixels. Shapes and text take x with a percent sign; a path goes into an
`<svg viewBox="0 0 100 HEIGHT" preserveAspectRatio="none">` of its own, with `vector-effect="non-scaling-stroke"`.
Coordinates are rounded to hundredths. Render them unlocalized: SVG knows no decimal comma.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from math import ceil
from typing import Final, Literal, Protocol

__all__ = [
    "MAX_MARKS",
    "Bar",
    "ChartType",
    "Dot",
    "Mark",
    "Slice",
    "Sparkline",
    "Tick",
    "TimePoint",
    "TimeRange",
    "TimeTick",
    "area",
    "bars",
    "dots",
    "line",
    "merged",
    "slice_of",
    "sparkline",
    "time_ticks",
    "top_of",
    "trend",
    "value_ticks",
]

MAX_MARKS: Final = 90
"""More bars or dots than this nobody can tell apart, nor hit with a pointer."""

HEIGHT: Final = 200

BAR_SHARE: Final = 0.7
"""The rest of a bar's room is the gap to its neighbour."""

LOWEST_BAR: Final = 1.5
"""In pixels: something is never drawn as nothing."""

STEPS: Final = (1, 2, 5)
INTERVALS: Final = 4
TIME_TICKS: Final = 7


class ChartType(StrEnum):
    """How a time series is drawn."""

    LINE = "line"
    BAR = "bar"
    AREA = "area"


class TimeRange(StrEnum):
    """How far a time series goes back from now."""

    DAYS_7 = "7d"
    DAYS_30 = "30d"
    DAYS_90 = "90d"
    YEAR = "1y"
    ALL = "all"


class TimePoint(Protocol):
    """What is drawn: usage and refusals in [start, end)."""

    @property
    def start(self) -> datetime: ...  # noqa: D102
    @property
    def end(self) -> datetime: ...  # noqa: D102
    @property
    def used(self) -> int: ...  # noqa: D102
    @property
    def refused(self) -> int: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Several points taken as one."""

    start: datetime
    end: datetime
    used: int
    refused: int


# -- how much time a mark covers ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Slice:
    """Which history to ask for: so many of these buckets, up to the running one."""

    bucket: Literal["day", "week", "month"]
    count: int


_SLICES: Final = {
    TimeRange.DAYS_7: Slice("day", 7),
    TimeRange.DAYS_30: Slice("day", 30),
    TimeRange.DAYS_90: Slice("day", 90),
    TimeRange.YEAR: Slice("week", 53),
}


def slice_of(time_range: TimeRange, *, began: datetime | None, now: datetime) -> Slice:
    """Return the buckets that draw `time_range` with at most MAX_MARKS marks, the finest that do.

    `began` is when usage began, and matters for `all` only: days, weeks or months since then. More than MAX_MARKS
    months are for `merged()`.
    """
    if time_range != TimeRange.ALL:
        return _SLICES[time_range]
    days = 1 if began is None else max((now - began) // timedelta(days=1), 0) + 2  # both ends are whole days
    if days <= MAX_MARKS:
        return Slice("day", days)
    weeks = days // 7 + 2
    if weeks <= MAX_MARKS:
        return Slice("week", weeks)
    return Slice("month", days // 28 + 2)


def merged(points: Sequence[TimePoint], at_most: int = MAX_MARKS) -> Sequence[TimePoint]:
    """Return `points`, neighbours added up where there are more than `at_most`.

    Each mark then has as many points as the others, but for the first, which takes what is left over.
    """
    size = ceil(len(points) / at_most)
    if size <= 1:
        return points
    first = len(points) % size
    groups = [points[:first]] if first else []
    groups += [points[index : index + size] for index in range(first, len(points), size)]
    return [
        Mark(
            start=group[0].start,
            end=group[-1].end,
            used=sum(point.used for point in group),
            refused=sum(point.refused for point in group),
        )
        for group in groups
    ]


def trend(values: Sequence[int]) -> int | None:
    """Return by how many percent the later half of `values` is above (or below) the earlier one, towards zero.

    The last value is still running and is left out, as is the middle one of an odd number. None when the earlier
    half is 0: there is nothing to compare with.
    """
    finished = values[:-1]
    half = len(finished) // 2
    earlier, later = sum(finished[:half]), sum(finished[len(finished) - half :])
    if not earlier:
        return None
    change = abs(later - earlier) * 100 // earlier
    return change if later >= earlier else -change


# -- coordinates -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle; x and width in percent, y and height in pixels."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Dot:
    """A point of a line; x in percent, y in pixels."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Tick:
    """A value beside the vertical axis, and where its grid line runs."""

    y: float
    value: int


@dataclass(frozen=True, slots=True)
class TimeTick:
    """An instant below the horizontal axis; a minor one may be left out where room is short."""

    x: float
    moment: datetime
    minor: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparkline:
    """A line without axes, scaled to its own highest value."""

    height: int
    line: str
    area: str
    last: Dot


def top_of(values: Sequence[int]) -> int:
    """Return the round number that the vertical axis ends at: none of `values` is above it, and it is at least 1."""
    highest = max(values, default=0)
    step = _step(highest)
    return step * max(ceil(highest / step), 1)


def value_ticks(top: int, *, height: int = HEIGHT) -> tuple[Tick, ...]:
    """Return 0, `top` (as `top_of` gives it) and the round numbers between them, from the bottom up; five at most."""
    return tuple(Tick(_y(value, top, height), value) for value in range(0, top + 1, _step(top)))


def time_ticks(points: Sequence[TimePoint]) -> tuple[TimeTick, ...]:
    """Return when points begin, as many as fit under a chart: evenly apart, the last point always one of them."""
    count = len(points)
    apart = max(ceil(count / TIME_TICKS), 1)
    from_the_end = range(count - 1, -1, -apart)
    ticks = [
        TimeTick(_middle(index, count), points[index].start, minor=bool(nth % 2))
        for nth, index in enumerate(from_the_end)
    ]
    return tuple(reversed(ticks))


def bars(values: Sequence[int], *, top: int, height: int = HEIGHT) -> tuple[Bar, ...]:
    """Return one bar per value, standing on the bottom; that of 0 has no height."""
    room = 100 / max(len(values), 1)
    width = round(room * BAR_SHARE, 2)
    gap = (room - width) / 2
    drawn = []
    for index, value in enumerate(values):
        tall = max(height - _y(value, top, height), LOWEST_BAR) if value else 0
        drawn.append(Bar(round(index * room + gap, 2), round(height - tall, 2), width, round(tall, 2)))
    return tuple(drawn)


def dots(values: Sequence[int], *, top: int, height: int = HEIGHT) -> tuple[Dot, ...]:
    """Return where the line passes: for each value the middle of where its bar would stand."""
    count = len(values)
    return tuple(Dot(_middle(index, count), _y(value, top, height)) for index, value in enumerate(values))


def line(values: Sequence[int], *, top: int, height: int = HEIGHT) -> str:
    """Return the path (`d`) through the dots; empty for no values, and level from edge to edge for one."""
    passed = dots(values, top=top, height=height)
    if len(passed) == 1:
        return f"M0 {passed[0].y}H100"
    return "M" + "L".join(f"{dot.x} {dot.y}" for dot in passed) if passed else ""


def area(values: Sequence[int], *, top: int, height: int = HEIGHT) -> str:
    """Return the path (`d`) around what is below the line."""
    drawn = line(values, top=top, height=height)
    if not drawn:
        return ""
    left, right = (0, 100) if len(values) == 1 else (_middle(0, len(values)), _middle(len(values) - 1, len(values)))
    return f"{drawn}L{right} {height}L{left} {height}Z"


def sparkline(values: Sequence[int], *, height: int = 24) -> Sparkline:
    """Return a line of `values`, of which there must be one at least."""
    top = max(*values, 1)
    return Sparkline(
        height=height,
        line=line(values, top=top, height=height),
        area=area(values, top=top, height=height),
        last=dots(values, top=top, height=height)[-1],
    )


def _step(highest: int) -> int:
    """Return the smallest of 1, 2, 5, 10, 20, 50, … of which INTERVALS reach `highest`."""
    power = 1
    while True:
        for step in STEPS:
            if step * power * INTERVALS >= highest:
                return step * power
        power *= 10


def _middle(index: int, count: int) -> float:
    return round((index + 0.5) * 100 / count, 2)


def _y(value: int, top: int, height: int) -> float:
    return round(height - value * height / top, 2)
