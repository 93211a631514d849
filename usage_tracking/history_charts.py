"""What a chart of an organization's history says: texts and geometry, ready to be drawn."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from html import escape
from itertools import dropwhile
from typing import Final, TypeVar

from dateutil.relativedelta import relativedelta
from django.db.models import Min
from django.utils.formats import date_format, get_format, number_format
from django.utils.safestring import SafeString
from django.utils.translation import get_language, gettext_lazy
from django.utils.translation import gettext as _

from usage_tracking import charts
from usage_tracking.cards import number, numbers
from usage_tracking.charts import ChartType, TimePoint, TimeRange
from usage_tracking.conf import Meter, nearest, usage_settings
from usage_tracking.exceptions import InvalidInput
from usage_tracking.history import histories_of
from usage_tracking.ledger import instant
from usage_tracking.models import UsagePeriod, UsageTrackedOrganization
from usage_tracking.organizations import database_of
from usage_tracking.plans import meter_named

__all__ = ["HistoryChart", "chart_type_named", "history_charts", "time_range_named"]

Choice = TypeVar("Choice", bound=StrEnum)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryChart:
    """What one meter's chart says."""

    meter: Meter
    time_range: TimeRange
    chart_type: ChartType
    height: int
    total: str
    summary: str
    trend: int | None
    trend_text: str
    marks: SafeString
    """A `<g>` for each mark: its bar or dot, the column that a pointer hits, and its text."""
    rows: SafeString
    """The same as rows of a table: date, used, refused."""
    grid: SafeString
    """A `<line>` for each value of the axis."""
    values: SafeString
    """A `<text>` for each of these."""
    dates: SafeString
    """A `<text>` for each date below the chart; minor ones may be left out where room is short."""
    line: str
    area: str
    is_empty: bool


def time_range_named(name: str) -> TimeRange:
    """Return the range of that name. Raises InvalidInput."""
    return _choice(TimeRange, name, "time_range")


def chart_type_named(name: str) -> ChartType:
    """Return the type of chart of that name. Raises InvalidInput."""
    return _choice(ChartType, name, "chart_type")


def history_charts(
    organization: UsageTrackedOrganization,
    meters: Iterable[str] | None = None,
    *,
    time_range: TimeRange = TimeRange.DAYS_30,
    chart_type: ChartType = ChartType.LINE,
    now: datetime | None = None,
) -> list[HistoryChart]:
    """Return a chart per meter (default: all of METERS), in two queries, three for `all`. Raises UnknownMeter."""
    now = instant(now)
    names = list(usage_settings.METERS if meters is None else meters)
    began = _began(organization, names) if time_range == TimeRange.ALL else None
    wanted = charts.slice_of(time_range, began=began, now=now)
    histories = histories_of(organization, names, since=_since(wanted, now), until=now, bucket=wanted.bucket, now=now)
    drawn = []
    for name, history in histories.items():
        points = history[-wanted.count :]
        if time_range == TimeRange.ALL:
            points = list(dropwhile(lambda point: not (point.used or point.refused), points)) or points[-1:]
        drawn.append(_chart(meter_named(name), points, wanted.bucket, time_range, chart_type))
    return drawn


def _chart(
    meter: Meter, points: Sequence[TimePoint], bucket: str, time_range: TimeRange, chart_type: ChartType
) -> HistoryChart:
    marks = charts.merged(points)
    values = [mark.used for mark in marks]
    top = charts.top_of(values)
    dates = _dates(marks, bucket, whole=len(marks) == len(points))
    total, change = sum(values), charts.trend(values)
    texts = [
        (escape(date), escape(used), "" if refused == "0" else escape(refused))
        for date, used, refused in zip(dates, numbers(values), numbers(mark.refused for mark in marks), strict=True)
    ]
    ticks = charts.value_ticks(top)
    return HistoryChart(
        meter=meter,
        time_range=time_range,
        chart_type=chart_type,
        height=charts.HEIGHT,
        total=number(total),
        summary=_("%(meter)s from %(first)s to %(last)s: %(total)s in total, at most %(highest)s.")
        % {
            "meter": meter.label,
            "first": dates[0],
            "last": dates[-1],
            "total": number(total),
            "highest": number(max(values)),
        },
        trend=change,
        trend_text="" if change is None else _trend(change),
        marks=_drawn(values, texts, top, chart_type),
        rows=_rows(texts),
        grid=_joined(f'<line class="ut-grid" x2="100%" y1="{tick.y}" y2="{tick.y}"/>' for tick in ticks),
        values=_joined(f'<text x="36" y="{tick.y}" dy="12">{escape(_short(tick.value, top))}</text>' for tick in ticks),
        dates=_below(charts.time_ticks(marks), bucket),
        line="" if chart_type == ChartType.BAR else charts.line(values, top=top),
        area=charts.area(values, top=top) if chart_type == ChartType.AREA else "",
        is_empty=not total,
    )


