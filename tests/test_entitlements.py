"""Plans, limits and features: where they come from, and how they are changed."""

import json
from copy import copy
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core import serializers
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from tests.factories import Organization, OrganizationFactory
from usage_tracking import selections
from usage_tracking.conf import SettingError
from usage_tracking.entitlements import (
    SyncReport,
    changes_of,
    explain,
    feature,
    has_feature,
    sync_all_limits,
    sync_limits,
    update_limits,
)
from usage_tracking.exceptions import InvalidChange, OrganizationGone
from usage_tracking.metering import consume, history_of, usage_of
from usage_tracking.models import UsageEvent, UsagePeriod
from usage_tracking.periods import DEFAULT_ANCHOR, Period, ResetMode, ResetPeriod
from usage_tracking.plans import Sourced
from usage_tracking.quotas import Enforcement

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
MARCH, APRIL, MAY = (datetime(2026, month, 1, tzinfo=UTC) for month in (3, 4, 5))
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)

PLANS = {
    "free": {"limits": {"api": 10}, "features": {"seats": 1}},
    "pro": {
        "limits": {"api": 100, "tokens": None},
        "features": {"export": True, "seats": 5, "support": "email"},
        "enforcement": "soft",
        "reset_period": "daily",
    },
    "silent": {},
}


def plans_of_today():
    """The host's own idea of plans."""
    return PLANS


@pytest.fixture(autouse=True)
def _plans(configure):
    """Two plans that say something, and one that does not."""
    configure(PLANS=PLANS, METERS={"tokens": {"default_limit": 50}})


# -- where it comes from -----------------------------------------------------------------------------------------------


def test_the_defaults_hold_where_nobody_says_anything(configure, organization):
    """Without plan and override everything comes from the settings."""
    configure(PLANS={})
    explained = explain(organization)
    assert explained.meter == "api"
    assert explained.plan == Sourced("free", "default")
    assert explained.limit == Sourced(1000, "default")
    assert explained.enforcement == Sourced(Enforcement.HARD, "default")
    assert explained.reset_mode == Sourced(ResetMode.LAZY, "default")
    assert explained.reset_period == Sourced(ResetPeriod.MONTHLY, "default")
    assert explained.anchor == Sourced(DEFAULT_ANCHOR, "default")
    assert explained.time_zone == Sourced(ZoneInfo("UTC"), "default")
    assert explained.features == {}
    assert explain(organization, "tokens").limit == Sourced(50, "default")


def test_the_plan_comes_before_the_defaults(db):
    """What the plan says holds; where it is silent the defaults do."""
    organization = OrganizationFactory(usage_plan="pro")
    explained = explain(organization)
    assert explained.plan == Sourced("pro", "override")
    assert explained.limit == Sourced(100, "plan")
    assert explained.enforcement == Sourced(Enforcement.SOFT, "plan")
    assert explained.reset_period == Sourced(ResetPeriod.DAILY, "plan")
    assert explained.reset_mode.source == "default"
    assert explained.features["seats"] == Sourced(5, "plan")
    assert explain(organization, "tokens").limit == Sourced(None, "plan")
    silent = explain(OrganizationFactory(usage_plan="silent"), "tokens")
    assert (silent.plan, silent.limit) == (Sourced("silent", "override"), Sourced(50, "default"))


def test_the_override_comes_before_the_plan(db):
    """What is stored on the organization holds before anything else, also "unlimited" and 0."""
    organization = OrganizationFactory(
        usage_plan="pro",
        usage_limits={"api": None, "tokens": 0},
        usage_features={"seats": 7, "beta": True},
        usage_enforcement="hard",
        usage_reset_mode="manual",
        usage_reset_period="weekly",
        usage_anchor="2020-02-05T06:00",
        usage_time_zone="Europe/Berlin",
    )
    explained = explain(organization)
    assert explained.limit == Sourced(None, "override")
    assert explain(organization, "tokens").limit == Sourced(0, "override")
    assert explained.enforcement == Sourced(Enforcement.HARD, "override")
    assert explained.reset_mode == Sourced(ResetMode.MANUAL, "override")
    assert explained.reset_period == Sourced(ResetPeriod.WEEKLY, "override")
    assert explained.anchor == Sourced(datetime(2020, 2, 5, 6), "override")  # noqa: DTZ001 - a wall time
    assert explained.time_zone == Sourced(ZoneInfo("Europe/Berlin"), "override")
    assert explained.features == {
        "export": Sourced(value=True, source="plan"),
        "support": Sourced("email", "plan"),
        "seats": Sourced(7, "override"),
        "beta": Sourced(value=True, source="override"),
    }


