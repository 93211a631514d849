"""Proving the books: every period is the sum of its history and its open bucket (P2), and follows the one before."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from itertools import groupby
from typing import Any, Final

from django.db import DatabaseError, router
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce

from usage_tracking.deadlocks import retried
from usage_tracking.exceptions import OrganizationGone, UnknownMeter
from usage_tracking.ledger import Ledger, instant, locked
from usage_tracking.models import UsageEvent, UsageHistory, UsageLease, UsagePeriod, check_text, get_organization_model
from usage_tracking.plans import meter_named
from usage_tracking.selections import in_batches

__all__ = ["Finding", "Problem", "verify_usage"]

logger = logging.getLogger(__name__)

REASON: Final = "recomputed from history"

LEFT: Final = F("granted") - F("settled")
"""What is on a live lease."""


class Problem(StrEnum):
    """What is wrong with a period."""

    DRIFT = "drift"
    """`used` is not its history rows and its open bucket together."""
    NEGATIVE = "negative"
    """A number of the period or of its history is below zero."""
    STRAY = "stray"
    """A history row begins or ends outside of its period, or is another organization's or meter's."""
    OVERLAP = "overlap"
    """The next period begins before this one ends."""
    GAP = "gap"
    """This period was closed, and the one that was opened then is missing."""
    NOT_OPEN = "not-open"
    """The last period of a meter is closed: closing it has opened no other."""
    UNTOLD = "untold"
    """The period was closed without a `reset` event."""
    MISLENT = "mislent"
    """What is on lease is not what its live leases have left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong with one period."""

    problem: Problem
    organization_id: object
    meter: str
    period_id: int
    start: datetime
    stored: int | None = None
    """What the period says it has used, or has on lease; None where `problem` is not about an amount."""
    expected: int | None = None
    """What its history and its open bucket say, or its leases."""
    repaired: bool = False


def verify_usage(
    organizations: QuerySet[Any] | None = None,
    *,
    meter: str | None = None,
    repair: bool = False,
    reason: str = REASON,
    now: datetime | None = None,
    using: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Finding]:
    """Recompute every period of `organizations` (default: all) and yield what is wrong, organization by organization.

    It may run while requests are counted: each batch is read in one statement, which sees all of a charge or none.
    History is believed: with `repair` a drifted period is set to what its history and its open bucket say, under the
    organization's lock, with an `adjusted` event that has the old and the new value and `reason`. What it has on lease
    is set to what its leases have left, without an event: nothing is charged by it. Other problems are told only.
    `progress` is called with how many organizations have just been checked. Raises UnknownMeter or
    InvalidInput naming `reason` or `now`, before anything is read.
    """
    now = instant(now)
    check_text(reason, field="reason")
    if meter is not None:
        meter_named(meter)
    using = using or router.db_for_write(UsagePeriod)
    if organizations is None:
        organizations = get_organization_model()._base_manager.using(using)

    def findings(organizations: QuerySet[Any]) -> Iterator[Finding]:
        for batch in in_batches(organizations):
            rows = _recounted(using).filter(organization_id__in=[organization.pk for organization in batch])
            rows = rows if meter is None else rows.filter(meter=meter)
            # Read to the end before a repair writes: the finding is weighed again there, under the lock.
            for finding in list(_examined(rows)):
                if repair and finding.problem in (Problem.DRIFT, Problem.MISLENT):
                    yield _try_to_repair(finding, reason=reason, now=now, using=using)
                else:
                    yield finding
            if progress is not None:
                progress(len(batch))

    return findings(organizations)


def _recounted(using: str) -> QuerySet[Any]:
    """Return all periods, each with what its history says."""
    history = UsageHistory.objects.using(using).filter(period=OuterRef("pk")).order_by()
    recorded = history.values("period").annotate(recorded=Sum("used")).values("recorded")
    leases = _live_leases(using).filter(period=OuterRef("pk")).order_by()
    lent = leases.values("period").annotate(lent=Sum(LEFT)).values("lent")
    elsewhere = ~Q(organization=OuterRef("organization"), meter=OuterRef("meter"))
    # An open scheduled period goes on past its end until its job comes.
    late = Q(end__gt=OuterRef("end"), period__is_open=None)
    events = UsageEvent.objects.using(using).filter(period=OuterRef("pk"), kind=UsageEvent.Kind.RESET)
    return (
        UsagePeriod.objects.using(using)
        .annotate(
            recorded=Coalesce(Subquery(recorded), 0),
            lent=Coalesce(Subquery(lent), 0),
            has_negative=Exists(history.filter(Q(used__lt=0) | Q(refused__lt=0))),
            has_stray=Exists(history.filter(Q(start__lt=OuterRef("start")) | late | elsewhere)),
            is_told=Exists(events),
        )
        .order_by("organization_id", "meter", "start")
    )


def _live_leases(using: str) -> QuerySet[UsageLease]:
    return UsageLease.objects.using(using).filter(lost_at=None)


def _examined(rows: QuerySet[Any]) -> Iterator[Finding]:
    for _, periods in groupby(rows.iterator(), key=lambda row: (row.organization_id, row.meter)):
        previous = None
        for row in periods:
            if previous is not None:
                yield from _between(previous, row)
            yield from _within(row)
            previous = row
        if previous is not None and not previous.is_open:
            yield _finding(Problem.NOT_OPEN, previous)


def _within(row: Any) -> Iterator[Finding]:
    expected = _expected(row, row.recorded)
    # What the row says its history has, and what it says in all.
    if row.used != expected or row.used_before_bucket != (row.recorded if row.is_open else expected):
        stored = row.used if row.used != expected else row.used_before_bucket
        yield _finding(Problem.DRIFT, row, stored=stored, expected=expected)
    if row.has_negative or min(row.used, row.used_before_bucket, row.refused, row.refused_before_bucket) < 0:
        yield _finding(Problem.NEGATIVE, row)
    if row.has_stray:
        yield _finding(Problem.STRAY, row)
    if not row.is_open and not row.is_told:
        yield _finding(Problem.UNTOLD, row)
    # Nothing can be taken from a closed period any more: what is on lease there is only settled.
    if row.on_lease != (lent := row.lent if row.is_open else 0):
        yield _finding(Problem.MISLENT, row, stored=row.on_lease, expected=lent)


def _between(earlier: Any, later: Any) -> Iterator[Finding]:
    if earlier.is_open or earlier.end is None or later.start < earlier.end:
        yield _finding(Problem.OVERLAP, earlier)
    # Between two periods nobody may have used anything, but what closed the first opened one that contains that moment.
    elif earlier.closed_at is not None and later.start > earlier.closed_at:
        yield _finding(Problem.GAP, earlier)


def _expected(row: UsagePeriod, recorded: int) -> int:
    """Return what the period has used if its history rows add up to `recorded`."""
    if row.is_open:
        return recorded + row.used - row.used_before_bucket
    # Rows that were pruned are in the period's number only.
    return recorded if row.pruned_at is None else max(recorded, row.used_before_bucket)


def _finding(problem: Problem, row: UsagePeriod, *, stored: int | None = None, expected: int | None = None) -> Finding:
    return Finding(
        problem=problem,
        organization_id=row.organization_id,
        meter=row.meter,
        period_id=row.pk,
        start=row.start,
        stored=stored,
        expected=expected,
    )


def _try_to_repair(finding: Finding, *, reason: str, now: datetime, using: str) -> Finding:
    try:
        if finding.problem == Problem.MISLENT:
            return _repair_on_lease(finding, now=now, using=using)
        return _repair(finding, reason=reason, now=now, using=using)
    except (DatabaseError, OrganizationGone, UnknownMeter):
        logger.exception("The period %s was not repaired.", finding.period_id)
        return finding


@retried
def _repair(finding: Finding, *, reason: str, now: datetime, using: str) -> Finding:
    """Set the drifted period to what its history says now, under lock, and record it; return what was done."""
    with locked(finding.organization_id, finding.meter, now=now, using=using) as [ledger]:
        row = _locked_row(finding, ledger)
        # Locking, so that MariaDB reads what is committed now, as it did the period.
        history = row.history.using(using).select_for_update()
        recorded = sum(history.values_list("used", flat=True))
        expected = _expected(row, recorded)
        stored = row.used if row.used != expected else row.used_before_bucket
        row.used, row.used_before_bucket = expected, recorded if row.is_open else expected
        if row is not ledger.row:
            row.save(using=using, update_fields=["used", "used_before_bucket"])
        # An event tells of the open period; this says which one was mended.
        recomputed = {"start": row.start.isoformat(), "end": None if row.end is None else row.end.isoformat()}
        ledger.record(
            UsageEvent.Kind.ADJUSTED,
            period=row,
            reason=reason,
            previous_used=stored,
            recomputed_used=expected,
            recomputed_period=recomputed,
        )
    return replace(finding, stored=stored, expected=expected, repaired=True)


@retried
def _repair_on_lease(finding: Finding, *, now: datetime, using: str) -> Finding:
    """Set what a period has on lease to what its leases have left now, under lock; return what was done."""
    with locked(finding.organization_id, finding.meter, now=now, using=using) as [ledger]:
        row = _locked_row(finding, ledger)
        leases = _live_leases(using).filter(period=row).select_for_update()
        lent = sum(leases.values_list(LEFT, flat=True)) if row.is_open else 0
        stored, row.on_lease = row.on_lease, lent
        if row is not ledger.row:
            row.save(using=using, update_fields=["on_lease"])
    return replace(finding, stored=stored, expected=lent, repaired=True)


def _locked_row(finding: Finding, ledger: Ledger) -> UsagePeriod:
    """Return the period that was found, under lock: the ledger's own row if it is still the open one."""
    if ledger.row.pk == finding.period_id:
        return ledger.row
    return UsagePeriod.objects.using(ledger.using).select_for_update().get(pk=finding.period_id)
