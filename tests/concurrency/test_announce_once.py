"""P4: each threshold of each period and limit is recorded once and told once, however many cross it together."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from functools import partial

import pytest

from tests.concurrency.books import events_of, periods_of, signals_in, told
from tests.concurrency.clients import hammer, hammer_until, insist, lower_limit, raise_limit
from tests.concurrency.crowd import SECOND, deal, storm
from tests.factories import OrganizationFactory
from usage_tracking.events import deferred_delivery, deliver_events
from usage_tracking.metering import consume

pytestmark = pytest.mark.usefixtures("counter")

START = datetime(2025, 6, 10, 12, tzinfo=UTC)
ANNOUNCED = ("warning", "exceeded")


@pytest.mark.parametrize("failing", [False, True], ids=["receivers work", "receivers raise"])
def test_one_warning_and_one_exceeded(crowd, counter, tmp_path, failing):
    """16 clients cross both thresholds together: one event and one signal each, also if the receivers raise.

    What is spent from leases is announced when it is settled, and may be past the threshold by then.
    """
    organization = OrganizationFactory(usage_limits={"api": 200})
    notebook = tmp_path / "notebook"
    clients = [partial(insist, organization.pk, START)] * 8
    crowd.run(clients, clients, notebook=notebook, failing=failing)

    [period] = periods_of(organization)
    assert period.used == 200
    events = events_of(organization, *ANNOUNCED)
    assert [(event.kind, event.threshold) for event in events] == [("warning", 80), ("exceeded", 100)]
    warned_at, exceeded_at = [event.data["used"] for event in events]
    assert exceeded_at == 200
    assert warned_at == 160 or (counter == "leased" and 160 < warned_at <= 200)
    assert all(event.delivered_at for event in events)
    assert sorted(signals_in(notebook)) == sorted(told(organization, *ANNOUNCED))


def test_soft_limit_is_announced_once(crowd, tmp_path):
    """Soft enforcement lets all of them pass and announces the same."""
    organization = OrganizationFactory(usage_limits={"api": 200}, usage_enforcement="soft")
    notebook = tmp_path / "notebook"
    calls = storm(START, 320, amounts=(1, 2, 3))
    crowd.run(*deal(hammer, organization.pk, calls), notebook=notebook)

    [period] = periods_of(organization)
    assert period.used == sum(amount for _, amount in calls)
    assert [event.kind for event in events_of(organization, *ANNOUNCED)] == ["warning", "exceeded"]
    assert sorted(signals_in(notebook)) == sorted(told(organization, *ANNOUNCED))


def test_each_limit_announces_its_own(crowd, tmp_path):
    """While the limit is raised under the clients, each limit that was reached is announced once."""
    organization = OrganizationFactory(usage_limits={"api": 50})
    notebook = tmp_path / "notebook"
    raising = [partial(raise_limit, organization.pk, [100, 150, 200, 250], START)]
    hammering = [partial(hammer_until, organization.pk, 250, START)] * 8
    crowd.run(hammering, hammering, raising, notebook=notebook)

    [period] = periods_of(organization)
    events = events_of(organization, *ANNOUNCED)
    assert Counter((event.limit, event.kind) for event in events) == Counter(
        (limit, kind) for limit in (50, 100, 150, 200, 250) for kind in ANNOUNCED
    )
    assert (period.limit, period.used) == (250, 250)
    assert sorted(signals_in(notebook)) == sorted(told(organization, *ANNOUNCED, "limits_updated"))


@pytest.mark.parametrize(
    ("limit", "amount", "kinds"), [(0, 1, ["exceeded"]), (10, 11, ["exceeded"]), (1, 1, ["warning", "exceeded"])]
)
def test_what_never_fits_is_announced_once(crowd, tmp_path, limit, amount, kinds):
    """Limit 0 and amounts that never fit announce `exceeded` with the first refusal, and with no other."""
    organization = OrganizationFactory(usage_limits={"api": limit})
    notebook = tmp_path / "notebook"
    crowd.run(*deal(hammer, organization.pk, storm(START, 64, amounts=[amount])), notebook=notebook)

    assert [event.kind for event in events_of(organization, *ANNOUNCED)] == kinds
    assert sorted(signals_in(notebook)) == sorted(told(organization, *ANNOUNCED))


def test_lowered_limit_is_announced_once(crowd, tmp_path):
    """Processes that lower the limit to what is used, or below it, under 16 clients announce `exceeded` once each."""
    organization = OrganizationFactory(usage_limits={"api": 1000})
    notebook = tmp_path / "notebook"
    hammer(organization.pk, storm(START, 100))
    lowering = [partial(lower_limit, organization.pk, 50, START + SECOND)] * 2
    crowd.run(*deal(hammer, organization.pk, storm(START, 160)), lowering, notebook=notebook)

    [exceeded] = events_of(organization, "exceeded")
    assert (exceeded.limit, exceeded.threshold) == (50, 100)
    assert len(events_of(organization, "limits_updated")) == 1
    assert sorted(signals_in(notebook)) == sorted(told(organization, *ANNOUNCED, "limits_updated"))


def test_each_event_is_told_by_one_deliverer(crowd, tmp_path):
    """Of 16 deliverers that find the same events waiting, one tells each."""
    notebook = tmp_path / "notebook"
    organizations = OrganizationFactory.create_batch(25, usage_limits={"api": 1})
    with deferred_delivery():
        for organization in organizations:
            consume(organization, now=START)
    crowd.run([deliver_events] * 8, [deliver_events] * 8, notebook=notebook)

    told_of = signals_in(notebook)
    assert len(told_of) == len(set(told_of)) == 2 * len(organizations)