def test_features_have_values(db):
    """A feature has a value, or the caller's default; an organization has it when the value is truthy."""
    organization = OrganizationFactory(usage_plan="pro", usage_features={"export": False, "price": 0.5})
    assert [feature(organization, name) for name in ("seats", "support", "export", "price", "beta")] == [
        5,
        "email",
        False,
        0.5,
        None,
    ]
    assert feature(organization, "beta", default="none") == "none"
    assert has_feature(organization, "seats")
    assert not has_feature(organization, "export")
    assert not has_feature(organization, "beta")


@pytest.mark.parametrize("plans", [plans_of_today, "tests.test_entitlements.plans_of_today"])
def test_plans_can_be_asked_for(configure, organization, plans):
    """PLANS may be a callable or its path; it is asked each time."""
    configure(PLANS=plans)
    assert explain(organization).limit == Sourced(10, "plan")


def test_the_host_may_know_the_plan_better(organization, monkeypatch):
    """`get_usage_plan()` decides, whatever is stored."""
    monkeypatch.setattr(Organization, "get_usage_plan", lambda self: "pro")
    assert explain(organization).plan == Sourced("pro", "override")
    assert consume(organization, now=NOW).usage.limit == 100


def test_an_unknown_plan_is_logged_and_the_default_holds(db, caplog):
    """A plan that PLANS lost takes nobody down."""
    organization = OrganizationFactory(usage_plan="gold")
    assert consume(organization, now=NOW).usage.limit == 10
    assert explain(organization).plan == Sourced("free", "default")
    message = f"Organization {organization.pk} has the plan 'gold', which PLANS lacks; using 'free'."
    assert caplog.messages[0] == message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("usage_limits", {"api": -1}),
        ("usage_limits", {"api": True}),
        ("usage_limits", [1]),
        ("usage_limits", None),
        ("usage_features", {"seats": None}),
        ("usage_features", "all"),
        ("usage_reset_mode", "sometimes"),
        ("usage_reset_period", "fortnightly"),
        ("usage_anchor", "31 January"),
        ("usage_time_zone", "Mars/Olympus"),
        ("usage_enforcement", "firm"),
    ],
)
def test_an_unusable_stored_value_is_logged_and_the_next_source_holds(organization, field, value, caplog):
    """Whatever has got into the row past the validators, requests are counted under the next source."""
    usual = explain(organization)
    if value is None:
        setattr(organization, field, value)  # no database takes it, an instance does
    else:
        Organization.objects.filter(pk=organization.pk).update(**{field: value})
        organization.refresh_from_db()
        assert consume(organization, now=NOW).usage.limit == 10
    assert explain(organization) == usual
    assert f"Organization {organization.pk} has an unusable" in caplog.text


@pytest.mark.parametrize(
    "entry", [5, {"limit": {}}, {"limits": {"api": -1}}, {"limits": {"calls": 1}}, {"enforcement": "firm"}]
)
def test_a_malformed_plan_is_named(configure, organization, entry):
    """A plan that cannot be read is the project's mistake, and says which plan it is."""
    configure(PLANS={"free": entry})
    with pytest.raises(SettingError, match="free"):
        consume(organization, now=NOW)
    assert not UsagePeriod.objects.exists()


# -- update_limits -----------------------------------------------------------------------------------------------------


def test_limits_are_merged_meter_by_meter(organization):
    """An int and None are set, "inherit" drops the override, and meters that are not named stay as they are."""
    update_limits(organization, limits={"api": 5, "tokens": 7})
    assert organization.usage_limits == {"api": 5, "tokens": 7}
    update_limits(organization, limits={"api": None})
    assert organization.usage_limits == {"api": None, "tokens": 7}
    changes = update_limits(organization, limits={"tokens": "inherit", "api": "inherit"})
    assert organization.usage_limits == {}
    assert changes == {"limits": {"old": {"api": None, "tokens": 7}, "new": {}}}


def test_features_are_merged_name_by_name(organization):
    """So are features; false is a value, and 1 is not true."""
    update_limits(organization, features={"export": False, "seats": 1})
    assert update_limits(organization, features={"seats": True}) == {
        "features": {"old": {"export": False, "seats": 1}, "new": {"export": False, "seats": True}}
    }
    update_limits(organization, features={"export": "inherit"})
    organization.refresh_from_db()
    assert organization.usage_features == {"seats": True}


