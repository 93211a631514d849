"""Periods on every calendar, in every IANA zone."""
# ruff: noqa: DTZ001, DTZ901 - a naive datetime is a wall time here

from calendar import monthrange
from datetime import UTC, date, datetime, timedelta, timezone
from functools import cache
from itertools import islice
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from usage_tracking.periods import (
    DEFAULT_ANCHOR,
    Bucket,
    Calendar,
    Period,
    ResetPeriod,
    bucket_calendar,
    parse_anchor,
    parse_zone,
)

# The machine's own zone is left out, so that every machine tests the same.
ZONES = sorted(available_timezones() - {"localtime"})
SINCE, UNTIL = datetime(1993, 1, 1, tzinfo=UTC), datetime(2023, 1, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
MONTHS = {ResetPeriod.MONTHLY: 1, ResetPeriod.QUARTERLY: 3, ResetPeriod.YEARLY: 12}
DAYS = {ResetPeriod.DAILY: 1, ResetPeriod.WEEKLY: 7}


def utc(*fields):
    """Return an instant."""
    return datetime(*fields).replace(tzinfo=UTC)


def local(zone, *fields):
    """Return the instant of an unambiguous wall time."""
    return datetime(*fields).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


def calendar(reset_period, anchor="2001-01-01", zone="UTC"):
    """Return a calendar from text."""
    return Calendar(ResetPeriod(reset_period), parse_anchor(anchor), ZoneInfo(zone))


# What follows is the calendar once more, slowly and by other means: no relativedelta, no fold. A zone is only
# ever asked for the wall time of an instant, which has one answer.


def offset_at(instant, zone):
    """Return what the clocks of ``zone`` add to UTC at an instant."""
    return instant.astimezone(zone).utcoffset()


def instant_of(wall, zone):
    """Return the first instant at which the clocks read ``wall``, else what they would read had they not moved."""
    near = wall.replace(tzinfo=UTC)
    before, after = offset_at(near - 36 * HOUR, zone), offset_at(near + 36 * HOUR, zone)
    readings = [near - offset for offset in (before, after) if offset_at(near - offset, zone) == offset]
    return min(readings, default=near - before)


def wall_of(n, reset_period, anchor):
    """Return the wall time of boundary ``n``: the anchor's day and time, or the last day of a shorter month."""
    if reset_period in DAYS:
        return anchor + n * timedelta(days=DAYS[reset_period])
    year, month = divmod(anchor.year * 12 + anchor.month - 1 + n * MONTHS[reset_period], 12)
    return anchor.replace(year=year, month=month + 1, day=min(anchor.day, monthrange(year, month + 1)[1]))


@cache
def transitions(name):
    """Return each instant from 1993 to 2022 at which the clocks of a zone were moved, and the offset before it."""
    # A fortnight is short enough: no zone in these years moved its clocks there and back within one.
    stride, zone, found = 14 * 24 * 3600, ZoneInfo(name), []
    start, here = SINCE, offset_at(SINCE, zone)
    while start < UNTIL:
        there = offset_at(start + timedelta(seconds=stride), zone)
        if here != there:
            low, high = 0, stride
            while high - low > 1:
                middle = (low + high) // 2
                same = offset_at(start + timedelta(seconds=middle), zone) == here
                low, high = (middle, high) if same else (low, middle)
            found.append((start + timedelta(seconds=high), here))
        start, here = start + timedelta(seconds=stride), there
    return tuple(found)


@cache
def zones_that_differ():
    """Return one name for each history of offsets: a sweep learns nothing from an alias."""
    return list({(offset_at(SINCE, ZoneInfo(name)), transitions(name)): name for name in ZONES}.values())


def assert_tiled_around(calendar, instant):
    """Assert that periods meet without gap, overlap or emptiness around an instant, which is in exactly one."""
    period = calendar.period_at(instant)
    before, after = calendar.period_at(period.start - TICK), calendar.period_at(period.end)
    assert [instant in one for one in (before, period, after)] == [False, True, False]
    assert before.start < before.end == period.start < period.end == after.start < after.end


AGO = {  # whole intervals: from an anchor as long ago, there is a boundary here
    ResetPeriod.HOURLY: lambda wall: wall - timedelta(days=3),
    ResetPeriod.DAILY: lambda wall: wall - timedelta(days=300),
    ResetPeriod.WEEKLY: lambda wall: wall - timedelta(weeks=200),
    ResetPeriod.MONTHLY: lambda wall: wall.replace(year=wall.year - 4),
    ResetPeriod.QUARTERLY: lambda wall: wall.replace(year=wall.year + 4),
    ResetPeriod.YEARLY: lambda wall: wall.replace(year=wall.year - 8),
}


@pytest.mark.parametrize("reset_period", ResetPeriod)
def test_periods_tile_every_clock_change_of_every_zone(reset_period):
    """At every clock change since 1993, with a boundary inside it or at midnight, periods meet and none is empty."""
    for name in zones_that_differ():
        zone = ZoneInfo(name)
        for instant, before in transitions(name):
            moved = offset_at(instant, zone) - before
            inside = (instant + before + moved / 2).replace(tzinfo=None)  # never on the clock, or twice
            stepped = Calendar(reset_period, AGO[reset_period](inside), zone)
            assert_tiled_around(stepped, instant)
            if reset_period != ResetPeriod.HOURLY:
                boundary = instant_of(inside, zone)
                assert stepped.period_at(boundary).start == boundary, (name, inside)
            assert_tiled_around(Calendar(reset_period, zone=zone), instant)


def test_no_zone_puts_its_clocks_forward_by_more_than_a_day():
    """Boundaries a day apart on the clock never change places, because no clock jumps further than that."""
    jumps = [offset_at(instant, ZoneInfo(name)) - before for name in ZONES for instant, before in transitions(name)]

    assert max(jumps) == timedelta(days=1)


zones = st.sampled_from(ZONES).map(ZoneInfo)
last_days = st.builds(
    lambda year, month, back, clock: datetime.combine(date(year, month, monthrange(year, month)[1] - back), clock),
    st.integers(1970, 2060),
    st.integers(1, 12),
    st.integers(0, 2),
    st.times(),
)
leap_days = st.builds(
    lambda n, clock: datetime.combine(date(1972 + 4 * n, 2, 29), clock), st.integers(0, 20), st.times()
)
walls = st.one_of(last_days, leap_days, st.datetimes(datetime(1970, 1, 1), datetime(2060, 1, 1)))
offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
anchors = walls | st.builds(datetime.replace, walls, tzinfo=offsets)
calendars = st.builds(Calendar, st.sampled_from(ResetPeriod), anchors, zones)


@st.composite
def calendars_and_instants(draw):
    """Return a calendar and an instant: any in thirty years, or one within two days of a clock change."""
    subject = draw(calendars)
    changes = transitions(subject.zone.key)
    instants = st.datetimes(SINCE.replace(tzinfo=None), UNTIL.replace(tzinfo=None), timezones=st.just(UTC))
    if changes:
        hours = st.timedeltas(timedelta(days=-2), timedelta(days=2))
        instants |= st.builds(lambda change, by: change[0] + by, st.sampled_from(changes), hours)
    return subject, draw(instants)


@settings(max_examples=500, deadline=None)
@given(calendars_and_instants())
def test_every_instant_lies_in_exactly_one_period(drawn):
    """Periods meet without gap or overlap and none is empty, for any calendar, on either side of its anchor."""
    subject, instant = drawn
    period = subject.period_at(instant)

    assert_tiled_around(subject, instant)
    assert subject.period_at(period.start) == subject.period_at(period.end - TICK) == period
    assert subject.next_boundary(instant) == subject.next_boundary(period.start) == period.end
    later = subject.next_boundary(period.end)
    assert list(islice(subject.boundaries(instant), 3)) == [period.end, later, subject.next_boundary(later)]


@settings(max_examples=500, deadline=None)
@given(st.sampled_from([*DAYS, *MONTHS]), anchors, zones, st.integers(-360, 360))
@example(ResetPeriod.MONTHLY, datetime(2001, 1, 31, 2, 30), ZoneInfo("Europe/Berlin"), 1)
def test_boundaries_do_not_drift(reset_period, anchor, zone, n):
    """Boundary n reads the anchor's wall time, n intervals on, whichever boundaries are between."""
    wall = anchor if anchor.tzinfo is None else anchor.astimezone(zone).replace(tzinfo=None)

    boundary = Calendar(reset_period, anchor, zone).boundary(n)

    assert boundary == instant_of(wall_of(n, reset_period, wall), zone)
    assert boundary.tzinfo is UTC


@settings(deadline=None)
@given(calendars, st.integers(-360, 360))
def test_boundaries_never_go_back(subject, n):
    """A boundary is never before the one that precedes it."""
    assert subject.boundary(n) <= subject.boundary(n + 1)


@settings(deadline=None)
@given(anchors, zones, st.integers(-300_000, 300_000))
@example(datetime(2024, 4, 7, 1, 45), ZoneInfo("Australia/Lord_Howe"), 0)  # twice
@example(datetime(2024, 10, 6, 2, 15), ZoneInfo("Australia/Lord_Howe"), 0)  # never
def test_hours_are_elapsed_time(anchor, zone, n):
    """Hourly boundaries are 3600 seconds apart and counted from the anchor's instant, whatever the clocks do."""
    origin = instant_of(anchor, zone) if anchor.tzinfo is None else anchor

    assert Calendar(ResetPeriod.HOURLY, anchor, zone).boundary(n) == origin + n * HOUR


@pytest.mark.parametrize("reset_period", ResetPeriod)
@pytest.mark.parametrize("years", [-80, 80])
def test_looking_up_a_far_instant_takes_few_steps(reset_period, years, monkeypatch):
    """A period is found by arithmetic, not by walking there from the anchor."""
    calls, boundary = [], Calendar.boundary

    def counted(self, n):
        calls.append(n)
        return boundary(self, n)

    monkeypatch.setattr(Calendar, "boundary", counted)
    anchor = datetime(2024, 2, 29, 23, 59, 59, 999_999)

    assert_tiled_around(Calendar(reset_period, anchor, ZoneInfo("Pacific/Apia")), utc(2024 + years, 3, 1))

    assert len(calls) <= 3 * 5  # for three lookups


@pytest.mark.parametrize(
    ("reset_period", "anchor", "instant", "start", "end"),
    [
        ("hourly", "2001-01-01", utc(2024, 5, 15, 9, 30), utc(2024, 5, 15, 9), utc(2024, 5, 15, 10)),
        ("daily", "2001-01-01", utc(2024, 5, 15, 9, 30), utc(2024, 5, 15), utc(2024, 5, 16)),
        ("weekly", "2001-01-01", utc(2024, 5, 15), utc(2024, 5, 13), utc(2024, 5, 20)),  # Monday to Monday
        ("monthly", "2001-01-01", utc(2024, 5, 15), utc(2024, 5, 1), utc(2024, 6, 1)),
        ("quarterly", "2001-01-01", utc(2024, 5, 15), utc(2024, 4, 1), utc(2024, 7, 1)),
        ("yearly", "2001-01-01", utc(2024, 5, 15), utc(2024, 1, 1), utc(2025, 1, 1)),
        ("weekly", "2024-05-16T18:00", utc(2024, 5, 16, 17, 59), utc(2024, 5, 9, 18), utc(2024, 5, 16, 18)),
        ("monthly", "2001-01-15", utc(2024, 5, 15), utc(2024, 5, 15), utc(2024, 6, 15)),
        ("monthly", "2024-01-31", utc(2024, 2, 29), utc(2024, 2, 29), utc(2024, 3, 31)),
        ("monthly", "2024-01-31", utc(2023, 3, 1), utc(2023, 2, 28), utc(2023, 3, 31)),
        ("monthly", "2024-01-30", utc(2025, 2, 28), utc(2025, 2, 28), utc(2025, 3, 30)),
        ("quarterly", "2023-11-30", utc(2024, 3, 1), utc(2024, 2, 29), utc(2024, 5, 30)),
        ("yearly", "2024-02-29", utc(2025, 3, 1), utc(2025, 2, 28), utc(2026, 2, 28)),
        ("yearly", "2024-02-29", utc(2028, 2, 28), utc(2027, 2, 28), utc(2028, 2, 29)),
        ("yearly", "2000-02-29", utc(2100, 6, 1), utc(2100, 2, 28), utc(2101, 2, 28)),
        ("monthly", "2030-01-01", utc(2024, 5, 15), utc(2024, 5, 1), utc(2024, 6, 1)),  # before its anchor
        ("daily", "2024-05-15T10:00+02:00", utc(2024, 5, 15, 9), utc(2024, 5, 15, 8), utc(2024, 5, 16, 8)),
        (
            "hourly",
            "2024-05-15T10:00:00.25",
            utc(2024, 5, 15, 9),
            utc(2024, 5, 15, 8, 0, 0, 250_000),
            utc(2024, 5, 15, 9, 0, 0, 250_000),
        ),
    ],
)
def test_periods_in_utc(reset_period, anchor, instant, start, end):
    """By default periods are those of the calendar; a reset day is an anchor."""
    assert calendar(reset_period, anchor).period_at(instant) == Period(start, end)


def test_an_anchor_on_the_31st_falls_on_the_last_day_of_every_month():
    """Clamping one month leaves the next ones alone."""
    months = calendar("monthly", "2023-01-31")

    assert [months.boundary(n).day for n in range(15)] == [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31, 29, 31]
    assert [months.boundary(-n).day for n in range(1, 4)] == [31, 30, 31]


@pytest.mark.parametrize(
    ("zone", "clock", "noon", "start", "end"),
    [
        # An hour skipped and an hour repeated, at night and at midnight itself
        ("America/New_York", "00:00", (2024, 3, 10), utc(2024, 3, 10, 5), utc(2024, 3, 11, 4)),
        ("America/New_York", "00:00", (2024, 11, 3), utc(2024, 11, 3, 4), utc(2024, 11, 4, 5)),
        ("America/New_York", "02:30", (2024, 3, 10), utc(2024, 3, 10, 7, 30), utc(2024, 3, 11, 6, 30)),
        ("America/New_York", "01:30", (2024, 11, 3), utc(2024, 11, 3, 5, 30), utc(2024, 11, 4, 6, 30)),
        ("America/Sao_Paulo", "00:00", (2018, 11, 4), utc(2018, 11, 4, 3), utc(2018, 11, 5, 2)),
        ("America/Havana", "00:00", (2024, 11, 3), utc(2024, 11, 3, 4), utc(2024, 11, 4, 5)),
        # Ramadan, when Morocco puts its clocks back, and the day after it
        ("Africa/Casablanca", "02:30", (2019, 5, 5), utc(2019, 5, 5, 1, 30), utc(2019, 5, 6, 2, 30)),
        ("Africa/Casablanca", "02:30", (2019, 6, 9), utc(2019, 6, 9, 2, 30), utc(2019, 6, 10, 1, 30)),
        # Half an hour of summer time
        ("Australia/Lord_Howe", "00:00", (2024, 4, 7), utc(2024, 4, 6, 13), utc(2024, 4, 7, 13, 30)),
        ("Australia/Lord_Howe", "00:00", (2024, 10, 6), utc(2024, 10, 5, 13, 30), utc(2024, 10, 6, 13)),
        # The day before and the day after the one that was skipped
        ("Pacific/Apia", "00:00", (2011, 12, 29), utc(2011, 12, 29, 10), utc(2011, 12, 30, 10)),
        ("Pacific/Apia", "00:00", (2011, 12, 31), utc(2011, 12, 30, 10), utc(2011, 12, 31, 10)),
        ("Pacific/Kwajalein", "00:00", (1993, 8, 20), utc(1993, 8, 20, 12), utc(1993, 8, 21, 12)),
        ("Pacific/Kwajalein", "00:00", (1993, 8, 22), utc(1993, 8, 21, 12), utc(1993, 8, 22, 12)),
        # A new standard time, by half an hour
        ("Asia/Pyongyang", "00:00", (2018, 5, 4), utc(2018, 5, 3, 15, 30), utc(2018, 5, 4, 15)),
    ],
)
def test_days_where_clocks_move(zone, clock, noon, start, end):
    """A day lasts from one wall time to the next, be that 23, 24 and a half or 25 hours."""
    days = calendar("daily", f"2001-01-01T{clock}", zone)

    assert days.period_at(local(zone, *noon, 12)) == Period(start, end)


def test_a_skipped_day_is_no_period():
    """The two boundaries around 30 December 2011, which Samoa never had, are one."""
    days = calendar("daily", "2011-12-29", "Pacific/Apia")

    assert days.boundary(1) == days.boundary(2) == utc(2011, 12, 30, 10)
    assert days.period_at(days.boundary(1) - TICK).end == days.period_at(days.boundary(1)).start
    assert days.next_boundary(days.boundary(1)) == days.boundary(3)
    assert list(islice(days.boundaries(days.boundary(0)), 2)) == [days.boundary(1), days.boundary(3)]


def test_an_aware_anchor_is_read_off_the_clock_of_the_zone():
    """An anchor at 23:00 UTC resets at midnight in Berlin, in summer too."""
    months = calendar("monthly", "2023-12-31T23:00Z", "Europe/Berlin")

    assert months.period_at(utc(2024, 7, 10)) == Period(utc(2024, 6, 30, 22), utc(2024, 7, 31, 22))


def test_an_instant_may_be_given_in_any_zone():
    """The period of an instant does not depend on how the instant is written."""
    instant = utc(2024, 5, 31, 22, 30)

    assert calendar("monthly").period_at(instant.astimezone(ZoneInfo("Asia/Tokyo"))).start == utc(2024, 5, 1)
    assert calendar("monthly", zone="Europe/Berlin").period_at(instant).start == utc(2024, 5, 31, 22)


@pytest.mark.parametrize(
    ("instant", "message"),
    [
        (datetime(2024, 1, 1), "2024-01-01 00:00:00 is naive"),
        (utc(1899, 12, 31), "1899-12-31 00:00:00[+]00:00 lies outside the years 1900 to 2200"),
        (datetime.max.replace(tzinfo=UTC), "outside the years 1900 to 2200"),
        (datetime.min.replace(tzinfo=UTC), "outside the years 1900 to 2200"),
    ],
)
def test_instants_that_cannot_be_looked_up(instant, message):
    """A naive or absurdly distant instant is refused in words."""
    with pytest.raises(ValueError, match=message):
        calendar("daily").period_at(instant)
    with pytest.raises(ValueError, match=message):
        calendar("daily").next_boundary(instant)


@pytest.mark.parametrize("instant", [utc(1900, 1, 1), utc(2200, 12, 31, 23, 59, 59, 999_999)])
@pytest.mark.parametrize("anchor", ["1900-01-01", "2200-12-31T23:59:59.999999"])
@pytest.mark.parametrize("reset_period", ResetPeriod)
@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_three_centuries_are_supported(reset_period, anchor, instant, zone):
    """The first and the last instant work with the first and the last anchor."""
    assert instant in calendar(reset_period, anchor, zone).period_at(instant)


def test_a_period_is_half_open():
    """Its start belongs to a period, its end to the next."""
    period = Period(utc(2024, 1, 1), utc(2024, 2, 1))

    assert utc(2024, 1, 1) in period
    assert utc(2024, 2, 1) - TICK in period
    assert utc(2024, 1, 1) - TICK not in period
    assert utc(2024, 2, 1) not in period
    assert period.seconds == 31 * 24 * 3600


def test_a_period_without_an_end_goes_on():
    """Under manual reset a period contains everything since its start and has no length."""
    period = Period(utc(2024, 1, 1), None)

    assert utc(2199, 1, 1) in period
    assert utc(2024, 1, 1) - TICK not in period
    assert period.seconds is None


def test_seconds_are_whole():
    """A fraction of a second is cut off."""
    assert Period(utc(2024, 1, 1), utc(2024, 1, 1, 0, 0, 9, 999_999)).seconds == 9


@pytest.mark.parametrize(
    ("bucket", "zone", "start", "end"),
    [
        (Bucket.DAY, "Europe/Berlin", utc(2024, 3, 30, 23), utc(2024, 3, 31, 22)),
        (Bucket.HOUR, "Europe/Berlin", utc(2024, 3, 31, 9), utc(2024, 3, 31, 10)),
        (Bucket.HOUR, "Asia/Kolkata", utc(2024, 3, 31, 9, 30), utc(2024, 3, 31, 10, 30)),
    ],
)
def test_buckets(bucket, zone, start, end):
    """History is cut at midnights or full hours of the zone."""
    assert bucket_calendar(bucket, ZoneInfo(zone)).period_at(utc(2024, 3, 31, 9, 45)) == Period(start, end)


@pytest.mark.parametrize(
    ("value", "anchor"),
    [
        ("2024-01-31", datetime(2024, 1, 31)),
        ("2024-01-31T09:00", datetime(2024, 1, 31, 9)),
        ("2024-01-31 09:00:01.25", datetime(2024, 1, 31, 9, 0, 1, 250_000)),
        ("2024-01-31T09:00Z", utc(2024, 1, 31, 9)),
        ("2024-01-31T09:00+02:00", utc(2024, 1, 31, 7)),
        ("1900-01-01", datetime(1900, 1, 1)),
        ("2200-12-31T23:59", datetime(2200, 12, 31, 23, 59)),
        (date(2024, 2, 29), datetime(2024, 2, 29)),
        (datetime(2024, 2, 29, 9), datetime(2024, 2, 29, 9)),
        (utc(2024, 2, 29, 9), utc(2024, 2, 29, 9)),
    ],
)
def test_anchors_that_parse(value, anchor):
    """An anchor is naive exactly when it names no offset: the two kinds are never equal."""
    assert parse_anchor(value) == anchor


@given(anchors)
def test_anchors_survive_being_written_down(anchor):
    """What isoformat writes is read back the same."""
    assert parse_anchor(anchor.isoformat()) == anchor


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "'' is not in ISO 8601, such as 2001-01-31, 2001-01-31T09:00 or 2001-01-31T09:00[+]02:00"),
        ("tomorrow", "'tomorrow' is not in ISO 8601"),
        ("31.01.2024", "is not in ISO 8601"),
        ("2024-1-31", "is not in ISO 8601"),
        ("2024-01", "is not in ISO 8601"),
        ("2024-W05", "is not in ISO 8601"),
        ("20240131", "is not in ISO 8601"),
        ("1706659200", "is not in ISO 8601"),
        (" 2024-01-31", "is not in ISO 8601"),
        ("2024-01-31\n", "is not in ISO 8601"),
        ("2024-01-31T", "is not in ISO 8601"),
        ("2024-01-31909:00", "is not in ISO 8601"),
        ("2024-01-31T09:00 Europe/Berlin", "is not in ISO 8601"),
        ("2024-01-31T09:00:00.1234567", "is not in ISO 8601"),
        ("२०२४-०१-३१", "is not in ISO 8601"),
        ("2023-02-29", "'2023-02-29' does not exist: day"),
        ("2024-13-01", "does not exist: month"),
        ("2024-01-31T25:00", "does not exist: hour"),
        ("2024-01-31T09:00+25:00", "does not exist: offset"),
        ("0000-01-01", "does not exist: year"),
        ("1899-12-31", "1899-12-31 00:00:00 lies outside the years 1900 to 2200"),
        ("2201-01-01T00:00Z", "2201-01-01 00:00:00[+]00:00 lies outside the years 1900 to 2200"),
        (date(1, 1, 1), "outside the years 1900 to 2200"),
        (datetime.max, "outside the years 1900 to 2200"),
        (None, "None is not in ISO 8601"),
        (True, "True is not in ISO 8601"),
        (20240131, "20240131 is not in ISO 8601"),
        ([], "is not in ISO 8601"),
    ],
)
def test_anchors_that_do_not_parse(value, message):
    """The error quotes the value and says what is wrong with it."""
    with pytest.raises(ValueError, match=message):
        parse_anchor(value)


