"""Changing limits: what is given, all or nothing, and never over a change that the caller has not seen."""

import threading
from datetime import UTC, datetime

import pytest
from django.db import connection

from tests.api.conftest import Caller, url
from tests.factories import MembershipFactory, Organization
from usage_tracking import entitlements
from usage_tracking.entitlements import update_limits
from usage_tracking.metering import consume, usage_of
from usage_tracking.models import UsageEvent

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _settings(configure):
    """Two plans and a second meter."""
    configure(
        DEFAULT_LIMIT=10,
        METERS={"tokens": {"default_limit": 50}},
        PLANS={"free": {}, "pro": {"limits": {"api": 100}, "features": {"export": True}, "enforcement": "soft"}},
    )


def test_limits_and_where_they_come_from(organization, manager):
    """The overrides, which a PATCH may send back, and what holds all in all."""
    update_limits(organization, plan="pro", limits={"tokens": None}, features={"seats": 3}, anchor="2026-01-15")
    answer = manager.get(url("limits", organization))
    told = answer.json()
    explained = told.pop("explain")
    assert told == {
        "organization": organization.pk if isinstance(organization.pk, int) else str(organization.pk),
        "plan": "pro",
        "limits": {"tokens": None},
        "features": {"seats": 3},
        "reset_mode": "",
        "reset_period": "",
        "anchor": "2026-01-15",
        "time_zone": "",
        "enforcement": "",
    }
    assert explained == {
        "plan": {"value": "pro", "source": "override"},
        "limits": {"api": {"value": 100, "source": "plan"}, "tokens": {"value": None, "source": "override"}},
        "features": {"export": {"value": True, "source": "plan"}, "seats": {"value": 3, "source": "override"}},
        "reset_mode": {"value": "lazy", "source": "default"},
        "reset_period": {"value": "monthly", "source": "default"},
        "anchor": {"value": "2026-01-15T00:00:00", "source": "override"},
        "time_zone": {"value": "UTC", "source": "default"},
        "enforcement": {"value": "soft", "source": "plan"},
    }
    assert answer["Cache-Control"] == "private, no-cache"
    del told["organization"]
    tag = answer["ETag"]
    assert manager.patch(url("limits", organization), told)["ETag"] == tag
    assert UsageEvent.objects.count() == 1


def test_a_change_is_merged_meter_by_meter(organization, manager):
    """What is left out stays; null is unlimited, "inherit" drops the override, "" says nothing of its own."""
    target = url("limits", organization)
    assert manager.patch(target, {"limits": {"api": 5, "tokens": 7}}).json()["limits"] == {"api": 5, "tokens": 7}
    assert manager.patch(target, {"limits": {"tokens": None}}).json()["limits"] == {"api": 5, "tokens": None}
    assert manager.patch(target, {"limits": {"api": "inherit"}}).json()["limits"] == {"tokens": None}
    assert manager.patch(target, {"limits": {"tokens": 0}}).json()["limits"] == {"tokens": 0}
    assert manager.patch(target, {"features": {"a": 1, "b": "x"}}).json()["features"] == {"a": 1, "b": "x"}
    assert manager.patch(target, {"features": {"a": "inherit"}}).json()["features"] == {"b": "x"}
    assert manager.patch(target, {"plan": "pro"}).json()["plan"] == "pro"
    assert manager.patch(target, {"plan": ""}).json()["explain"]["plan"] == {"value": "free", "source": "default"}
    assert usage_of(Organization.objects.get(pk=organization.pk)).limit == 10


def test_everything_at_once_is_one_event(organization, manager):
    """One transaction, one line in the audit trail, with old and new values; the open period goes on."""
    consume(organization, 4)
    answer = manager.patch(
        url("limits", organization),
        {
            "limits": {"api": 8},
            "plan": "pro",
            "features": {"export": False},
            "reset_mode": "scheduled",
            "reset_period": "daily",
            "anchor": "2026-01-01T06:00",
            "time_zone": "Europe/Berlin",
            "enforcement": "hard",
            "reason": "a new contract",
        },
    )
    assert answer.status_code == 200
    event = UsageEvent.objects.get(kind="limits_updated")
    assert (event.actor, event.reason) == (manager.user, "a new contract")
    assert event.data["changes"]["limits"] == {"old": {}, "new": {"api": 8}}
    assert len(event.data["changes"]) == 8
    usage = usage_of(Organization.objects.get(pk=organization.pk))
    assert (usage.used, usage.limit) == (4, 8)


