"""Closing periods: lazily, by the job, by hand; on time, late and twice."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.db.models import Sum
from django.db.models.signals import post_save

from tests.factories import Organization, OrganizationFactory
from usage_tracking import resets
from usage_tracking.metering import consume, history_of, usage_of
from usage_tracking.models import UsageEvent, UsageHistory, UsagePeriod
from usage_tracking.periods import Period
from usage_tracking.resets import ResetReport, reset, reset_expired

TICK = timedelta(microseconds=1)
DAY = timedelta(days=1)


def at(*fields, zone="UTC"):
    """Return an instant of 2026."""
    return datetime(2026, *fields, tzinfo=ZoneInfo(zone)).astimezone(UTC)


def periods():
    """Return (start, end, used, who closed it) of every period, oldest first."""
    rows = UsagePeriod.objects.order_by("organization", "start")
    return list(rows.values_list("start", "end", "used", "closed_by"))


def days():
    """Return (day of the year, used, start of its period) of every history row."""
    rows = UsageHistory.objects.order_by("start").values_list("start", "used", "period__start")
    return [(f"{start:%m-%d}", used, f"{period:%m-%d}") for start, used, period in rows]


@pytest.fixture
def scheduled(configure, organization):
    """An organization whose periods wait for the job."""
    configure(RESET_MODE="scheduled")
    return organization


# -- on time -----------------------------------------------------------------------------------------------------------


def test_a_lazy_period_is_closed_by_the_next_use(organization):
    """Everything up to the last moment is in the old period, everything from the boundary in the new one."""
    consume(organization, 2, now=at(3, 10))
    consume(organization, 3, now=at(4, 1) - TICK)
    consume(organization, 4, now=at(4, 1))
    assert periods() == [(at(3, 1), at(4, 1), 5, "lazy"), (at(4, 1), at(5, 1), 4, "")]
    closed = UsagePeriod.objects.get(is_open=None)
    assert (closed.closed_at, closed.used_before_bucket) == (at(4, 1), 5)


def test_the_job_closes_what_has_ended(scheduled):
    """On time the job closes the period and opens the next; a second run changes nothing."""
    consume(scheduled, 5, now=at(3, 10))
    assert reset_expired(at(4, 1) - TICK) == ResetReport(closed=0, organizations_affected=0)
    assert reset_expired(at(4, 1)) == ResetReport(closed=1, organizations_affected=1)
    expected = [(at(3, 1), at(4, 1), 5, "scheduled"), (at(4, 1), at(5, 1), 0, "")]
    assert periods() == expected
    assert reset_expired(at(4, 1)) == ResetReport(closed=0, organizations_affected=0)
    assert periods() == expected
    assert UsageEvent.objects.filter(kind="reset").count() == 1


def test_the_job_closes_lazy_periods_too(organization):
    """A lazy period that nobody used since its end is closed by the job, so that its history is complete."""
    consume(organization, 5, now=at(3, 10))
    assert reset_expired(at(4, 3)).closed == 1
    assert periods() == [(at(3, 1), at(4, 1), 5, "scheduled"), (at(4, 1), at(5, 1), 0, "")]


def test_the_job_leaves_manual_periods_alone(organization, configure):
    """A manual period has no end to pass."""
    configure(RESET_MODE="manual")
    consume(organization, 5, now=at(3, 10))
    assert reset_expired(at(12, 1)).closed == 0
    assert periods() == [(at(3, 10), None, 5, "")]


def test_the_job_leaves_meters_alone_that_have_no_terms(organization, configure):
    """A meter that METERS no longer names cannot open a next period; it waits until it is named again."""
    configure(METERS={"tokens": {}})
    consume(organization, 5, "tokens", now=at(3, 10))
    configure(METERS={})
    assert reset_expired(at(4, 1)).closed == 0
    configure(METERS={"tokens": {}})
    assert reset_expired(at(4, 1)).closed == 1


def test_the_job_can_be_narrowed_down(scheduled):
    """With `organizations` only theirs are closed."""
    other = OrganizationFactory()
    for organization in (scheduled, other):
        consume(organization, 5, now=at(3, 10))
    assert reset_expired(at(4, 1), organizations=[]).closed == 0
    assert reset_expired(at(4, 1), organizations=[other]) == ResetReport(closed=1, organizations_affected=1)
    assert reset_expired(at(4, 1), organizations=Organization.objects.all()).organizations_affected == 1


def test_the_job_goes_through_all_in_batches(scheduled, configure, monkeypatch):
    """Organizations and periods are counted apart, over more than one batch."""
    monkeypatch.setattr(resets, "BATCH", 2)
    configure(RESET_MODE="scheduled", METERS={"tokens": {}})
    for organization in [scheduled, *OrganizationFactory.create_batch(4)]:
        consume(organization, 5, now=at(3, 10))
        consume(organization, 5, "tokens", now=at(3, 10))
    assert reset_expired(at(4, 1)) == ResetReport(closed=10, organizations_affected=5)


def test_a_run_can_be_bounded(configure, monkeypatch, db):
    """`limit` ends a run after so many organizations, plain and late ones, and `more` says whether others wait."""
    monkeypatch.setattr(resets, "BATCH", 3)
    configure(RESET_MODE="scheduled", METERS={"tokens": {}})
    for number, organization in enumerate(OrganizationFactory.create_batch(7)):
        consume(organization, 5, now=at(3, 10))
        consume(organization, 5, "tokens", now=at(3, 10))
        if number % 2:
            consume(organization, 5, now=at(4, 1))  # late: not closed together with the others
    runs, more = [], True
    while more:
        report = reset_expired(at(4, 2), limit=2)
        assert report.closed == 2 * report.organizations_affected
        runs.append(report.organizations_affected)
        more = report.more
    assert runs == [2, 2, 2, 1]
    assert not UsagePeriod.objects.filter(is_open=True, end__lte=at(4, 2)).exists()


@pytest.mark.parametrize("late", [False, True])
def test_a_bound_that_is_just_enough_leaves_nothing(scheduled, late):
    """`more` is about what is there, also when the bound is reached with the last one."""
    consume(scheduled, 5, now=at(3, 10))
    if late:
        consume(scheduled, 5, now=at(4, 1))
    assert reset_expired(at(4, 2), limit=1) == ResetReport(closed=1, organizations_affected=1, more=False)


def test_who_cannot_be_reset_does_not_count_against_the_bound(scheduled, monkeypatch):
    """Bounded runs end, however many organizations stay as they are."""
    broken = [scheduled, *OrganizationFactory.create_batch(2)]
    other = OrganizationFactory()
    for organization in (*broken, other):
        consume(organization, now=at(1, 5))
    keys = {organization.pk for organization in broken}
    monkeypatch.setattr(Organization, "get_usage_plan", lambda self: {}[self.pk] if self.pk in keys else "")
    assert reset_expired(at(2, 1), limit=1) == ResetReport(closed=1, organizations_affected=1, more=True)
    assert reset_expired(at(2, 1), limit=1) == ResetReport(closed=0, organizations_affected=0, failed=3, more=False)


def test_a_run_says_how_far_it_is(configure, monkeypatch, db):
    """`progress` hears of each organization once, whether it was reset or could not be."""
    monkeypatch.setattr(resets, "BATCH", 2)
    organizations = OrganizationFactory.create_batch(5, usage_reset_mode="scheduled")
    for organization in organizations:
        consume(organization, 5, now=at(3, 10))
    consume(organizations[0], 5, now=at(4, 1))
    broken = organizations[3].pk
    monkeypatch.setattr(Organization, "get_usage_plan", lambda self: {}[self.pk] if self.pk == broken else "")
    heard = []
    reset_expired(at(4, 2), progress=heard.append)
    assert (sum(heard), max(heard)) == (5, 2)


def test_the_job_survives_what_is_deleted_under_it(scheduled, connected):
    """An organization that goes while the job runs is skipped."""
    for organization in (scheduled, OrganizationFactory()):
        consume(organization, 5, now=at(3, 10))
        consume(organization, 5, now=at(4, 1))  # late, so they are closed one by one

    def delete_others(sender, instance, **_):
        if sender is UsagePeriod:
            Organization.objects.exclude(pk=instance.organization_id).delete()

    connected(post_save, delete_others)
    assert reset_expired(at(4, 2)) == ResetReport(closed=1, organizations_affected=1)
    assert Organization.objects.count() == 1


# -- late --------------------------------------------------------------------------------------------------------------


def test_an_organization_that_cannot_be_reset_stands_in_nobodys_way(scheduled, monkeypatch, caplog):
    """The job goes on past an organization whose own code raises, says so, and closes it the next time."""
    other = OrganizationFactory(usage_reset_mode="scheduled")
    for organization in (scheduled, other):
        consume(organization, now=at(1, 5))
    with monkeypatch.context() as patch:
        broken = lambda self: {}[self.pk] if self.pk == scheduled.pk else ""  # noqa: E731
        patch.setattr(Organization, "get_usage_plan", broken)
        report = reset_expired(at(2, 1))
    assert report == ResetReport(closed=1, organizations_affected=1, failed=1)
    assert str(scheduled.pk) in caplog.text
    assert reset_expired(at(2, 1)) == ResetReport(closed=1, organizations_affected=1)


def test_after_downtime_the_period_that_contains_now_is_opened(organization):
    """Periods nobody used are not invented: history has a gap, and the new period is today's."""
    consume(organization, 5, now=at(1, 10))
    consume(organization, 6, now=at(7, 20))
    assert periods() == [(at(1, 1), at(2, 1), 5, "lazy"), (at(7, 1), at(8, 1), 6, "")]


