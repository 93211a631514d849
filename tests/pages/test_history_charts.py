"""What charts say."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import translation

from usage_tracking.charts import ChartType, TimeRange
from usage_tracking.entitlements import update_limits
from usage_tracking.exceptions import InvalidInput
from usage_tracking.history_charts import chart_type_named, history_charts, time_range_named
from usage_tracking.metering import consume, history_of

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _unlimited(configure):
    """Nothing is refused."""
    configure(DEFAULT_LIMIT=None, METERS={"tokens": {"label": "Tokens <AI>"}})


def chart_of(organization, time_range="30d", chart_type="bar"):
    """Return the chart of the meter `api`."""
    (chart,) = history_charts(
        organization, ["api"], time_range=TimeRange(time_range), chart_type=ChartType(chart_type), now=NOW
    )
    return chart


def rows(chart):
    """Return the rows of the table behind a chart."""
    return re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td><td>(.*?)</td></tr>', chart.rows)


def labels(chart):
    """Return the values beside the axis of a chart, from the bottom up."""
    return re.findall(r">([^<]+)</text>", chart.values)


def test_the_numbers_are_those_of_the_history(organization):
    """One mark per day, in the table too, as `history_of` tells it; the last is today."""
    for days, amount in [(30, 100), (29, 7), (3, 5), (0, 1200)]:
        consume(organization, amount, now=NOW - timedelta(days=days))
    chart = chart_of(organization)
    told = [point.used for point in history_of(organization, now=NOW)]
    assert [int(used.replace(",", "")) for _, used, _ in rows(chart)] == told
    assert rows(chart)[-1] == ("March 10, 2026", "1,200", "")
    assert (chart.total, chart.is_empty) == ("1,212", False)
    assert chart.marks.count("<title>") == 30
    assert "<title>March 10, 2026: 1,200</title>" in chart.marks


@pytest.mark.parametrize(
    ("time_range", "count", "last"),
    [
        ("7d", 7, "March 10, 2026"),
        ("30d", 30, "March 10, 2026"),
        ("90d", 90, "March 10, 2026"),
        ("1y", 53, "Week of March 9, 2026"),
    ],
)
def test_each_range_has_its_marks(organization, time_range, count, last):
    """Days, or weeks for a year; with a change of clocks in between as without."""
    update_limits(organization, time_zone="America/New_York")
    consume(organization, now=NOW)
    found = rows(chart_of(organization, time_range))
    assert (len(found), found[-1][0]) == (count, last)


@pytest.mark.parametrize(
    ("days", "most", "last"),
    [
        (0, 1, "March 10, 2026"),
        (50, 51, "March 10, 2026"),
        (300, 44, "Week of March 9, 2026"),
        (2000, 67, "March 2026"),
        (9000, 75, "December 2025 – March 2026"),  # noqa: RUF001
    ],
)
def test_everything_begins_with_the_first_use(organization, days, most, last):
    """In days, weeks or months, added up where there are more than 90 of these."""
    consume(organization, 2, now=NOW - timedelta(days=days))
    consume(organization, 1, now=NOW)
    chart = chart_of(organization, "all")
    found = rows(chart)
    assert len(found) == most
    assert found[-1][0] == last
    assert found[0][1] == ("3" if days == 0 else "2")
    assert chart.total == "3"


def test_bars_lines_and_areas(organization):
    """Each mark is a bar, or a dot on the line."""
    consume(organization, now=NOW)
    for chart_type, shape in [("bar", 'rect class="ut-bar'), ("line", "circle"), ("area", "circle")]:
        assert chart_of(organization, "7d", chart_type).marks.count(f"<{shape}") == 7


def test_what_was_never_used_is_empty(organization):
    """Not a flat line."""
    chart = chart_of(organization, "all")
    assert (chart.is_empty, chart.trend, chart.trend_text) == (True, None, "")


def test_the_trend_is_said_in_words(organization):
    """Up, down or unchanged; the arrow is decoration."""
    for days, amount in [(20, 10), (10, 15)]:
        consume(organization, amount, now=NOW - timedelta(days=days))
    assert chart_of(organization).trend_text == "Up 50%"
    consume(organization, 100, now=NOW)
    assert chart_of(organization).trend_text == "Up 50%"


def test_big_numbers_are_short_at_the_axis(organization):
    """1.5M rather than 1,500,000; the table has all digits."""
    consume(organization, 5_400_000, now=NOW)
    assert labels(chart_of(organization)) == ["0", "2M", "4M", "6M"]
    with translation.override("de"):
        assert labels(chart_of(organization))[-1] == "6 Mio."
        assert rows(chart_of(organization))[-1][:2] == ("10. März 2026", "5.400.000")


def test_several_meters_are_two_queries(organization, django_assert_num_queries):
    """However many; one more for `all`."""
    consume(organization, 3, meter="tokens", now=NOW)
    with django_assert_num_queries(2):
        api, tokens = history_charts(organization, now=NOW)
    assert (api.total, tokens.total) == ("0", "3")
    with django_assert_num_queries(3):
        history_charts(organization, time_range=TimeRange.ALL, now=NOW)


@pytest.mark.parametrize(
    ("parse", "name"), [(time_range_named, "31d"), (chart_type_named, "pie"), (chart_type_named, "")]
)
def test_unknown_choices_are_named(parse, name):
    """With the field, and what there is."""
    with pytest.raises(InvalidInput, match=repr(name)) as error:
        parse(name)
    assert error.value.field in {"time_range", "chart_type"}
