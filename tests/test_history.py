"""The time series: what was used, bucket by bucket."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from tests.factories import OrganizationFactory
from usage_tracking.exceptions import InvalidInput
from usage_tracking.history import MAX_POINTS, HistoryPoint
from usage_tracking.metering import consume, histories_of, histories_of_each, history_of, refund
from usage_tracking.models import UsageHistory

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
BERLIN = ZoneInfo("Europe/Berlin")


def at(*fields, zone=UTC):
    """Return an instant of 2026."""
    return datetime(2026, *fields, tzinfo=zone)


@pytest.fixture(autouse=True)
def _unlimited(configure):
    """Nothing is refused unless a test wants it."""
    configure(DEFAULT_LIMIT=None, METERS={"tokens": {}})


def used(points):
    """Return the usage of points that have some, by their first day."""
    return {f"{point.start:%m-%d}": point.used for point in points if point.used}


def test_days_without_usage_are_points_too(organization):
    """From `since` to `until` there is one point per day, oldest first, and those without usage are 0."""
    for day, amount in [(2, 3), (5, 1), (5, 4)]:
        consume(organization, amount, now=at(3, day, 9))
    points = history_of(organization, since=at(3, 1, 15), until=at(3, 6, 1), now=at(3, 9))
    assert [(point.start, point.end) for point in points] == [(at(3, day), at(3, day + 1)) for day in range(1, 7)]
    assert [point.used for point in points] == [0, 3, 0, 0, 5, 0]


@pytest.mark.parametrize("days", [3, 300])
def test_all_meters_are_read_in_two_queries(organization, days, django_assert_num_queries):
    """However many meters and days there are, history is two queries, and the same as of each meter alone."""
    for day in range(0, days, max(days // 10, 1)):
        consume(organization, 2, now=at(1, 1, 9) + day * DAY)
        consume(organization, day + 1, "tokens", now=at(1, 1, 9) + day * DAY)
    span = {"since": at(1, 1), "until": at(1, 1) + days * DAY}
    with django_assert_num_queries(2):
        points = histories_of(organization, **span)
    assert points == {meter: history_of(organization, meter, **span) for meter in ("api", "tokens")}
    assert len(points["api"]) == days
    assert list(histories_of(organization, ["tokens"], **span)) == ["tokens"]


def test_thirty_buckets_until_now_are_the_default(organization, freeze):
    """Without a range the last thirty points end with the running one."""
    freeze(at(3, 10, 12))
    consume(organization, 4)
    points = history_of(organization)
    assert len(points) == 30
    assert points[-1] == HistoryPoint(start=at(3, 10), end=at(3, 11), used=4, refused=0)
    assert history_of(organization, bucket="month")[0].start == datetime(2023, 10, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("last", "bucket", "first"), [(1, "day", at(3, 10)), (7, "day", at(3, 4)), (3, "month", at(1, 1))]
)
def test_the_last_buckets_end_with_the_running_one(organization, freeze, last, bucket, first):
    """`last` says how many points there are, whatever they cover."""
    freeze(at(3, 10, 12))
    points = history_of(organization, last=last, bucket=bucket)
    assert (len(points), points[0].start) == (last, first)


@pytest.mark.parametrize("last", [0, -1, True, 1.0, "7", MAX_POINTS + 1])
def test_a_number_of_buckets_that_makes_no_sense_is_an_error(organization, last):
    """It is a whole number from 1, and there is an end to it."""
    with pytest.raises(InvalidInput, match="whole number from 1 to 10000") as caught:
        history_of(organization, last=last)
    assert caught.value.field == "last"


@pytest.mark.parametrize("arguments", [{"since": at(3, 1)}, {"bucket": "month", "until": at(3, 1)}])
def test_one_beginning_is_enough(organization, arguments):
    """`last` together with `since`, or back to where no calendar goes, is an error of `last`."""
    with pytest.raises(InvalidInput) as caught:
        history_of(organization, last=5000, **arguments)
    assert caught.value.field == "last"


def test_nothing_is_a_row_of_zeros(organization):
    """An organization that used nothing has points all the same, and reading them writes nothing."""
    points = history_of(organization, now=at(3, 10))
    assert {point.used for point in points} == {point.refused for point in points} == {0}


@pytest.mark.parametrize(
    ("bucket", "expected"),
    [
        ("day", {"03-02": 1, "03-08": 2, "03-09": 4, "03-31": 8, "04-01": 16}),
        ("week", {"03-02": 3, "03-09": 4, "03-30": 24}),
        ("month", {"03-01": 15, "04-01": 16}),
    ],
)
def test_days_add_up_to_weeks_and_months(organization, bucket, expected):
    """Weeks begin on Monday; each day is in exactly one point, across periods and whatever the bucket."""
    for moment, amount in [(at(3, 2), 1), (at(3, 8, 23), 2), (at(3, 9), 4), (at(3, 31, 23), 8), (at(4, 1), 16)]:
        consume(organization, amount, now=moment)
    points = history_of(organization, since=at(3, 2), until=at(4, 2), bucket=bucket)
    assert used(points) == expected
    for first, second in pairwise(points):
        assert first.end == second.start


def test_hours_where_hours_are_stored(organization, configure):
    """With HISTORY_BUCKET "hour" there are points per hour."""
    configure(HISTORY_BUCKET="hour")
    for hour, amount in [(8, 1), (8, 2), (10, 4)]:
        consume(organization, amount, now=at(3, 10, hour, 30))
    points = history_of(organization, since=at(3, 10, 8), until=at(3, 10, 11), bucket="hour")
    assert [point.used for point in points] == [3, 0, 4]
    assert used(history_of(organization, since=at(3, 10), until=at(3, 10, 11))) == {"03-10": 7}


def test_finer_than_stored_is_an_error(organization):
    """Days cannot be told apart into hours."""
    with pytest.raises(InvalidInput, match="HISTORY_BUCKET") as caught:
        history_of(organization, bucket="hour")
    assert caught.value.field == "bucket"


def test_points_are_days_of_the_organizations_zone(db):
    """A day is what the organization's own clock says, 23 or 25 hours where it is put forward or back."""
    organization = OrganizationFactory(usage_time_zone="Europe/Berlin")
    spring, autumn = at(3, 29, zone=BERLIN), at(10, 25, zone=BERLIN)
    for day in (spring, autumn):
        for moment in (day, day + DAY - timedelta(seconds=1)):
            consume(organization, 1, now=moment)
        points = history_of(organization, since=day - DAY, until=day + DAY)
        assert [point.used for point in points] == [0, 2]
        assert {point.start.tzinfo for point in points} == {BERLIN}
        assert points[1].start == day
        assert points[1].end.utcoffset() != points[1].start.utcoffset()
        assert (points[1].start.hour, points[1].end.hour) == (0, 0)
    lengths = [row.end.astimezone(UTC) - row.start.astimezone(UTC) for row in UsageHistory.objects.order_by("start")]
    assert lengths[0] == 23 * HOUR