def test_a_scheduled_period_goes_on_until_its_job_comes(scheduled, configure):
    """Past its end it counts and refuses under its old limit, and nothing but the job or a person closes it."""
    configure(DEFAULT_LIMIT=10)
    consume(scheduled, 8, now=at(3, 10))
    assert consume(scheduled, 2, now=at(4, 2))
    assert not consume(scheduled, 1, now=at(4, 3))
    assert periods() == [(at(3, 1), at(4, 1), 10, "")]
    reset_expired(at(4, 4))
    assert periods() == [(at(3, 1), at(4, 1), 8, "scheduled"), (at(4, 1), at(5, 1), 2, "")]
    assert consume(scheduled, 8, now=at(4, 4))


def test_a_late_job_gives_each_elapsed_interval_its_own(scheduled):
    """Intervals with usage become periods with their own days, empty ones do not, the latest carries on."""
    for month, day, amount in [(1, 10, 1), (2, 3, 2), (2, 28, 4), (4, 1, 8), (6, 1, 16), (6, 20, 32)]:
        consume(scheduled, amount, now=at(month, day, 12))
    assert periods() == [(at(1, 1), at(2, 1), 63, "")]
    assert reset_expired(at(6, 20, 13)) == ResetReport(closed=3, organizations_affected=1)
    assert periods() == [
        (at(1, 1), at(2, 1), 1, "scheduled"),
        (at(2, 1), at(3, 1), 6, "scheduled"),
        (at(4, 1), at(5, 1), 8, "scheduled"),
        (at(6, 1), at(7, 1), 48, ""),
    ]
    assert days() == [
        ("01-10", 1, "01-01"),
        ("02-03", 2, "02-01"),
        ("02-28", 4, "02-01"),
        ("04-01", 8, "04-01"),
        ("06-01", 16, "06-01"),
    ]
    assert reset_expired(at(6, 20, 13)).closed == 0
    assert {event.data["mode"] for event in UsageEvent.objects.filter(kind="reset")} == {"scheduled"}
    assert sorted(event.data["previous_used"] for event in UsageEvent.objects.filter(kind="reset")) == [1, 6, 8]


