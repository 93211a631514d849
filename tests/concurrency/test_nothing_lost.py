"""P2 and P3: whatever is admitted is in exactly one period, and a period is closed exactly once."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from django.db import connection

from tests.concurrency.books import events_of, periods_of, signals_in, told, used_by_bucket
from tests.concurrency.clients import delete, hammer, hammer_and_return, hammer_until_gone, reset_at, run_job, watch
from tests.concurrency.crowd import SECOND, deal, flat, storm
from tests.concurrency.worker import in_thread
from tests.factories import OrganizationFactory
from usage_tracking.exceptions import OrganizationGone
from usage_tracking.metering import consume, refund, usage_of
from usage_tracking.models import UsageEvent, UsageHistory, UsagePeriod
from usage_tracking.resets import reset, reset_expired

pytestmark = pytest.mark.usefixtures("counter")

DAY = timedelta(days=1)
BOUNDARY = datetime(2025, 7, 1, tzinfo=UTC)
"""Of days and of months."""


def kept(answers):
    """What the answers say is still taken, by the bucket that was charged."""
    buckets = Counter()
    for answer in answers:
        if answer.charge:
            buckets[answer.charge.bucket_start] += answer.amount - answer.returned
    return +buckets


def by_period(answers):
    """What the answers say was taken, by the period that was charged."""
    periods = Counter()
    for answer in answers:
        periods[answer.charge.period_id] += answer.amount
    return periods


@pytest.fixture
def organization():
    """Unlimited, so that every call is admitted; reset lazily each month."""
    return OrganizationFactory(usage_limits={"api": None})


def test_charge_names_the_bucket_it_went_to(crowd, organization):
    """A reset right behind the counting statement, before a database without RETURNING is asked what was counted,
    does not change where the charge is known to be.
    """  # noqa: D205
    consume(organization, now=BOUNDARY)
    seen = []

    def reset_behind_the_first(execute, *arguments):
        if len(seen) == 1:
            # In a thread, whose connection is closed: copies of that process, which are killed, must not inherit one.
            crowd.ask(partial(in_thread, reset_at, organization.pk, [BOUNDARY + SECOND]))
        seen.append(arguments)
        return execute(*arguments)

    with connection.execute_wrapper(reset_behind_the_first):
        decision = consume(organization, 5, now=BOUNDARY)
    if len(seen) == 1:
        reset(organization, now=BOUNDARY + SECOND)

    old, new = periods_of(organization)
    assert (old.used, new.used) == (6, 0)
    assert decision.charge.period_id == old.pk
    consume(organization, 5, now=BOUNDARY + SECOND)
    assert refund(decision, now=BOUNDARY + SECOND) == 5
    assert [period.used for period in periods_of(organization)] == [1, 5]


@pytest.mark.parametrize("skew", [0 * SECOND, SECOND], ids=["clocks agree", "clocks disagree"])
def test_across_a_boundary_every_request_is_in_one_period(crowd, organization, skew, tmp_path):
    """16 clients hammer across a boundary: each admitted request is in one of two periods, closed by one reset."""
    calls = storm(BOUNDARY - SECOND, 480, amounts=(1, 2, 3), length=2 * SECOND, skew=skew)
    results = crowd.run(*deal(hammer, organization.pk, calls), [partial(watch, 20)], notebook=tmp_path / "notebook")

    assert results.pop() == [[]]
    answers = flat(results)
    old, new = periods_of(organization)
    assert old.used + new.used == sum(amount for _, amount in calls)
    assert old.end == new.start == BOUNDARY
    assert by_period(answers) == {old.pk: old.used, new.pk: new.used}
    assert all(answer.charge.period_id == new.pk for answer in answers if answer.now >= BOUNDARY)
    assert len(events_of(organization, "reset")) == 1
    assert signals_in(tmp_path / "notebook") == told(organization, "reset")


def test_late_scheduled_reset_gives_each_period_its_own(crowd, tmp_path):
    """The job comes two hours late, from three processes: what was used after the boundary is in the new period."""
    organization = OrganizationFactory(usage_limits={"api": None}, usage_reset_mode="scheduled")
    before = storm(BOUNDARY - SECOND, 240, amounts=(1, 2, 3), length=2 * SECOND)
    late = storm(BOUNDARY + timedelta(hours=2), 240, amounts=(1, 2, 3))
    first = flat(crowd.run(*deal(hammer, organization.pk, before)))
    [period] = periods_of(organization)
    assert usage_of(organization, now=BOUNDARY + SECOND).expired

    clients = [*deal(hammer, organization.pk, late), [partial(watch, 20)]]
    for process in clients:
        process.append(partial(run_job, [late[100][0]] * 2))
    results = crowd.run(*clients, notebook=tmp_path / "notebook")

    reports = [report for process in results for report in process.pop()]
    assert sum(report.closed for report in reports) == 1
    assert results.pop() == [[]]
    old, new = periods_of(organization)
    assert (old.pk, old.end, new.start) == (period.pk, BOUNDARY, BOUNDARY)
    answers = first + flat(results)
    assert used_by_bucket(organization) == kept(answers)
    assert old.used == sum(answer.amount for answer in answers if answer.charge.bucket_start < BOUNDARY)
    assert new.used == sum(answer.amount for answer in answers if answer.charge.bucket_start >= BOUNDARY)
    assert signals_in(tmp_path / "notebook") == told(organization, "reset")


def test_manual_resets_in_mid_flight_lose_nothing(crowd, organization, tmp_path):
    """Each reset by hand, also two at once, ends one period and begins one; nothing falls between them."""
    calls = storm(BOUNDARY, 480, amounts=(1, 2, 3))
    moments = [now for now, _ in calls[100::100]]
    resetting = [partial(reset_at, organization.pk, moments)] * 2
    clients = [*deal(hammer, organization.pk, calls), [*resetting, partial(watch, 20)]]
    results = crowd.run(*clients, notebook=tmp_path / "notebook")

    assert results.pop()[-1] == []
    periods = periods_of(organization)
    assert len(periods) == 2 * len(moments) + 1
    assert sum(period.used for period in periods) == sum(amount for _, amount in calls)
    assert Counter({period.pk: period.used for period in periods if period.used}) == by_period(flat(results))
    assert sorted(event.period_id for event in events_of(organization, "reset")) == [row.pk for row in periods[:-1]]
    assert sorted(signals_in(tmp_path / "notebook")) == told(organization, "reset")


def test_refunds_in_mid_flight_go_where_the_charge_went(crowd, organization):
    """Half of the requests are given back while buckets and periods close under them: each bucket keeps the rest."""
    calls = storm(BOUNDARY - SECOND, 400, amounts=(1, 2, 3), length=2 * SECOND, skew=SECOND / 4)
    meddling = [partial(reset_at, organization.pk, [now for now, _ in calls[100::100]]), partial(watch, 20)]
    results = crowd.run(*deal(hammer_and_return, organization.pk, calls), meddling)

    assert results.pop()[-1] == []
    answers = flat(results)
    assert len(answers) == len(calls)
    assert all(answer.returned in (0, answer.amount) for answer in answers)
    assert used_by_bucket(organization) == kept(answers)
    assert sum(period.used for period in periods_of(organization)) == kept(answers).total()


@pytest.mark.parametrize("mode", ["lazy", "scheduled"])
def test_reset_expired_closes_each_period_once(crowd, mode, tmp_path):
    """However many processes run the job at once, each expired period is closed by one; a second run does nothing."""
    organizations = OrganizationFactory.create_batch(8, usage_reset_mode=mode)
    for organization in organizations:
        for days in (-1, 0, 40):  # two boundaries have passed when the job comes
            consume(organization, 3, now=BOUNDARY + days * DAY)
    waiting = UsagePeriod.objects.filter(is_open=True, end__lte=BOUNDARY + 70 * DAY).count()
    job = partial(run_job, [BOUNDARY + 70 * DAY])
    reports = flat(crowd.run(*[[job, job]] * 3, notebook=tmp_path / "notebook"))

    expected = {"lazy": 1, "scheduled": 3}[mode]
    assert waiting == len(organizations)
    assert sum(report.closed for report in reports) == expected * len(organizations)
    for organization in organizations:
        *closed, now_open = periods_of(organization)
        assert [period.used for period in closed] == [3, 3, 3]
        assert now_open.used == 0
        assert [event.period_id for event in events_of(organization, "reset")] == [row.pk for row in closed]
    told_of = [event for kind, event in signals_in(tmp_path / "notebook")]
    assert len(told_of) == len(set(told_of)) == expected * len(organizations)

    before = everything()
    assert reset_expired(now=BOUNDARY + 70 * DAY).closed == 0
    assert everything() == before


def everything():
    """All that is stored."""
    return [list(model.objects.order_by("pk").values()) for model in (UsagePeriod, UsageHistory, UsageEvent)]


def test_organization_is_deleted_in_mid_flight(crowd):
    """An organization that goes while 16 clients use and reset it leaves nothing behind; each of them learns of it."""
    organization = OrganizationFactory()
    calls = storm(BOUNDARY, 16_000)
    meddling = [partial(delete, organization.pk, 10)]
    results = crowd.run(*deal(hammer_until_gone, organization.pk, calls), meddling)

    assert results[:2] == [["gone"] * 8] * 2
    assert everything() == [[], [], []]
    with pytest.raises(OrganizationGone):
        consume(organization)