# Written here and not in a template, which would take longer over a hundred marks and labels than all the rest. Texts
# are escaped: date, used, refused of each mark.

Texts = Sequence[tuple[str, str, str]]


def _joined(markup: Iterable[str]) -> SafeString:
    return SafeString("".join(markup))


def _drawn(values: Sequence[int], texts: Texts, top: int, chart_type: ChartType) -> SafeString:
    width = 100 / len(values)
    shapes = (
        [
            f'<rect class="ut-bar" x="{bar.x}%" y="{bar.y}" width="{bar.width}%" height="{bar.height}" rx="2"/>'
            for bar in charts.bars(values, top=top)
        ]
        if chart_type == ChartType.BAR
        else [f'<circle class="ut-dot" cx="{dot.x}%" cy="{dot.y}" r="4"/>' for dot in charts.dots(values, top=top)]
    )
    column = f'width="{width:.2f}%" height="{charts.HEIGHT}"'
    return _joined(
        f'<g class="ut-mark"><title>{date}: {used}</title>'
        f'<rect class="ut-column" x="{index * width:.2f}%" {column}/>{shape}</g>'
        for index, ((date, used, _refused), shape) in enumerate(zip(texts, shapes, strict=True))
    )


def _rows(texts: Texts) -> SafeString:
    return _joined(
        f'<tr><th scope="row">{date}</th><td>{used}</td><td>{refused}</td></tr>' for date, used, refused in texts
    )


def _below(ticks: Sequence[charts.TimeTick], bucket: str) -> SafeString:
    texts = _named([tick.moment for tick in ticks], _axis_format(bucket))
    return _joined(
        f'<text class="ut-date{" ut-minor" if tick.minor else ""}" x="{tick.x}%" y="{charts.HEIGHT}" dy="20">'
        f"{escape(text)}</text>"
        for tick, text in zip(ticks, texts, strict=True)
    )


def _began(organization: UsageTrackedOrganization, meters: Sequence[str]) -> datetime | None:
    periods = UsagePeriod.objects.using(database_of(organization)).filter(
        organization_id=organization.pk, meter__in=meters
    )
    began: datetime | None = periods.aggregate(began=Min("start"))["began"]
    return began


def _since(wanted: charts.Slice, now: datetime) -> datetime:
    # One bucket more than is wanted, as a change of clocks may hide one; what is too much is cut off.
    return now - relativedelta(**{f"{wanted.bucket}s": wanted.count})  # type: ignore[arg-type]


def _dates(marks: Sequence[TimePoint], bucket: str, *, whole: bool) -> list[str]:
    """Return what each mark is called: a day, a week by its first day, a month, or from when to when."""
    if not whole:
        month, last_day = get_format("YEAR_MONTH_FORMAT"), timedelta(days=1)
        firsts = _named([mark.start for mark in marks], month)
        lasts = _named([mark.end - last_day for mark in marks], month)
        return [f"{first} \N{EN DASH} {last}" for first, last in zip(firsts, lasts, strict=True)]
    form = get_format("YEAR_MONTH_FORMAT" if bucket == "month" else "DATE_FORMAT")
    dates = _named([mark.start for mark in marks], form)
    return [_("Week of %(date)s") % {"date": date} for date in dates] if bucket == "week" else dates


def _named(moments: Iterable[datetime], form: str) -> list[str]:
    language = get_language()
    return [_named_day(moment.date(), form, language) for moment in moments]


@lru_cache(maxsize=4096)  # everybody's charts are about the same days
def _named_day(day: date, form: str, _language: str | None) -> str:
    return str(date_format(day, form))


def _axis_format(bucket: str) -> str:
    # Room is short: the same order, with the month abbreviated.
    return str(get_format("YEAR_MONTH_FORMAT" if bucket == "month" else "MONTH_DAY_FORMAT")).replace("F", "M")


UNITS: Final = (
    # From which top on, the unit, how it is written.
    (10**12, 10**12, gettext_lazy("%(number)sT")),
    (10**9, 10**9, gettext_lazy("%(number)sB")),
    (10**6, 10**6, gettext_lazy("%(number)sM")),
    (10**4, 10**3, gettext_lazy("%(number)sK")),
)


def _short(value: int, top: int) -> str:
    """Return a value of the axis, in the unit that suits its top."""
    for least, unit, form in UNITS:
        if value and top >= least:
            return str(form % {"number": number_format(value // unit if value % unit == 0 else value / unit)})
    return number(value)


def _trend(change: int) -> str:
    words = {"percentage": number(abs(change))}
    if not change:
        return _("Unchanged")
    return (_("Up %(percentage)s%%") if change > 0 else _("Down %(percentage)s%%")) % words


def _choice(kind: type[Choice], name: str, field: str) -> Choice:
    try:
        return kind(name)
    except ValueError as error:
        message = f"{field} cannot be {name!r}.{nearest(name, [member.value for member in kind])}"
        raise InvalidInput(message, field=field) from error