def test_the_open_day_is_carried_over(scheduled):
    """What was used today, before the job, stays in today's bucket of the new period."""
    consume(scheduled, 5, now=at(3, 10))
    decision = consume(scheduled, 3, now=at(4, 2, 8))
    reset_expired(at(4, 2, 9))
    assert consume(scheduled, 1, now=at(4, 2, 10)).charge.bucket_start == decision.charge.bucket_start
    assert [point.used for point in history_of(scheduled, since=at(4, 1), until=at(4, 3))] == [0, 4]


def test_refusals_go_with_their_day(scheduled, configure):
    """A late job moves what was refused to the interval in which it was."""
    configure(DEFAULT_LIMIT=1)
    for moment in (at(3, 10), at(3, 11), at(4, 2), at(5, 2)):
        consume(scheduled, now=moment)
    reset_expired(at(6, 1))
    assert list(UsagePeriod.objects.order_by("start").values_list("used", "refused")) == [
        (1, 1),
        (0, 1),
        (0, 1),
        (0, 0),
    ]


def test_a_day_that_was_open_when_the_calendar_moved_is_not_split(scheduled):
    """A bucket stays with the interval that it began in, which then ends when the bucket does."""
    consume(scheduled, 1, now=at(1, 10))
    consume(scheduled, 2, now=at(3, 5, 8))
    # Behind our back, from months to hours: the open day has 23 boundaries in it now.
    Organization.objects.update(usage_reset_period="hourly")
    consume(scheduled, 4, now=at(3, 5, 20))
    consume(scheduled, 8, now=at(3, 6, 1, 30))
    reset_expired(at(3, 6, 3))
    assert periods() == [
        (at(1, 1), at(2, 1), 1, "scheduled"),
        (at(3, 5), at(3, 6), 6, "scheduled"),
        (at(3, 6, 1), at(3, 6, 2), 8, "scheduled"),
        (at(3, 6, 3), at(3, 6, 4), 0, ""),
    ]