def test_every_zone_parses():
    """Every IANA name is a zone, and always the same object."""
    for name in available_timezones() - {"localtime", "Factory"}:
        assert parse_zone(name).key == name
        assert parse_zone(name) is parse_zone(name)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("Europe/Berln", "'Europe/Berln' is not the IANA name of a time zone; did you mean 'Europe/Berlin'?"),
        ("europe/berlin", "did you mean 'Europe/Berlin'?"),
        ("utc", "did you mean 'UTC'?"),
        ("New York", "did you mean 'America/New_York'?"),
        ("", "'' is not the IANA name of a time zone; names look like 'Europe/Berlin' or 'UTC'"),
        ("/etc/localtime", "is not the IANA name"),
        ("/usr/share/zoneinfo/UTC", "is not the IANA name"),
        ("../zoneinfo/UTC", "is not the IANA name"),
        ("Europe", "is not the IANA name"),
        ("Europe/", "is not the IANA name"),
        ("localtime", "is not the IANA name"),
        ("posix/UTC", "is not the IANA name"),
        ("Factory", "is not the IANA name"),
        ("+02:00", "is not the IANA name"),
        ("UTC\0", "is not the IANA name"),
        (None, "None is not the IANA name"),
        (2, "2 is not the IANA name"),
        ([], "is not the IANA name"),
    ],
)
def test_zones_that_do_not_parse(value, message):
    """The error quotes the value and offers the nearest name there is."""
    with pytest.raises(ValueError, match="IANA") as error:
        parse_zone(value)
    assert message in str(error.value)


def test_the_default_anchor_begins_a_week_a_month_and_a_year():
    """Stepping from it gives calendar periods, whatever their length."""
    assert (DEFAULT_ANCHOR.weekday(), DEFAULT_ANCHOR.day, DEFAULT_ANCHOR.month) == (0, 1, 1)
    assert DEFAULT_ANCHOR.tzinfo is None