def test_everything_at_once(organization, django_user_model):
    """All fields in one call are one change with one event, which says who and why."""
    actor = django_user_model.objects.create_user("Ada")
    wanted: dict[str, Any] = {
        "plan": "pro",
        "reset_mode": "manual",
        "reset_period": "weekly",
        "anchor": "2026-01-31T09:00:00+02:00",
        "time_zone": "Europe/Berlin",
        "enforcement": "shadow",
    }
    changes = update_limits(organization, **wanted, limits={"api": 5}, actor=actor, reason="contract", now=NOW)
    assert {field: change["new"] for field, change in changes.items()} == {**wanted, "limits": {"api": 5}}
    organization.refresh_from_db()
    assert {field: getattr(organization, f"usage_{field}") for field in wanted} == wanted
    event = UsageEvent.objects.get(kind="limits_updated")
    assert (event.meter, event.limit, event.actor, event.reason) == ("api", 5, actor, "contract")
    assert event.data["changes"] == json.loads(json.dumps(changes))
    for field in wanted:
        blank: dict[str, Any] = {field: ""}
        update_limits(organization, **blank)
        assert getattr(organization, f"usage_{field}") == ""


def test_an_anchor_may_be_a_datetime(organization):
    """It is stored as ISO 8601."""
    update_limits(organization, anchor=NOW, now=NOW)
    assert organization.usage_anchor == NOW.isoformat()
    assert explain(organization).anchor == Sourced(NOW, "override")


def test_a_precondition_is_asked_under_the_lock(organization):
    """It sees what is stored, not the caller's copy; what it raises changes nothing and goes to the caller."""
    stale = Organization.objects.get(pk=organization.pk)
    update_limits(organization, limits={"api": 7})
    seen = []
    update_limits(stale, limits={"api": 8}, precondition=lambda stored: seen.append(dict(stored.usage_limits)))
    assert seen == [{"api": 7}]

    def refuse(stored):
        raise LookupError("another state was expected")

    with pytest.raises(LookupError):
        update_limits(stale, limits={"api": 9}, precondition=refuse)
    assert usage_of(Organization.objects.get(pk=organization.pk)).limit == 8
    assert UsageEvent.objects.filter(kind="limits_updated").count() == 2


def test_no_change_no_event(organization):
    """Writing what is there already changes nothing and is not recorded."""
    update_limits(organization, limits={"api": 5, "tokens": 6}, plan="pro")
    events = UsageEvent.objects.count()
    assert update_limits(organization, limits={"tokens": 6, "api": 5}, plan="pro") == {}
    assert update_limits(organization) == update_limits(organization, limits={}, features={"beta": "inherit"}) == {}
    assert UsageEvent.objects.count() == events


def test_only_its_own_fields_are_written_and_refreshed(organization):
    """What others wrote meanwhile stays in the row, what the caller has not saved stays on the instance."""
    other = Organization.objects.get(pk=organization.pk)
    Organization.objects.filter(pk=organization.pk).update(name="from elsewhere", usage_limits={"tokens": 7})
    organization.name = "not saved yet"
    update_limits(organization, limits={"api": 5})
    assert (organization.name, organization.usage_limits) == ("not saved yet", {"api": 5, "tokens": 7})
    other.refresh_from_db()
    assert (other.name, other.usage_limits) == ("from elsewhere", {"api": 5, "tokens": 7})


def test_what_is_not_mentioned_is_not_tidied_up(organization):
    """A change of plan leaves a stored limit alone that nobody can read."""
    Organization.objects.filter(pk=organization.pk).update(usage_limits=["what"])
    assert update_limits(organization, plan="pro").keys() == {"plan"}
    organization.refresh_from_db()
    assert organization.usage_limits == ["what"]
    assert update_limits(organization, limits={"api": 5})["limits"] == {"old": ["what"], "new": {"api": 5}}


def test_a_new_limit_holds_at_once(organization):
    """More lets the next request pass, less refuses it, and what was used stays used."""
    consume(organization, 10, now=NOW)
    assert not consume(organization, now=NOW)
    update_limits(organization, limits={"api": 12}, now=NOW)
    assert consume(organization, 2, now=NOW)
    update_limits(organization, limits={"api": 5}, now=NOW)
    assert not consume(organization, now=NOW)
    usage = usage_of(organization, now=NOW)
    assert (usage.used, usage.limit, usage.overage) == (12, 5, 7)
    update_limits(organization, enforcement="soft", now=NOW)
    assert consume(organization, now=NOW)


