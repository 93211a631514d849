"""Closing periods: by hand, and when their time has come."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.db import connections, router

from usage_tracking.closings import Closings, close_alike, expired_periods
from usage_tracking.counters import settled
from usage_tracking.deadlocks import retried
from usage_tracking.events import deferred_delivery, dispatch, newest_event
from usage_tracking.exceptions import OrganizationGone
from usage_tracking.leases import bury_lost_leases
from usage_tracking.ledger import instant
from usage_tracking.models import UsagePeriod, UsageTrackedOrganization
from usage_tracking.organizations import database_of, key_of
from usage_tracking.periods import ResetMode
from usage_tracking.plans import meter_named
from usage_tracking.quotas import DEFAULT_METER, Usage, validate_amount

__all__ = ["ResetReport", "areset", "areset_expired", "reset", "reset_expired"]

logger = logging.getLogger(__name__)

BATCH: Final = 2000
"""Organizations reset in one transaction: so many wait for it, should they be used at that moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetReport:
    """What one run of `reset_expired()` did."""

    closed: int
    """Periods closed, those that a late run gave to elapsed intervals included."""
    organizations_affected: int
    failed: int = 0
    """Periods that could not be closed; each is in the log, and the next run tries it again."""
    more: bool = False
    """Whether `limit` has ended the run while expired organizations were left that it had not tried."""


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
    now, key, using = instant(now), key_of(organization), database_of(organization)
    with settled(key, meter, now=now, using=using, visitor=ResetMode.MANUAL) as [ledger]:
        ledger.sign_closings(actor=actor, reason=reason)
        if not ledger.closed or ledger.row.used or ledger.row.refused:
            ledger.close_now()
    return ledger.usage()


def reset_expired(
    now: datetime | None = None,
    organizations: Iterable[UsageTrackedOrganization] | None = None,
    *,
    limit: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> ResetReport:
    """Close every period that has ended by `now` and is not closed yet, lazy ones too; manual ones never end.

    Organizations are reset many at a time, and one by one where there is more to do than to begin anew. Each time is
    one transaction, so a run that dies loses nothing and the next goes on; several runs at once share the work and
    close each period once; a second run changes nothing. `organizations` (default: all) narrows it down, `limit` ends
    the run after so many organizations, and `progress` is called with how many have just been dealt with.

    When a run comes late, every elapsed interval that had usage becomes a period of its own. An organization that
    cannot be reset (its `get_usage_plan()` raises, say) is logged and stands in nobody's way. What a crash has left, in
    the outbox or on lease, is seen to as well. Raises InvalidAmount unless `limit` is a positive whole number, or None.
    """
    now = instant(now)
    if limit is not None:
        validate_amount(limit, field="limit")
    using = router.db_for_write(UsagePeriod)
    narrowed = None if organizations is None else list(dict.fromkeys(map(key_of, organizations)))
    closed = affected = failed = 0
    more = False
    for close in (_close_together, _close_each):
        keys = _expired_organizations(now, using, narrowed)
        while page := list(islice(keys, BATCH if limit is None else min(BATCH, limit - affected))):
            # Until its next vacuum PostgreSQL reads past all that has been delivered, which would be more each time.
            before = newest_event(using)
            with deferred_delivery() as outboxes:
                closings = close(page, now, using)
            dispatch(outboxes, after=before)
            closed += closings.closed
            affected += closings.organizations
            failed += closings.failed
            if progress is not None:
                progress(closings.organizations if close is _close_together else len(page))
        if affected == limit:
            untried = keys if close is _close_each else _expired_organizations(now, using, narrowed)
            more = next(untried, None) is not None
            break
    bury_lost_leases(using)
    if not connections[using].in_atomic_block:
        dispatch([using])  # all of it: what a crash has left in the outbox
    return ResetReport(closed=closed, organizations_affected=affected, failed=failed, more=more)


def _expired_organizations(now: datetime, using: str, narrowed: Sequence[Any] | None) -> Iterator[Any]:
    """Yield the key of each organization, or of each `narrowed` one, that has an expired period, as the caller goes."""
    expired = expired_periods(now, using).order_by("organization_id").values_list("organization_id", flat=True)
    if narrowed is not None:
        for number in range(0, len(narrowed), BATCH):
            yield from dict.fromkeys(expired.filter(organization_id__in=narrowed[number : number + BATCH]))
        return
    page = list(dict.fromkeys(expired[:BATCH]))
    while page:
        yield from page
        page = list(dict.fromkeys(expired.filter(organization_id__gt=page[-1])[:BATCH]))


def _close_together(organizations: Sequence[Any], now: datetime, using: str) -> Closings:
    """Close the expired periods of these organizations that can be closed together: none of them, if one fails."""
    try:
        return close_alike(organizations, now, using)
    except Exception:
        logger.exception("%s organizations could not be reset together; they follow one by one.", len(organizations))
        return Closings(closed=0, organizations=0)


def _close_each(organizations: Sequence[Any], now: datetime, using: str) -> Closings:
    """Close the expired periods of these organizations one by one; whatever can be closed at all is closed here."""
    rows = expired_periods(now, using).filter(organization_id__in=organizations).order_by("organization_id", "meter")
    counts: Counter[object] = Counter()
    failed = 0
    for row in rows:
        try:
            counts[row.organization_id] += _close_expired(row, now, using)
        except Exception:
            logger.exception("The period %s of organization %s was not closed.", row.pk, row.organization_id)
            failed += 1
    return Closings(closed=counts.total(), organizations=len(+counts), failed=failed)


@retried
def _close_expired(row: UsagePeriod, now: datetime, using: str) -> int:
    """Close one expired period under lock, unless somebody else was quicker; return how many periods were closed."""
    try:
        with settled(row.organization_id, row.meter, now=now, using=using, visitor=ResetMode.SCHEDULED) as [ledger]:
            pass  # the visit closes what has ended
    except OrganizationGone:
        return 0
    return len(ledger.closed)


areset = sync_to_async(reset)
areset_expired = sync_to_async(reset_expired)