@pytest.mark.parametrize("day", [6, 7])
def test_a_day_may_reach_into_the_next_interval(scheduled, day):
    """That one begins where the day ends, though the new calendar would have it earlier."""
    consume(scheduled, 1, now=at(1, 10))
    consume(scheduled, 2, now=at(3, 5, 8))
    Organization.objects.update(usage_reset_period="daily", usage_anchor="2001-01-01T12:00")
    consume(scheduled, 4, now=at(3, 5, 20))
    consume(scheduled, 8, now=at(3, 6, 1))
    reset_expired(at(3, day, 3))
    assert [period[:3] for period in periods()[:3]] == [
        (at(1, 1), at(2, 1), 1),
        (at(3, 4, 12), at(3, 6), 6),
        (at(3, 6), at(3, 6, 12), 8),
    ]


def test_what_is_late_is_told_apart_by_the_old_end(scheduled):
    """After a change of zone the day of the old end began before it; usage since the end is still late."""
    consume(scheduled, 1, now=at(3, 10))
    Organization.objects.update(usage_time_zone="Asia/Kolkata")
    consume(scheduled, 2, now=at(4, 1, 3))
    reset_expired(at(4, 1, 4))
    assert periods() == [(at(3, 1), at(4, 1), 1, "scheduled"), (at(4, 1), at(4, 30, 18, 30), 2, "")]
    assert [point.used for point in history_of(scheduled, since=at(4, 1), until=at(4, 1, 4))] == [2]


def test_nothing_is_lost_however_late(scheduled, configure):
    """Hour by hour over weeks, the sum of all periods is what was consumed, and no day is in two of them."""
    configure(RESET_MODE="scheduled", RESET_PERIOD="weekly", HISTORY_BUCKET="hour", DEFAULT_LIMIT=None)
    for hours in range(0, 24 * 40, 5):
        consume(scheduled, now=at(3, 1) + timedelta(hours=hours))
    reset_expired(at(3, 1) + 41 * DAY)
    rows = UsagePeriod.objects.annotate(history_used=Sum("history__used"))
    assert sum(row.used for row in rows) == 24 * 40 // 5
    for row in rows.filter(is_open=None):
        assert row.used == row.history_used
        assert not row.history.exclude(start__gte=row.start, end__lte=row.end).exists()


# -- by hand -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "first", "end"), [("lazy", 1, at(4, 1)), ("scheduled", 1, at(4, 1)), ("manual", 10, None)]
)
def test_a_reset_by_hand_closes_now(organization, configure, mode, first, end, django_user_model):
    """In every mode the open period ends now and the next runs to the next boundary; the event says who and why."""
    configure(RESET_MODE=mode)
    actor = django_user_model.objects.create_user("Ada")
    consume(organization, 5, now=at(3, 10))
    usage = reset(organization, actor=actor, reason="goodwill", now=at(3, 12, 15))
    assert (usage.used, usage.period) == (0, Period(at(3, 12, 15), end))
    assert usage_of(organization, now=at(3, 12, 15)) == usage
    consume(organization, 7, now=at(3, 12, 16))
    assert periods() == [(at(3, first), at(3, 12, 15), 5, "manual"), (at(3, 12, 15), end, 7, "")]
    event = UsageEvent.objects.get(kind="reset")
    assert (event.actor, event.reason, event.data["mode"], event.data["previous_used"]) == (
        actor,
        "goodwill",
        "manual",
        5,
    )
    assert event.period.used == 5