def test_a_new_plan_holds_for_every_meter(organization):
    """Open periods of meters that were not named follow as well."""
    consume(organization, 50, "tokens", now=NOW)
    assert not consume(organization, 1, "tokens", now=NOW)
    update_limits(organization, plan="pro", enforcement="hard", now=NOW)
    assert usage_of(organization, "tokens", now=NOW).limit is None
    assert consume(organization, 1, "tokens", now=NOW)


@pytest.mark.parametrize(
    ("before", "change", "end"),
    [
        ({}, {"reset_period": "hourly"}, NOW + DAY / 24),
        ({}, {"reset_period": "daily"}, NOW + DAY / 2),
        ({}, {"reset_period": "yearly"}, datetime(2027, 1, 1, tzinfo=UTC)),
        ({}, {"anchor": "2001-01-10"}, APRIL + 9 * DAY),
        ({}, {"anchor": "2001-01-11"}, NOW + DAY / 2),
        ({}, {"time_zone": "Europe/Berlin"}, APRIL - timedelta(hours=2)),
        ({}, {"reset_mode": "scheduled"}, APRIL),
        ({}, {"reset_mode": "manual"}, None),
        ({}, {"plan": "pro"}, NOW + DAY / 2),
        ({"usage_reset_mode": "manual"}, {"reset_mode": "lazy"}, APRIL),
        ({"usage_reset_period": "yearly"}, {"reset_period": ""}, APRIL),
    ],
)
def test_a_new_calendar_keeps_start_and_usage(db, before, change, end):
    """A change of mode, period, anchor or zone moves the end of the open period to the first new boundary."""
    organization = OrganizationFactory(**before)
    start = consume(organization, 4, now=NOW).usage.period.start
    update_limits(organization, **change, now=NOW)
    usage = usage_of(organization, now=NOW)
    assert (usage.used, usage.period) == (4, Period(start, end))
    if end is not None:
        reset_mode = UsagePeriod.objects.get().reset_mode
        later = consume(organization, 1, now=end).usage
        assert (later.used, later.period.start) == ((5, start) if reset_mode == "scheduled" else (1, end))


def test_a_scheduled_period_that_has_ended_is_closed_when_it_need_not_wait(organization):
    """Once it is lazy nobody waits for the job: readers and requests see the next period at once."""
    update_limits(organization, reset_mode="scheduled", now=NOW)
    consume(organization, 4, now=NOW)
    consume(organization, 2, now=APRIL + DAY)
    update_limits(organization, reset_mode="", now=APRIL + DAY)
    usage = usage_of(organization, now=APRIL + DAY)
    assert (usage.used, usage.period) == (2, Period(APRIL, MAY))
    assert consume(organization, 1, now=APRIL + DAY).usage.used == 3
    assert UsagePeriod.objects.get(is_open=None).used == 4


def test_a_change_shares_the_callers_transaction(organization):
    """Rolled back, it never happened."""
    consume(organization, 4, now=NOW)
    with transaction.atomic():
        update_limits(organization, limits={"api": 5}, now=NOW)
        transaction.set_rollback(True)
    assert usage_of(organization, now=NOW).limit == 10
    assert Organization.objects.get(pk=organization.pk).usage_limits == {}
    assert not UsageEvent.objects.exists()


def test_the_deleted_have_no_limits(organization):
    """Whoever changes or syncs a deleted organization is told."""
    Organization.objects.filter(pk=organization.pk).delete()
    with pytest.raises(OrganizationGone):
        update_limits(organization, limits={"api": 5})
    with pytest.raises(OrganizationGone):
        sync_limits(organization)


# -- behind our back ---------------------------------------------------------------------------------------------------


def test_a_stale_save_writes_no_count_back(organization):
    """An instance from before a thousand requests can be saved without undoing one of them."""
    stale = Organization.objects.get(pk=organization.pk)
    consume(organization, 7, now=NOW)
    stale.name = "renamed"
    stale.save()
    assert usage_of(organization, now=NOW).used == 7


def test_a_saved_plan_holds_at_once(organization, freeze):
    """A billing webhook that saves `usage_plan` needs no call of ours."""
    freeze(NOW)
    consume(organization, 10)
    billing = Organization.objects.get(pk=organization.pk)
    billing.usage_plan = "pro"
    billing.save(update_fields=["usage_plan"])
    assert usage_of(organization).limit == 100
    assert usage_of(organization).resets_at == NOW + DAY / 2
    assert consume(organization, 90)