# -- If-Match ----------------------------------------------------------------------------------------------------------


def test_a_change_of_what_was_seen(organization, manager):
    """The ETag of a GET or a PATCH is what the next PATCH names."""
    target = url("limits", organization)
    seen = manager.get(target)["ETag"]
    changed = manager.patch(target, {"limits": {"api": 5}}, **{"If-Match": seen})
    assert (changed.status_code, changed["ETag"]) == (200, manager.get(target)["ETag"])
    assert changed["ETag"] != seen
    stale = manager.patch(target, {"limits": {"api": 6}}, **{"If-Match": seen})
    assert (stale.status_code, stale.json()["type"]) == (412, "urn:usage-tracking:problem:limits-changed")
    assert manager.get(target).json()["limits"] == {"api": 5}
    assert UsageEvent.objects.count() == 1
    assert manager.patch(target, {"limits": {"api": 7}}, **{"If-Match": changed["ETag"]}).status_code == 200


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("*", 200),
        ("{}", 200),
        (' "other" , {} ', 200),
        ("W/{}", 412),
        ('W/{}, "other"', 412),
        ('"other"', 412),
        ('"other", ', 412),
    ],
)
def test_how_tags_are_compared(organization, manager, header, status):
    """Strongly (RFC 9110, section 13.1.1): a weak tag matches nothing; `*` matches anything."""
    target = url("limits", organization)
    header = header.replace("{}", manager.get(target)["ETag"])
    answer = manager.patch(target, {"limits": {"api": 5}}, **{"If-Match": header})
    assert answer.status_code == status
    assert UsageEvent.objects.exists() == (status == 200)


@pytest.mark.parametrize("header", ["", " ", ",", "nonsense", '"', "'tag'", "W/", "**"])
def test_a_header_without_a_tag_is_a_mistake(organization, manager, header):
    """It is told as one, by the header's name: a 412 would have its sender read the limits again, in vain."""
    answer = manager.patch(url("limits", organization), {"limits": {"api": 5}}, **{"If-Match": header})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["If-Match"])
    assert not UsageEvent.objects.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"plan": "pro"},
        {"limits": {"api": 10}},
        {"features": {"x": True}},
        {"reset_mode": "manual"},
        {"reset_period": "monthly"},
        {"anchor": "2026-01-02"},
        {"time_zone": "UTC"},
        {"enforcement": "hard"},
    ],
)
def test_every_change_has_another_tag(organization, manager, change):
    """Also one that spells out what held before; usage is no part of it."""
    before = manager.get(url("limits", organization))["ETag"]
    consume(organization)
    assert manager.get(url("limits", organization))["ETag"] == before
    assert manager.patch(url("limits", organization), change)["ETag"] != before


def test_edited_plans_have_another_tag(organization, manager, configure):
    """What holds is part of what the caller has seen."""
    before = manager.get(url("limits", organization))["ETag"]
    configure(PLANS={"free": {"limits": {"api": 11}}})
    assert manager.get(url("limits", organization))["ETag"] != before


@pytest.mark.django_db(transaction=True)
def test_of_two_managers_at_once_one_is_told(organization, monkeypatch):
    """Both have seen the same limits and send their change at the same instant: one is written, one gets a 412.

    The two meet behind the view's own reading of the organization, right before the lock is taken.
    """
    callers = [Caller(MembershipFactory(organization=organization, role="manager").user) for _ in range(2)]
    target = url("limits", organization)
    tag = callers[0].get(target)["ETag"]
    meeting = threading.Barrier(2, timeout=30)
    settled = entitlements.settled

    def meet_and_lock(*args, **kwargs):
        if not meeting.broken and threading.current_thread() is not threading.main_thread():
            meeting.wait()
        return settled(*args, **kwargs)

    monkeypatch.setattr(entitlements, "settled", meet_and_lock)
    statuses = {}

    def change(index):
        answer = callers[index].patch(target, {"limits": {"api": 100 + index}}, **{"If-Match": tag})
        statuses[index] = answer.status_code
        connection.close()

    threads = [threading.Thread(target=change, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses.values()) == [200, 412]
    [winner] = [index for index, status in statuses.items() if status == 200]
    assert Organization.objects.get(pk=organization.pk).usage_limits == {"api": 100 + winner}
    assert UsageEvent.objects.filter(kind="limits_updated").count() == 1
