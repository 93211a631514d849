"""P3 at scale: runs of the job side by side share the work, and one that was killed is taken up by the next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count

import pytest
from django.db import connection, transaction
from django.utils import timezone

from tests.concurrency.books import events_of, periods_of, signals_in, unbalanced
from tests.concurrency.clients import run_job_in_batches
from tests.concurrency.worker import in_thread, noted
from tests.factories import OrganizationFactory
from usage_tracking.closings import Closings, close_alike
from usage_tracking.metering import consume
from usage_tracking.models import UsageEvent, UsagePeriod
from usage_tracking.organizations import lock_organization
from usage_tracking.resets import ResetReport, reset_expired

DAY = timedelta(days=1)
BOUNDARY = datetime(2025, 7, 1, tzinfo=UTC)


def used(size, *days):
    """So many organizations, used on these days before and after the boundary."""
    organizations = OrganizationFactory.create_batch(size, usage_reset_mode="scheduled")
    for organization in organizations:
        for day in days:
            consume(organization, 3, now=BOUNDARY + day * DAY)
    return organizations


def is_reset(organization):
    """Whether the period before the boundary is closed, after checking that all or nothing of it is done."""
    *closed, now_open = periods_of(organization)
    assert [event.period_id for event in events_of(organization, "reset")] == [row.pk for row in closed]
    assert (now_open.end > BOUNDARY) == bool(closed)
    return bool(closed)


def test_runs_side_by_side_close_each_period_once(crowd, tmp_path):
    """Six runs in three processes, with small batches: each period is closed, counted and told by one of them."""
    organizations = used(24, -1) + used(3, -1, 1)
    job = partial(run_job_in_batches, BOUNDARY + 2 * DAY, 3)
    results = crowd.run(*[[job, job]] * 3, notebook=tmp_path / "notebook")
    reports = [report for process in results for report in process]

    assert sum(report.closed for report in reports) == len(organizations)
    assert sum(report.organizations_affected for report in reports) == len(organizations)
    assert not any(report.failed for report in reports)
    assert all(is_reset(organization) for organization in organizations)
    told_of = [event for _, event in signals_in(tmp_path / "notebook")]
    assert sorted(told_of) == sorted(UsageEvent.objects.values_list("pk", flat=True))
    assert reset_expired(BOUNDARY + 2 * DAY) == ResetReport(closed=0, organizations_affected=0)


def test_a_killed_run_is_taken_up_by_the_next(crowd, freeze, tmp_path):
    """Killed after any statement, it leaves whole resets and untouched organizations; the next run does the rest."""
    notebook = tmp_path / "notebook"
    # Where every claim of the dead has run out.
    freeze(timezone.now() + timedelta(hours=1))
    progress = []
    for statements in count(1, 5):
        organizations = [*used(3, -1), *used(1, -1, 1)]
        keys = [organization.pk for organization in organizations]
        action = partial(run_job_in_batches, BOUNDARY + 2 * DAY, 2, keys)
        survived = crowd.survives(action, statements=statements, notebook=notebook)
        done = [organization for organization in organizations if is_reset(organization)]
        progress.append(len(done))
        with noted(notebook):
            report = reset_expired(BOUNDARY + 2 * DAY, organizations)
        assert report.closed == len(organizations) - len(done)
        assert all(is_reset(organization) for organization in organizations)
        resets = {("reset", event.pk) for organization in organizations for event in events_of(organization, "reset")}
        assert resets <= set(signals_in(notebook))
        if survived:
            break

    assert unbalanced() == []
    assert progress == sorted(progress)
    assert {0, 2, 3, 4} == set(progress)


def close_impatiently(keys):
    """Close the periods of these organizations, and raise rather than wait."""
    statements = {"postgresql": "SET lock_timeout = '1s'", "mysql": "SET innodb_lock_wait_timeout = 1"}
    with connection.cursor() as cursor:
        cursor.execute(statements[connection.vendor])
    return close_alike(keys, BOUNDARY, "default")


@pytest.mark.parametrize("what", ["organization", "period"])
def test_a_run_waits_for_nobody_while_others_can_be_reset(what):
    """Who holds a lock on an organization or on its open period holds up this one only, which is closed afterwards."""
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has one lock for all. To run this, set DATABASE_URL=postgres://… .")
    if connection.vendor == "mysql" and what == "period":
        pytest.skip("InnoDB locks the neighbour in an index too. To run this, set DATABASE_URL=postgres://… .")
    organizations = used(3, -1)
    keys = [organization.pk for organization in organizations]
    with transaction.atomic():
        if what == "organization":
            lock_organization(keys[1], "default")
        else:
            consume(organizations[1], now=BOUNDARY - DAY)
        closed = in_thread(close_impatiently, keys)
    assert closed == Closings(closed=2, organizations=2)
    assert UsagePeriod.objects.get(is_open=True, end=BOUNDARY).organization_id == keys[1]
    assert reset_expired(BOUNDARY) == ResetReport(closed=1, organizations_affected=1)