def test_a_reset_by_hand_splits_the_day(organization):
    """The day of the reset is two rows of history and one point of it."""
    consume(organization, 5, now=at(3, 12, 8))
    reset(organization, now=at(3, 12, 15))
    consume(organization, 7, now=at(3, 12, 16))
    consume(organization, 1, now=at(3, 13))
    assert list(UsageHistory.objects.order_by("start").values_list("start", "end", "used")) == [
        (at(3, 12), at(3, 12, 15), 5),
        (at(3, 12, 15), at(3, 13), 7),
    ]
    assert [point.used for point in history_of(organization, since=at(3, 12), until=at(3, 14))] == [12, 1]


def test_two_resets_in_one_microsecond(organization):
    """The second makes a period of the shortest length there is; none is empty and nothing is lost."""
    consume(organization, 5, now=at(3, 10))
    moment = at(3, 12, 15)
    reset(organization, now=moment)
    reset(organization, now=moment)
    consume(organization, 2, now=moment)
    reset(organization, now=moment)
    assert periods() == [
        (at(3, 1), moment, 5, "manual"),
        (moment, moment + TICK, 0, "manual"),
        (moment + TICK, moment + 2 * TICK, 2, "manual"),
        (moment + 2 * TICK, at(4, 1), 0, ""),
    ]


def test_a_reset_of_what_was_never_used(organization):
    """It begins a period now."""
    assert reset(organization, now=at(3, 12, 9)).period == Period(at(3, 12, 9), at(4, 1))
    assert usage_of(organization, now=at(3, 13)).period.start == at(3, 12, 9)


def test_a_reset_after_the_end_closes_at_the_end(organization):
    """A lazy period that has ended is closed where it ended, and the new one is not cut into two."""
    consume(organization, 5, now=at(3, 10))
    assert reset(organization, now=at(4, 5)).period == Period(at(4, 1), at(5, 1))
    assert periods() == [(at(3, 1), at(4, 1), 5, "manual"), (at(4, 1), at(5, 1), 0, "")]


def test_a_reset_of_a_late_scheduled_period_resets_what_is_late_too(scheduled):
    """Usage since the end has a period of its own, which is closed as well."""
    consume(scheduled, 5, now=at(3, 10))
    consume(scheduled, 3, now=at(4, 2))
    assert reset(scheduled, now=at(4, 5, 9)).used == 0
    assert periods() == [
        (at(3, 1), at(4, 1), 5, "manual"),
        (at(4, 1), at(4, 5, 9), 3, "manual"),
        (at(4, 5, 9), at(5, 1), 0, ""),
    ]


def test_a_reset_is_of_one_meter(organization, configure):
    """Other meters go on."""
    configure(METERS={"tokens": {}})
    consume(organization, 5, now=at(3, 10))
    consume(organization, 5, "tokens", now=at(3, 10))
    reset(organization, "tokens", now=at(3, 12))
    assert usage_of(organization, now=at(3, 12)).used == 5
    assert usage_of(organization, "tokens", now=at(3, 12)).used == 0


# -- whose calendar ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("period", "anchor", "zone", "boundary", "following"),
    [
        ("monthly", "", "", at(4, 1), at(5, 1)),
        ("monthly", "2001-01-15", "", at(3, 15), at(4, 15)),
        ("monthly", "2001-01-31", "", at(3, 31), at(4, 30)),
        ("monthly", "", "Europe/Berlin", at(4, 1, zone="Europe/Berlin"), at(5, 1, zone="Europe/Berlin")),
        ("daily", "2001-01-01T06:00", "America/New_York", at(3, 10, 10), at(3, 11, 10)),
        ("weekly", "2001-01-04", "", at(3, 12), at(3, 19)),
        ("hourly", "", "Asia/Kolkata", at(3, 10, 8, 30), at(3, 10, 9, 30)),
        ("quarterly", "2001-02-01T00:00+01:00", "Europe/Berlin", at(4, 30, 22), at(7, 31, 22)),
        ("yearly", "2004-02-29", "", at(2, 28) + 365 * DAY, at(2, 28) + 731 * DAY),
    ],
)
def test_periods_follow_the_organizations_own_calendar(db, period, anchor, zone, boundary, following):
    """Anchor, zone and period of the organization say when it is reset."""
    organization = OrganizationFactory(usage_reset_period=period, usage_anchor=anchor, usage_time_zone=zone)
    assert consume(organization, now=at(3, 10, 8)).usage.resets_at == boundary
    usage = consume(organization, now=boundary).usage
    assert (usage.used, usage.period) == (1, Period(boundary, following))