@pytest.mark.parametrize(
    ("field", "value"),
    [("usage_limits", {"api": 20}), ("usage_enforcement", "soft"), ("usage_reset_mode", "scheduled")],
)
def test_so_does_any_other_saved_term(organization, freeze, field, value):
    """Also one that leaves the calendar as it is."""
    freeze(NOW)
    consume(organization, 10)
    setattr(organization, field, value)
    organization.save()
    row = UsagePeriod.objects.get()
    explained = explain(organization)
    assert (row.limit, row.enforcement, row.reset_mode) == (
        explained.limit.value,
        explained.enforcement.value,
        explained.reset_mode.value,
    )


def test_a_save_that_changes_nothing_locks_nothing(organization, freeze):
    """One look at the open periods is all that another field costs."""
    freeze(NOW)
    consume(organization, 4)
    organization.name = "renamed"
    with CaptureQueriesContext(
        connection,
    ) as queries:
        organization.save()
    assert len(queries) == 2


@pytest.mark.parametrize("how", ["create", "fixture"])
def test_new_and_loaded_organizations_are_left_alone(organization, freeze, how):
    """`create()` has no period to follow, and a fixture is written as it is."""
    freeze(NOW)
    consume(organization, 4)
    if how == "create":
        OrganizationFactory(usage_plan="pro")
    else:
        organization.usage_plan = "pro"
        for loaded in serializers.deserialize("json", serializers.serialize("json", [organization])):
            loaded.save()
    assert usage_of(organization).limit == 10
    sync_limits(organization)
    assert usage_of(organization).limit == (10 if how == "create" else 100)


@pytest.mark.parametrize("notice", ["a refusal", "the next day", "sync_limits"])
def test_a_queryset_update_is_noticed(organization, notice):
    """The open row governs, until a refusal, the next bucket or `sync_limits()` derives it again."""
    consume(organization, 4, now=NOW)
    Organization.objects.update(usage_limits={"api": 20})
    assert usage_of(organization, now=NOW).limit == 10
    if notice == "a refusal":
        assert consume(organization, 12, now=NOW)
    elif notice == "the next day":
        consume(organization, 1, now=NOW + DAY)
    else:
        sync_limits(organization, now=NOW)
    assert usage_of(organization, now=NOW).limit == 20


def test_edited_plans_are_noticed(organization, configure):
    """The same goes for PLANS, of every meter."""
    consume(organization, 4, now=NOW)
    consume(organization, 4, "tokens", now=NOW)
    configure(PLANS={"free": {"limits": {"api": 20, "tokens": 30}}})
    sync_limits(organization, now=NOW)
    assert [usage_of(organization, meter, now=NOW).limit for meter in ("api", "tokens")] == [20, 30]


def test_sync_opens_nothing_and_skips_what_is_no_meter_any_more(organization, configure):
    """Only open periods of meters that METERS names are derived again."""
    sync_limits(organization, now=NOW)
    assert not UsagePeriod.objects.exists()
    consume(organization, 4, "tokens", now=NOW)
    configure(METERS={}, PLANS={})
    sync_limits(organization, now=NOW)
    organization.save()
    assert UsagePeriod.objects.get().limit == 50


def test_sync_of_all_derives_what_differs(db, configure, monkeypatch):
    """After an edit of PLANS every open period holds to it; what is right already is not written again."""
    monkeypatch.setattr(selections, "BATCH", 2)
    on_pro = OrganizationFactory.create_batch(3, usage_plan="pro")
    others = [OrganizationFactory(), OrganizationFactory(usage_plan="pro")]
    for organization in [*on_pro, others[0]]:
        consume(organization, 4, now=NOW)
    configure(PLANS=PLANS | {"pro": PLANS["pro"] | {"limits": {"api": 200}}})
    told = []
    assert sync_all_limits(now=NOW, progress=told.append) == SyncReport(organizations=5, synced=3)
    assert told == [2, 2, 1]
    assert sorted(UsagePeriod.objects.values_list("limit", flat=True)) == [10, 200, 200, 200]
    assert sync_all_limits(now=NOW) == SyncReport(organizations=5, synced=0)


