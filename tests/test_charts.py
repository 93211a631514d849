"""The geometry of charts."""

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usage_tracking.charts import (
    MAX_MARKS,
    Mark,
    Slice,
    TimeRange,
    area,
    bars,
    dots,
    line,
    merged,
    slice_of,
    sparkline,
    time_ticks,
    top_of,
    trend,
    value_ticks,
)
from usage_tracking.quotas import MAX_AMOUNT

NOW = datetime(2026, 7, 1, 15, tzinfo=UTC)
DAY = timedelta(days=1)

amounts = st.integers(min_value=0, max_value=MAX_AMOUNT)


def points_of(values):
    """Return a point per value, a day each, up to now."""
    first = NOW - len(values) * DAY
    return [
        Mark(start=first + index * DAY, end=first + (index + 1) * DAY, used=value, refused=1)
        for index, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("time_range", "wanted"),
    [("7d", Slice("day", 7)), ("30d", Slice("day", 30)), ("90d", Slice("day", 90)), ("1y", Slice("week", 53))],
)
def test_a_range_is_drawn_in_its_buckets(time_range, wanted):
    """Up to 90 days are days, a year is weeks."""
    assert slice_of(TimeRange(time_range), began=None, now=NOW) == wanted


@pytest.mark.parametrize(
    ("began", "wanted"),
    [
        (None, Slice("day", 1)),
        (NOW, Slice("day", 2)),
        (NOW - 88 * DAY, Slice("day", 90)),
        (NOW - 89 * DAY, Slice("week", 15)),
        (NOW - 365 * DAY, Slice("week", 54)),
        (NOW - 2 * 365 * DAY, Slice("month", 28)),
        (NOW + DAY, Slice("day", 2)),
    ],
)
def test_everything_is_drawn_in_the_finest_buckets_that_fit(began, wanted):
    """`all` is days, weeks or months, as long as usage goes back; never more than 90 unless they are months."""
    assert slice_of(TimeRange.ALL, began=began, now=NOW) == wanted


@given(st.lists(amounts, max_size=400), st.integers(1, MAX_MARKS))
def test_merging_loses_nothing_and_keeps_the_order(values, at_most):
    """However many points: at most `at_most` marks, contiguous, with the same sums."""
    points = points_of(values)
    marks = merged(points, at_most)
    assert len(marks) <= at_most
    assert sum(mark.used for mark in marks) == sum(values)
    assert sum(mark.refused for mark in marks) == len(values)
    if points:
        assert (marks[0].start, marks[-1].end) == (points[0].start, points[-1].end)
    assert all(left.end == right.start for left, right in pairwise(marks))


@given(st.lists(amounts, max_size=100))
def test_the_axis_ends_at_a_round_number_above_all(values):
    """Ticks go from 0 to the top in at most four equal steps of 1, 2 or 5 times a power of ten."""
    top = top_of(values)
    ticks = [tick.value for tick in value_ticks(top)]
    assert max(values, default=0) <= top
    assert (ticks[0], ticks[-1]) == (0, top)
    assert 2 <= len(ticks) <= 5
    assert re.fullmatch("[125]0*", str(ticks[1]))


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([], [0, 1]),
        ([0], [0, 1]),
        ([3], [0, 1, 2, 3]),
        ([9, 2], [0, 5, 10]),
        ([4999], [0, 2000, 4000, 6000]),
        ([100], [0, 50, 100]),
    ],
)
def test_ticks_are_whole_numbers(values, ticks):
    """Nobody uses half a request."""
    assert [tick.value for tick in value_ticks(top_of(values))] == ticks


@given(st.lists(amounts, min_size=1, max_size=MAX_MARKS))
def test_everything_lies_inside_the_chart(values):
    """Bars do not overlap, stand on the bottom, and neither they nor dots leave the chart."""
    top = top_of(values)
    drawn = bars(values, top=top, height=200)
    assert all(left.x + left.width <= right.x + 0.011 for left, right in pairwise(drawn))
    for value, bar, dot in zip(values, drawn, dots(values, top=top, height=200), strict=True):
        assert bar.x >= 0
        assert bar.x + bar.width <= 100.01
        assert bar.y + bar.height == pytest.approx(200)
        assert bar.y >= 0
        assert (bar.height > 0) == (value > 0)
        assert 0 <= dot.x <= 100
        assert 0 <= dot.y <= 200


def test_heights_are_in_proportion():
    """Twice as much is twice as high, and a trace of usage is still seen."""
    half, whole, trace = bars([500, 1000, 1], top=1000, height=200)
    assert (half.height, whole.height, trace.height) == (100, 200, 1.5)


def test_the_line_passes_the_middle_of_each_bar():
    """Line, area and dots belong together."""
    assert line([0, 10], top=10, height=200) == "M25.0 200.0L75.0 0.0"
    assert area([0, 10], top=10, height=200) == "M25.0 200.0L75.0 0.0L75.0 200L25.0 200Z"
    assert [(dot.x, dot.y) for dot in dots([0, 10], top=10, height=200)] == [(25, 200), (75, 0)]


def test_one_value_is_a_level_line_and_none_is_nothing():
    """A chart of a single point shows something, one without points does not fail."""
    assert line([5], top=10, height=200) == "M0 100.0H100"
    assert area([5], top=10, height=200) == "M0 100.0H100L100 200L0 200Z"
    assert (line([], top=1), area([], top=1), bars([], top=1), time_ticks([])) == ("", "", (), ())


@pytest.mark.parametrize("count", [1, 2, 7, 8, 30, 53, 90])
def test_the_last_point_always_has_its_date(count):
    """At most seven dates, evenly apart, so that the newest is never guessed; every other one may be hidden."""
    points = points_of([0] * count)
    ticks = time_ticks(points)
    assert 1 <= len(ticks) <= 7
    assert (ticks[-1].moment, ticks[-1].minor) == (points[-1].start, False)
    assert len({right.moment - left.moment for left, right in pairwise(ticks)}) <= 1
    assert all(left.minor != right.minor for left, right in pairwise(ticks))


def test_a_sparkline_fills_its_height():
    """It is scaled to its own highest value; nothing at all is a line at the bottom."""
    drawn = sparkline([0, 3, 1], height=24)
    assert drawn.line == "M16.67 24.0L50.0 0.0L83.33 16.0"
    assert (drawn.last.x, drawn.last.y) == (83.33, 16)
    assert sparkline([0, 0]).line == "M25.0 24.0L75.0 24.0"
    assert sparkline([0]).line == "M0 24.0H100"


@pytest.mark.parametrize(
    ("values", "change"),
    [
        ([10, 20, 0], 100),
        ([20, 10, 99], -50),
        ([10, 7, 10, 0], 0),
        ([3, 4, 0], 33),
        ([3, 2, 0], -33),
        ([0, 5, 0], None),
        ([5], None),
        ([], None),
    ],
)
def test_the_trend_compares_the_halves_without_what_is_still_running(values, change):
    """Whole percents, towards zero; nothing can be compared with nothing."""
    assert trend(values) == change
