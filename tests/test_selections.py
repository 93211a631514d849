"""Which organizations: the filters say of many what `usage_of` says of each."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.factories import Organization, OrganizationFactory
from usage_tracking.metering import adjust, usages_of
from usage_tracking.periods import ResetMode
from usage_tracking.quotas import MAX_AMOUNT
from usage_tracking.selections import exceeded, expired, in_reset_mode, near_limit, on_plan

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
APRIL = datetime(2026, 4, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _settings(configure):
    """Ten requests a month; fifty tokens."""
    configure(DEFAULT_LIMIT=10, METERS={"tokens": {"default_limit": 50}}, PLANS={"free": {}, "pro": {}})


@pytest.fixture
def crowd(db):
    """Organizations in every state, by name."""
    states = {
        "untouched": ({}, None),
        "below": ({}, 7),
        "near": ({}, 8),
        "nearly": ({}, 9),
        "reached": ({}, 10),
        "past": ({"usage_enforcement": "soft"}, 15),
        "unlimited": ({"usage_limits": {"api": None}}, 1_000_000),
        "nothing": ({"usage_limits": {"api": 0}}, 0),
        "huge": ({"usage_limits": {"api": MAX_AMOUNT}}, MAX_AMOUNT - 1),
        "scheduled": ({"usage_reset_mode": "scheduled"}, 9),
        "manual": ({"usage_reset_mode": "manual"}, 10),
    }
    for name, (fields, used) in states.items():
        organization = OrganizationFactory(name=name, **fields)
        if used is not None:
            adjust(organization, used=used, now=NOW)


def names(organizations):
    """Return the names of those found."""
    return set(organizations.values_list("name", flat=True))


@pytest.mark.usefixtures("crowd")
@pytest.mark.parametrize("now", [NOW, APRIL - timedelta(seconds=1), APRIL, APRIL + timedelta(days=40)])
def test_near_and_exceeded_are_what_the_numbers_say(now):
    """From 80 % on an organization is near its limit, at 100 % it has exceeded it; a lazy period that is over counts
    for nothing.
    """  # noqa: D205
    usages = usages_of(Organization.objects.exclude(name__in=["untouched", "nothing"]), ["api"], now=now)
    told = {
        organization.name: usages[organization.pk]["api"].percentage
        for organization in Organization.objects.filter(pk__in=usages)
    }
    near = {name for name, percentage in told.items() if percentage is not None and 80 <= percentage < 100}
    over = {name for name, percentage in told.items() if percentage is not None and percentage >= 100}
    assert names(near_limit(Organization.objects.all(), now=now)) == near
    assert names(exceeded(Organization.objects.all(), now=now)) - {"nothing"} == over
    assert ("nothing" in names(exceeded(Organization.objects.all(), now=now))) == (now < APRIL)
    assert near >= {"scheduled"}
    assert over >= {"manual"}


@pytest.mark.usefixtures("crowd")
def test_a_meter_narrows_it_down():
    """With a meter only that one is looked at; without one, any will do."""
    adjust(Organization.objects.get(name="untouched"), used=45, meter="tokens", now=NOW)
    everyone = Organization.objects.all()
    assert names(near_limit(everyone, now=NOW, meter="tokens")) == {"untouched"}
    assert names(near_limit(everyone, now=NOW)) == {"untouched", "near", "nearly", "huge", "scheduled"}
    assert "near" in names(near_limit(everyone, now=NOW, meter="api"))
    assert "untouched" not in names(near_limit(everyone, now=NOW, meter="api"))
    assert names(exceeded(everyone, now=NOW, meter="tokens")) == set()


@pytest.mark.usefixtures("crowd")
def test_the_lowest_threshold_is_where_near_begins(configure):
    """THRESHOLDS says from where on an organization is near its limit; thresholds past it say nothing about that."""
    configure(THRESHOLDS=[90, 70])
    assert "below" in names(near_limit(Organization.objects.all(), now=NOW))
    configure(THRESHOLDS=[120])
    assert names(near_limit(Organization.objects.all(), now=NOW)) == set()


@pytest.mark.usefixtures("crowd")
def test_expired_waits_for_the_scheduled_reset():
    """Only a scheduled period that is over is waiting for something."""
    everyone = Organization.objects.all()
    assert names(expired(everyone, now=APRIL - timedelta(microseconds=1))) == set()
    assert names(expired(everyone, now=APRIL)) == {"scheduled"}
    assert names(expired(everyone, now=APRIL, meter="tokens")) == set()


def test_silence_is_the_default(db, configure):
    """An organization that names no plan and no mode is on the default ones."""
    OrganizationFactory(name="silent")
    OrganizationFactory(name="free", usage_plan="free")
    OrganizationFactory(name="pro", usage_plan="pro", usage_reset_mode="manual")
    everyone = Organization.objects.all()
    assert names(on_plan(everyone, "free")) == {"silent", "free"}
    assert names(on_plan(everyone, "pro")) == {"pro"}
    assert names(in_reset_mode(everyone, ResetMode.LAZY)) == {"silent", "free"}
    assert names(in_reset_mode(everyone, ResetMode.MANUAL)) == {"pro"}
    configure(RESET_MODE="manual", DEFAULT_PLAN="pro")
    assert names(on_plan(everyone, "pro")) == {"silent", "pro"}
    assert names(in_reset_mode(everyone, ResetMode.MANUAL)) == {"silent", "free", "pro"}
