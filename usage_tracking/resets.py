"""Closing periods: by hand, and when their time has come."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.db import connections, router

from usage_tracking.conf import usage_settings
from usage_tracking.deadlocks import retried
from usage_tracking.events import deferred_delivery, dispatch
from usage_tracking.exceptions import OrganizationGone
from usage_tracking.ledger import database_of, instant, key_of, locked
from usage_tracking.models import UsagePeriod, UsageTrackedOrganization
from usage_tracking.periods import ResetMode
from usage_tracking.plans import meter_named
from usage_tracking.quotas import DEFAULT_METER, Usage

__all__ = ["ResetReport", "areset", "areset_expired", "reset", "reset_expired"]

logger = logging.getLogger(__name__)

BATCH: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetReport:
    """What one run of `reset_expired()` did."""

    closed: int
    """Periods closed, those that a late run gave to elapsed intervals included."""
    organizations_affected: int
    failed: int = 0
    """Periods that could not be closed; each is in the log, and the next run tries it again."""


@retried
def reset(
    organization: UsageTrackedOrganization,
    meter: str = DEFAULT_METER,
    *,
    actor: Any = None,
    reason: str = "",
    now: datetime | None = None,
) -> Usage:
    """Close the open period of a meter now and open [now, next boundary); return the new state.

    A period that has ended already is closed at its end, as its own reset would have done. Records a `reset` event
    with `actor` (a user) and `reason`. Raises UnknownMeter or OrganizationGone.
    """
    meter_named(meter)
    now = instant(now)
    with locked(key_of(organization), meter, now=now, using=database_of(organization), visitor=ResetMode.MANUAL) as [
        ledger
    ]:
        ledger.sign_closings(actor=actor, reason=reason)
        if not ledger.closed or ledger.row.used or ledger.row.refused:
            ledger.close_now()
    return ledger.usage()


def reset_expired(
    now: datetime | None = None, organizations: Iterable[UsageTrackedOrganization] | None = None
) -> ResetReport:
    """Close every period that has ended by `now` and is not closed yet, lazy ones too; manual ones never end.

    Each organization is one transaction, so a run that dies loses nothing and the next goes on; several runs at once
    close each period once; a second run changes nothing. `organizations` (default: all) narrows it down. When a run
    comes late, every elapsed interval that had usage becomes a period of its own. An organization that cannot be
    reset (its `get_usage_plan()` raises, say) is logged and stands in nobody's way. Events that a crash has left in
    the outbox are delivered too.
    """
    now = instant(now)
    using = router.db_for_write(UsagePeriod)
    # Meters that the settings no longer name have no terms to open a next period under.
    meters = list(usage_settings.METERS)
    expired = UsagePeriod.objects.using(using).filter(is_open=True, end__lte=now, meter__in=meters)
    if organizations is not None:
        expired = expired.filter(organization_id__in=[key_of(organization) for organization in organizations])
    closed, failed, last = 0, 0, 0
    affected: set[object] = set()
    while batch := list(expired.filter(pk__gt=last).order_by("pk")[:BATCH]):
        last = batch[-1].pk
        with deferred_delivery() as outboxes:
            counts = {row.organization_id: 0 for row in batch}
            for row in batch:
                try:
                    counts[row.organization_id] += _close_expired(row, now, using)
                except Exception:
                    logger.exception("The period %s of organization %s was not closed.", row.pk, row.organization_id)
                    failed += 1
        dispatch(outboxes)
        closed += sum(counts.values())
        affected.update(organization for organization, count in counts.items() if count)
    if not connections[using].in_atomic_block:
        dispatch([using])  # what a crash has left in the outbox
    return ResetReport(closed=closed, organizations_affected=len(affected), failed=failed)


@retried
def _close_expired(row: UsagePeriod, now: datetime, using: str) -> int:
    """Close one expired period under lock, unless somebody else was quicker; return how many periods were closed."""
    try:
        with locked(row.organization_id, row.meter, now=now, using=using, visitor=ResetMode.SCHEDULED) as [ledger]:
            pass  # the visit closes what has ended
    except OrganizationGone:
        return 0
    return len(ledger.closed)


areset = sync_to_async(reset)
areset_expired = sync_to_async(reset_expired)