def test_hours_of_the_day_that_has_two_twos(configure, db):
    """Where the clock is put back, the hour that comes twice is two points."""
    configure(HISTORY_BUCKET="hour")
    organization = OrganizationFactory(usage_time_zone="Europe/Berlin")
    midnight = at(10, 25, zone=BERLIN).astimezone(UTC)
    for hours in range(5):
        consume(organization, hours + 1, now=midnight + hours * HOUR)
    points = history_of(organization, since=midnight, until=midnight + 5 * HOUR, bucket="hour")
    assert [point.used for point in points] == [1, 2, 3, 4, 5]
    assert [point.start.hour for point in points] == [0, 1, 2, 2, 3]


def test_refusals_are_history_too(organization, configure):
    """A point says how many calls were refused, whatever their amounts."""
    configure(DEFAULT_LIMIT=1)
    for amount in (1, 1, 5):
        consume(organization, amount, now=at(3, 10))
    consume(organization, 1, now=at(3, 11))
    points = history_of(organization, since=at(3, 10), until=at(3, 12))
    assert [(point.used, point.refused) for point in points] == [(1, 2), (0, 1)]


def test_meters_and_organizations_have_their_own(organization):
    """Each has a history of its own."""
    consume(organization, 1, now=at(3, 10))
    consume(organization, 2, "tokens", now=at(3, 10))
    consume(OrganizationFactory(), 4, now=at(3, 10))
    assert used(history_of(organization, since=at(3, 1), until=at(3, 12))) == {"03-10": 1}
    assert used(history_of(organization, "tokens", since=at(3, 1), until=at(3, 12))) == {"03-10": 2}


