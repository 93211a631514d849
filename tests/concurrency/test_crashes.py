"""P2 and P4 under `kill -9`: what a transaction would have done is done whole or not at all, and told in the end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count

import pytest
from django.utils import timezone

from tests.concurrency.books import events_of, signals_in, unbalanced
from tests.concurrency.clients import act
from tests.concurrency.worker import noted
from tests.factories import OrganizationFactory
from usage_tracking.events import SIGNALS, deliver_events
from usage_tracking.metering import consume
from usage_tracking.models import UsageEvent, UsageHistory, UsagePeriod

pytestmark = pytest.mark.usefixtures("counter")

NOW = datetime(2025, 6, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)

ACTIONS = {
    "a threshold is crossed": ("consume", {"amount": 3, "now": NOW}),
    "an amount never fits": ("consume", {"amount": 11, "now": NOW}),
    "a period ends": ("consume", {"amount": 10, "now": NOW + 30 * DAY}),
    "a reset by hand": ("reset", {"now": NOW + DAY}),
    "a limit is lowered": ("update_limits", {"limits": {"api": 5}, "now": NOW}),
    "a refund reaches into history": ("refund", {"amount": 6, "now": NOW}),
    "the organization is deleted": ("delete", {}),
}


def used_before():
    """An organization with 7 of 10 used: 5 in history, 2 in the open bucket."""
    organization = OrganizationFactory(usage_limits={"api": 10})
    consume(organization, 5, now=NOW - DAY)
    consume(organization, 2, now=NOW)
    return organization


def late_job():
    """A scheduled period that went on for two months after its end."""
    organization = OrganizationFactory(usage_limits={"api": 100}, usage_reset_mode="scheduled")
    for days in (-70, -35, -1):
        consume(organization, 3, now=NOW + days * DAY)
    return organization


def state_of(pk):
    """What is stored of an organization, but for keys and deliveries."""
    return (
        list(
            UsagePeriod.objects.filter(organization_id=pk)
            .order_by("start")
            .values_list("start", "end", "is_open", "used", "refused", "limit", "checkpoint_used", "closed_by")
        ),
        list(
            UsageHistory.objects.filter(organization_id=pk)
            .order_by("start")
            .values_list("start", "end", "used", "refused", "period__start")
        ),
        list(
            UsageEvent.objects.filter(organization_id=pk)
            .order_by("pk")
            .values_list("kind", "threshold", "limit", "period__start")
        ),
    )


@pytest.fixture
def notebook(tmp_path, freeze):
    """What has been told; the clock of the tests is an hour ahead, where every claim of the dead has run out."""
    freeze(timezone.now() + timedelta(hours=1))
    return tmp_path / "notebook"


@pytest.mark.parametrize(
    ("prepare", "action"),
    [
        *(pytest.param(used_before, partial(act, *action), id=label) for label, action in ACTIONS.items()),
        pytest.param(late_job, partial(act, "reset_expired", {"now": NOW}), id="the job comes late"),
    ],
)
def test_killed_at_any_statement(crowd, notebook, prepare, action):
    """Killed after any of its statements, an action has happened whole or not at all, and what happened is told."""
    states, survived = [], False
    for statements in count():
        organization = prepare()
        before = state_of(organization.pk)
        survived = crowd.survives(partial(action, organization.pk), statements=statements, notebook=notebook)
        states.append(state_of(organization.pk))
        with noted(notebook):
            deliver_events()
        happened = {(event.kind, event.pk) for event in events_of(organization, *SIGNALS)}
        assert happened <= set(signals_in(notebook))
        if survived:
            break

    assert unbalanced() == []
    after = states[-1]
    assert before == states[0] != after
    assert [state for state in states if state not in (before, after)] == []


def test_dead_deliverer_keeps_its_claim_for_a_minute(crowd, freeze, notebook, tmp_path):
    """An event whose deliverer was killed waits for the claim to run out, and is then told by whoever comes next."""
    for statements in count():
        organization = used_before()
        action = partial(act, "consume", {"amount": 1, "now": NOW}, organization.pk)
        survived = crowd.survives(action, statements=statements, notebook=tmp_path / "of the dead")
        assert not survived, "No statement of this request claims an event."
        if claimed := UsageEvent.objects.exclude(claimed_until=None):
            break
        UsageEvent.objects.all().delete()
    [event] = claimed
    with noted(notebook):
        freeze(event.claimed_until - timedelta(seconds=1))
        deliver_events()
        assert signals_in(notebook) == []
        freeze(event.claimed_until)
        deliver_events()
        deliver_events()
    assert signals_in(notebook) == [("warning", event.pk)]
