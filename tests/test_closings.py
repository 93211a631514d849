"""Closing many periods together: the same rows as one by one, with fewer statements."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.factories import Organization, OrganizationFactory
from usage_tracking import resets
from usage_tracking.closings import Closings, close_alike
from usage_tracking.entitlements import update_limits
from usage_tracking.metering import consume, usage_of
from usage_tracking.models import UsageEvent, UsageHistory, UsagePeriod
from usage_tracking.resets import ResetReport, reset, reset_expired

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
MARCH, APRIL, MAY = (datetime(2026, month, 1, tzinfo=UTC) for month in (3, 4, 5))
NOW = APRIL + 3 * DAY + 7 * HOUR

UNITS = {"enforcement": "soft", "limits": {"api": 3}, "reset_period": "daily"}


@pytest.fixture(autouse=True)
def _meters(configure):
    """Two meters, a plan that says all that plans can say, and one that says nothing."""
    configure(METERS={"tokens": {"default_limit": 50}}, PLANS={"units": UNITS, "free": {}}, THRESHOLDS=[50, 80])


def use(organization):
    """Use both meters up to the end of the month; some calls do not fit."""
    for days, amount in [(3, 400), (10, 590), (30, 7), (30.5, 4)]:
        consume(organization, amount, now=MARCH + days * DAY)
    consume(organization, 9, "tokens", now=MARCH + 12 * DAY)


def use_late(organization):
    """Go on after the end, which a scheduled period does until its job comes."""
    use(organization)
    consume(organization, 2, now=APRIL + DAY)


def use_nothing(organization):
    """Have rows, and nothing in them."""
    consume(organization, 1, now=MARCH)
    reset(organization, now=MARCH + HOUR)


def use_and_move(organization):
    """Move the calendar behind our back after the last use."""
    use(organization)
    Organization.objects.filter(pk=organization.pk).update(usage_time_zone="Asia/Kolkata", usage_anchor="2001-01-15")


def use_and_change(organization):
    """Move to another plan, by the door and then behind our back."""
    use(organization)
    update_limits(organization, limits={"api": 5000}, now=MARCH + 30.6 * DAY)
    Organization.objects.filter(pk=organization.pk).update(usage_plan="units", usage_reset_mode="manual")


CASES = [
    (use, {}),
    (use, {}),
    (use, {"usage_reset_mode": "scheduled"}),
    (use, {"usage_reset_mode": "manual"}),
    (use, {"usage_plan": "units"}),
    (use, {"usage_plan": "unheard of"}),
    (use, {"usage_limits": {"api": None, "tokens": 0}}),
    (use, {"usage_limits": {"api": 0}}),
    (use, {"usage_time_zone": "America/New_York", "usage_anchor": "2001-01-31T09:00"}),
    (use, {"usage_time_zone": "nowhere", "usage_limits": {"api": "many"}}),
    (use, {"usage_reset_period": "hourly", "usage_enforcement": "shadow"}),
    (use_late, {"usage_reset_mode": "scheduled"}),
    (use_late, {"usage_reset_mode": "scheduled", "usage_reset_period": "daily"}),
    (use_late, {}),
    (use_nothing, {}),
    (use_and_move, {}),
    (use_and_move, {"usage_reset_mode": "scheduled"}),
    (use_and_change, {}),
    (use, {"name": "broken"}),
]
PLAIN = len(CASES) - 4
"""Organizations of CASES that are closed together: all but one that is manual, two late ones and the broken one."""


def rows_of(model, organization):
    """All that is stored of an organization in one table, but for keys."""
    keys = {"id", "organization_id", "period_id", "dedupe_key"}
    names = [field.attname for field in model._meta.concrete_fields if field.attname not in keys]
    about = [] if model is UsagePeriod else ["period__meter", "period__start"]
    return list(model.objects.filter(organization=organization).order_by("meter", "pk").values(*names, *about))


def test_together_they_become_what_they_become_one_by_one(db, monkeypatch):
    """Plain, late, manual, unused and moved ones, of any plan and calendar: row for row the same three tables."""
    monkeypatch.setattr(
        Organization,
        "get_usage_plan",
        lambda self: {}[self.name] if self.name == "broken" and armed else self.usage_plan,
    )
    armed = False
    first, second = [[OrganizationFactory(**fields) for _, fields in CASES] for _ in range(2)]
    for organizations in (first, second):
        for (action, _), organization in zip(CASES, organizations, strict=True):
            action(organization)
    armed = True

    together = []
    with monkeypatch.context() as patch:
        patch.setattr(resets, "close_alike", lambda *given: together.append(close_alike(*given)) or together[-1])
        report = reset_expired(NOW, first)
    with monkeypatch.context() as patch:
        patch.setattr(resets, "close_alike", lambda *_: Closings(closed=0, organizations=0))
        assert reset_expired(NOW, second) == report
    assert report.failed == 2
    assert sum(closings.organizations for closings in together) == PLAIN < report.organizations_affected
    for case, one, other in zip(CASES, first, second, strict=True):
        for model in (UsagePeriod, UsageHistory, UsageEvent):
            assert rows_of(model, one) == rows_of(model, other), case
    told = UsageEvent.objects.filter(kind="reset").values_list("dedupe_key", "period_id")
    assert sorted(told) == sorted((f"reset:{row.pk}", row.pk) for row in UsagePeriod.objects.filter(is_open=None))


def test_many_take_as_few_statements_as_few(db):
    """The number of statements is that of different calendars and limits, not that of organizations."""
    counts = []
    for size in (3, 30):
        for organization in OrganizationFactory.create_batch(size):
            consume(organization, 5, now=MARCH + DAY)
        with CaptureQueriesContext(
            connection,
        ) as statements:
            assert reset_expired(APRIL) == ResetReport(closed=size, organizations_affected=size)
        counts.append(len(statements))
    assert counts[0] == counts[1] < 30


def test_one_that_cannot_be_written_stops_nobody(db, caplog):
    """What the database refuses together is done one by one: the others are reset, and the log has who was not."""
    organizations = OrganizationFactory.create_batch(3)
    for organization in organizations:
        consume(organization, 5, now=MARCH + DAY)
    # What should never be: the next period exists already.
    UsagePeriod.objects.create(
        organization=organizations[1],
        start=APRIL,
        end=MAY,
        is_open=None,
        bucket_start=MAY,
        checkpoint_at=MAY,
        checkpoint_used=1,
    )
    assert reset_expired(APRIL) == ResetReport(closed=2, organizations_affected=2, failed=1)
    assert [usage_of(organization, now=APRIL).used for organization in organizations] == [0, 0, 0]
    assert f"of organization {organizations[1].pk} was not closed" in caplog.text


def test_an_organization_is_reset_whole(db):
    """With one meter late both are left to be closed one by one, and the report counts the organization once."""
    organization = OrganizationFactory(usage_reset_mode="scheduled")
    consume(organization, 5, "tokens", now=MARCH + DAY)
    use_late(organization)
    assert close_alike([organization.pk], NOW, "default") == Closings(closed=0, organizations=0)
    assert reset_expired(NOW) == ResetReport(closed=2, organizations_affected=1)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("calls", [2, 3], ids=["nothing unwritten", "a refusal unwritten"])
def test_refusals_of_the_old_period_are_forgotten(configure, calls):
    """What this process remembers of the old period stands against nobody in the new one, and is counted."""
    configure(DEFAULT_LIMIT=1)
    organization = OrganizationFactory()
    late = APRIL - timedelta(seconds=0.5)
    assert [bool(consume(organization, now=late)) for _ in range(calls)] == [True] + [False] * (calls - 1)
    together = close_alike([organization.pk], APRIL, "default")
    assert together.closed == 3 - calls
    reset_expired(APRIL)
    # A clock that lags behind asks again.
    assert consume(organization, now=late)
    assert UsagePeriod.objects.get(is_open=True).refused == calls - 2