def test_a_refund_corrects_history(organization):
    """What came back was not used on the day on which it was taken."""
    decision = consume(organization, 5, now=at(3, 10))
    consume(organization, 1, now=at(4, 10))
    refund(decision, now=at(4, 11))
    assert used(history_of(organization, since=at(3, 1), until=at(4, 12))) == {"04-10": 1}


@pytest.mark.parametrize("days", [1, 300])
def test_it_takes_two_queries_however_long(organization, days, django_assert_num_queries):
    """One for the rows, one for the open bucket."""
    for day in range(5):
        consume(organization, 1, now=at(3, 10) + day * DAY)
    with django_assert_num_queries(2):
        history_of(organization, since=at(3, 10), until=at(3, 10) + days * DAY)


@pytest.mark.parametrize("organizations", [1, 30])
def test_many_organizations_are_read_in_two_queries(configure, db, django_assert_num_queries, organizations):
    """Each in its own zone, and as `history_of` tells it."""
    configure(METERS={"tokens": {}})
    zones = ["UTC", "Asia/Tokyo", "America/Los_Angeles"]
    crowd = [OrganizationFactory(usage_time_zone=zones[number % 3]) for number in range(organizations)]
    for number, organization in enumerate(crowd):
        for hour in (1, 9, 20):
            consume(organization, number + 1, now=at(3, 10, hour))
        consume(organization, 2, "tokens", now=at(3, 12))
    arguments = {"since": at(3, 9), "until": at(3, 13)}
    with django_assert_num_queries(2):
        found = histories_of_each(crowd, **arguments)
    for organization in crowd:
        assert found[organization.pk] == {
            meter: history_of(organization, meter, **arguments) for meter in ("api", "tokens")
        }
    assert histories_of_each([], **arguments) == {}


def test_a_bucket_that_begins_now_is_the_running_one(organization):
    """Up to now reaches to the end of the running bucket, also at the instant in which it begins."""
    consume(organization, 5, now=at(3, 10))
    (point,) = history_of(organization, since=at(3, 10), now=at(3, 10))
    assert (point.start, point.end, point.used) == (at(3, 10), at(3, 11), 5)


def test_what_is_outside_of_the_range_is_not_in_it(organization):
    """Neither history nor the open bucket, before or after."""
    for day in (10, 12, 14):
        consume(organization, 1, now=at(3, day))
    for first, last, expected in [(1, 9, 0), (11, 13, 1), (11, 12, 0), (15, 16, 0), (10, 15, 3)]:
        points = history_of(organization, since=at(3, first), until=at(3, last))
        assert sum(point.used for point in points) == expected


def test_a_range_is_not_endless(organization):
    """As many points as a chart could want, and no more."""
    assert len(history_of(organization, since=at(3, 1) - (MAX_POINTS - 1) * DAY, until=at(3, 2))) == MAX_POINTS
    with pytest.raises(InvalidInput, match="coarser") as caught:
        history_of(organization, since=at(3, 1) - MAX_POINTS * DAY, until=at(3, 2))
    assert caught.value.field == "since"


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("since", {"since": at(3, 2), "until": at(3, 1)}),
        ("since", {"since": at(3, 2), "until": at(3, 2)}),
        ("since", {"since": at(3, 2), "now": at(3, 1)}),
        ("since", {"since": datetime(2026, 3, 1)}),  # noqa: DTZ001 - that is what is wrong with it
        ("since", {"since": "2026-03-01"}),
        ("since", {"since": datetime(1, 1, 1, tzinfo=UTC)}),
        ("until", {"until": datetime(2026, 3, 1)}),  # noqa: DTZ001 - that is what is wrong with it
        ("until", {"until": at(3, 1).date()}),
        ("until", {"until": 0}),
        ("until", {"until": datetime.max.replace(tzinfo=UTC)}),
        ("until", {"until": datetime(1902, 1, 1, tzinfo=UTC), "bucket": "month"}),
        ("now", {"now": datetime(2026, 3, 1)}),  # noqa: DTZ001 - that is what is wrong with it
        ("bucket", {"bucket": "year"}),
        ("bucket", {"bucket": None}),
        ("bucket", {"bucket": []}),
        ("meter", {"meter": "calls"}),
    ],
)
def test_a_range_that_makes_no_sense_is_an_error(organization, field, arguments):
    """Reversed, naive, not a datetime, out of this world: the error names the argument."""
    with pytest.raises(InvalidInput) as caught:
        history_of(organization, **arguments)
    assert caught.value.field == field
