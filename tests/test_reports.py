"""Who used how much."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from tests.factories import Organization, OrganizationFactory
from usage_tracking import selections
from usage_tracking.exceptions import InvalidInput, UnknownMeter
from usage_tracking.metering import consume
from usage_tracking.reports import RangeRow, StateRow, range_report, state_report

NOW = datetime(2026, 6, 10, 12, tzinfo=UTC)
TOKYO = ZoneInfo("Asia/Tokyo")
DAY = timedelta(days=1)


@pytest.fixture
def three(db, configure):
    """A free organization, one in Tokyo with the plan `pro`, and one that used nothing."""
    configure(METERS={"tokens": {}}, PLANS={"free": {}, "pro": {"limits": {"api": 100}}})
    acme = OrganizationFactory(name="Acme")
    tokyo = OrganizationFactory(name="東京", usage_plan="pro", usage_time_zone="Asia/Tokyo")
    idle = OrganizationFactory(name="Idle")
    for days in range(40, -1, -1):
        consume(acme, 1, now=NOW - days * DAY)
        consume(tokyo, 2, now=NOW - days * DAY)
    consume(acme, 500, "tokens", now=NOW)
    return acme, tokyo, idle


def test_the_state_of_everybody(three):
    """A row for each organization and meter, also for what was never used, with times in the organization's zone."""
    acme, tokyo, idle = three
    rows = {(row.organization, row.meter): row for row in state_report(now=NOW)}
    assert len(rows) == 6
    assert rows[tokyo.pk, "api"] == StateRow(
        organization=tokyo.pk,
        name="東京",
        plan="pro",
        meter="api",
        used=20,
        limit=100,
        remaining=80,
        overage=0,
        percentage=20,
        period_start=datetime(2026, 6, 1, tzinfo=TOKYO),
        resets_at=datetime(2026, 7, 1, tzinfo=TOKYO),
    )
    assert rows[tokyo.pk, "api"].period_start.tzinfo == TOKYO
    assert (rows[acme.pk, "tokens"].used, rows[acme.pk, "tokens"].limit) == (500, None)
    assert (rows[idle.pk, "api"].used, rows[idle.pk, "api"].plan) == (0, "free")


def test_a_range_is_summed_in_the_organizations_own_days(three):
    """A month is theirs: from midnight to midnight in their zone, its last day not included."""
    acme, tokyo, idle = three
    rows = {
        row.organization: row for row in range_report(since=date(2026, 5, 1), until=date(2026, 6, 1), meters=["api"])
    }
    # 1 May to 31 May; the first use was on 1 May at noon UTC, that is at 21:00 in Tokyo.
    assert rows[acme.pk].used == 31
    assert rows[tokyo.pk] == RangeRow(
        organization=tokyo.pk,
        name="東京",
        plan="pro",
        meter="api",
        start=datetime(2026, 5, 1, tzinfo=TOKYO),
        end=datetime(2026, 6, 1, tzinfo=TOKYO),
        used=62,
        refused=0,
    )
    assert rows[idle.pk].used == 0


def test_the_open_bucket_is_in_the_range(three):
    """What was used today counts."""
    acme, _, _ = three
    (row,) = range_report(
        Organization.objects.filter(pk=acme.pk), since=date(2026, 6, 10), until=date(2026, 6, 11), meters=["api"]
    )
    assert row.used == 1


def test_a_range_in_buckets(three):
    """One row for each, zero-filled, oldest first."""
    acme, _, _ = three
    rows = list(
        range_report(
            Organization.objects.filter(pk=acme.pk),
            since=date(2026, 6, 8),
            until=date(2026, 6, 13),
            bucket="day",
            meters=["tokens"],
        )
    )
    assert [(row.start.day, row.used) for row in rows] == [(8, 0), (9, 0), (10, 500), (11, 0), (12, 0)]


def test_an_instant_is_the_same_for_all(three):
    """Aware datetimes are taken as they are."""
    since, until = datetime(2026, 6, 8, tzinfo=UTC), datetime(2026, 6, 9, tzinfo=UTC)
    rows = {row.name: row.used for row in range_report(since=since, until=until, meters=["api"])}
    # For Tokyo, days at the ends are whole: the 8th and the 9th.
    assert rows == {"Acme": 1, "東京": 4, "Idle": 0}


def test_reports_of_a_plan(three, monkeypatch):
    """`get_usage_plan()` is asked, so that computed plans are found."""
    acme, tokyo, _ = three
    assert {row.organization for row in state_report(plan="pro", now=NOW)} == {tokyo.pk}
    monkeypatch.setattr(Organization, "get_usage_plan", lambda self: "pro" if self.pk == acme.pk else "")
    assert {row.organization for row in state_report(plan="pro", now=NOW)} == {acme.pk}
    bounds = {"since": date(2026, 6, 8), "until": date(2026, 6, 13)}
    assert {row.organization for row in range_report(plan="pro", **bounds)} == {acme.pk}


def test_a_report_does_not_hold_everybody(db, monkeypatch, django_assert_max_num_queries):
    """The first row comes after one batch, not after all."""
    monkeypatch.setattr(selections, "BATCH", 2)
    OrganizationFactory.create_batch(9)
    with django_assert_max_num_queries(2):
        next(iter(state_report(now=NOW)))
    assert len(list(state_report(now=NOW))) == 9


MAY = {"since": date(2026, 5, 1), "until": date(2026, 6, 1)}


@pytest.mark.parametrize(
    ("report", "options", "field"),
    [
        (state_report, {"plan": "gold"}, "plan"),
        (state_report, {"meters": ["calls"]}, "meter"),
        (state_report, {"now": datetime(2026, 6, 10)}, "now"),  # noqa: DTZ001 - that is what is wrong with it
        (range_report, {**MAY, "plan": "gold"}, "plan"),
        (range_report, {**MAY, "meters": ["calls"]}, "meter"),
        (range_report, {**MAY, "bucket": "year"}, "bucket"),
        (range_report, {**MAY, "bucket": "hour"}, "bucket"),
        (range_report, {**MAY, "since": None}, "since"),
        (range_report, {**MAY, "until": "2026-06-01"}, "until"),
        (range_report, {**MAY, "since": date(1, 1, 1)}, "since"),
        (range_report, {**MAY, "until": date(9999, 12, 31)}, "until"),
        (range_report, {**MAY, "until": date(2026, 5, 1)}, "since"),
        (range_report, {**MAY, "since": date(2026, 7, 1)}, "since"),
        (range_report, {**MAY, "since": datetime(2026, 5, 1)}, "since"),  # noqa: DTZ001 - nor an instant nor a day
        (range_report, {"since": date(1950, 1, 1), "until": date(2150, 1, 1)}, "since"),
    ],
)
def test_bad_input_is_named_before_the_first_row(db, report, options, field):
    """Also where there is no organization that could have a row."""
    with pytest.raises(InvalidInput) as caught:
        report(**options)
    assert caught.value.field == field
    assert isinstance(caught.value, UnknownMeter) == (field == "meter")