def test_sync_of_some(db, configure):
    """A queryset says of whom."""
    organizations = OrganizationFactory.create_batch(2, usage_plan="pro")
    for organization in organizations:
        consume(organization, 4, now=NOW)
    configure(PLANS=PLANS | {"pro": PLANS["pro"] | {"limits": {"api": 200}}})
    only = Organization.objects.filter(pk=organizations[1].pk)
    assert sync_all_limits(only, now=NOW) == SyncReport(organizations=1, synced=1)
    assert UsagePeriod.objects.get(organization=organizations[0]).limit == 100


def test_sync_of_all_passes_one_that_cannot_be_synced(db, configure, monkeypatch, caplog):
    """It is logged and counted, and the others are synced."""
    broken, sound = OrganizationFactory.create_batch(2, usage_plan="pro")
    for organization in (broken, sound):
        consume(organization, 4, now=NOW)
    configure(PLANS=PLANS | {"pro": PLANS["pro"] | {"limits": {"api": 200}}})
    monkeypatch.setattr(Organization, "get_usage_plan", lambda self: {}[self.pk] if self.pk == broken.pk else "pro")
    assert sync_all_limits(now=NOW) == SyncReport(organizations=2, synced=1, failed=1)
    assert str(broken.pk) in caplog.text
    assert UsagePeriod.objects.get(organization=sound).limit == 200


def plans_that_raise():
    """A host's PLANS, read from a service that is down."""
    message = "no plans today"
    raise RuntimeError(message)


@pytest.mark.parametrize("setting", [{"PLANS": plans_that_raise}, {"TIME_ZONE": "Mars/Olympus"}, {"METERS": 5}])
def test_a_save_is_not_hurt_by_what_we_cannot_derive(organization, configure, caplog, setting):
    """The host's own `save()` goes through whatever our settings say; the log has the reason."""
    consume(organization)
    configure(**setting)
    organization.name = "Renamed"
    organization.save()
    organization.refresh_from_db()
    assert organization.name == "Renamed"
    assert "could not follow its save" in caplog.text


def test_a_deferred_organization_is_loaded_at_once(organization, django_assert_max_num_queries):
    """Saving `only("name")` costs the save, the open periods and one more read, not one for each of our fields."""
    consume(organization)
    partial = type(organization).objects.only("name").get()
    with django_assert_max_num_queries(4):
        partial.save()


def test_a_clock_that_lags_behind_a_change_of_calendar_cannot_close_early(organization):
    """A request whose clock is behind a change counts as coming at the change, and finds no boundary before it."""
    consume(organization, 3, "tokens", now=NOW - 90 * SECOND)
    update_limits(organization, reset_period="hourly", now=NOW + 30 * SECOND)  # the last hour has just begun
    update_limits(organization, limits={"tokens": 4}, now=NOW - 60 * SECOND)
    assert not consume(organization, 5, "tokens", now=NOW - 60 * SECOND)
    assert usage_of(organization, "tokens", now=NOW + 40 * SECOND).resets_at == NOW + timedelta(hours=1)
    assert not consume(organization, 2, "tokens", now=NOW + 40 * SECOND)
    assert UsagePeriod.objects.filter(organization=organization, is_open=None).count() == 0
    assert sum(point.used for point in history_of(organization, "tokens", now=NOW + DAY)) == 3


# -- previews ----------------------------------------------------------------------------------------------------------


def test_a_preview_tells_what_would_change_and_writes_nothing(organization, django_assert_num_queries):
    """On a copy: what `update_limits` would return, and what would hold then."""
    update_limits(organization, limits={"tokens": 7})
    copied = copy(organization)
    wanted: dict[str, Any] = {"plan": "pro", "limits": {"api": 5, "tokens": "inherit"}, "features": {"seats": 3}}
    with django_assert_num_queries(0):
        changes = changes_of(copied, **wanted)
        assert explain(copied).limit == Sourced(5, "override")
    assert Organization.objects.get(pk=organization.pk).usage_plan == ""
    assert (organization.usage_plan, organization.usage_limits) == ("", {"tokens": 7})
    assert update_limits(organization, **wanted) == changes
    with pytest.raises(InvalidChange):
        changes_of(copied, limits={"api": -1})


def test_features_do_not_pile_up_without_end(organization):
    """However few come at a time, an organization has at most 200; what would be one too many changes nothing."""
    for start in (0, 100):
        update_limits(organization, features={f"feature-{number}": True for number in range(start, start + 100)})
    with pytest.raises(InvalidChange, match="more than 200 names") as caught:
        update_limits(organization, features={"one-more": True})
    assert caught.value.field == "features"
    update_limits(organization, features={"one-more": True, "feature-0": "inherit"})
    assert len(organization.usage_features) == 200
