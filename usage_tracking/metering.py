"""Counting: what an organization consumes is taken, refused, given back, corrected and told.

Every function has an async twin with an `a` before its name, which runs it in one hop to a thread.

Inside the caller's `transaction.atomic()` a call belongs to that transaction: rolled back, it never happened. What the
leased counter takes stays taken; it joins a transaction only where nobody else could count.

The clock is an argument (`now`, aware) for tests and imports; the default is the current time.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from time import time
from typing import Any, Final

from asgiref.sync import sync_to_async

from usage_tracking import refusals
from usage_tracking.conf import Meter, usage_settings
from usage_tracking.counters import counter_of, leased_counter, settled
from usage_tracking.databases import home_of
from usage_tracking.deadlocks import retried
from usage_tracking.exceptions import InvalidInput, OrganizationGone, UnknownMeter
from usage_tracking.history import HistoryPoint, histories_of, histories_of_each, history_of
from usage_tracking.ledger import instant, usage_from
from usage_tracking.models import UsageEvent, UsagePeriod, UsageTrackedOrganization, key_attribute
from usage_tracking.organizations import database_of, home_database, key_of, stored_organization
from usage_tracking.periods import ResetMode
from usage_tracking.plans import meter_named, meters_named, terms_of
from usage_tracking.quotas import (
    DEFAULT_METER,
    Decision,
    Enforcement,
    Usage,
    validate_amount,
    validate_count,
)

__all__ = [
    "HistoryPoint",
    "aadjust",
    "aconsume",
    "adjust",
    "ahistories_of",
    "ahistories_of_each",
    "ahistory_of",
    "arecord",
    "arefund",
    "ausage_of",
    "ausages_of",
    "awould_allow",
    "consume",
    "consume_at_once",
    "flush_refusals",
    "give_back",
    "histories_of",
    "histories_of_each",
    "history_of",
    "record",
    "refund",
    "usage_of",
    "usages_of",
    "would_allow",
]

SHADOW: Final = Enforcement.SHADOW  # an enum looks up its members each time

# Its own name, so that a host can route what shadow enforcement would have refused.
shadow_logger = logging.getLogger("usage_tracking.shadow")


def consume(
    organization: UsageTrackedOrganization,
    amount: int = 1,
    meter: str = DEFAULT_METER,
    *,
    now: datetime | None = None,
    using: str | None = None,
) -> Decision:
    """Take `amount` from the open period, or refuse it if hard enforcement has no room for it.

    The answer is truthy when the amount was taken. `using` is the alias to take it on (default: where the usage
    lives). Raises InvalidAmount, UnknownMeter, InvalidInput (no saved organization), OrganizationGone or a database
    error; nothing was taken then, unless the connection was lost together with the answer. With ENABLED = False
    nothing is taken and everything is allowed.
    """
    return _take(organization, amount, meter, now=now, using=using, refusable=True)


def record(
    organization: UsageTrackedOrganization,
    amount: int,
    meter: str = DEFAULT_METER,
    *,
    now: datetime | None = None,
    using: str | None = None,
) -> Decision:
    """Count an amount known only afterwards; never refuses, whatever the enforcement. Raises like `consume()`."""
    return _take(organization, amount, meter, now=now, using=using, refusable=False)


def would_allow(
    organization: UsageTrackedOrganization,
    amount: int = 1,
    meter: str = DEFAULT_METER,
    *,
    now: datetime | None = None,
) -> bool:
    """Return whether `consume()` would take the amount now; takes nothing. Raises like `consume()`.

    Like `consume()` it believes the open period between its rails, and past them what is stored on the organization.
    """
    validate_amount(amount)
    described = meter_named(meter)
    now = instant(now)
    using = database_of(organization)
    row = UsagePeriod.objects.using(using).filter(organization_id=organization.pk, meter=meter, is_open=True).first()
    if not usage_settings.ENABLED or (
        row is not None and row.checkpoint_at > now and row.used + amount < row.checkpoint_used
    ):
        return True
    terms = terms_of(stored_organization(organization.pk, using), described)
    if terms.limit is None or terms.enforcement != Enforcement.HARD:
        return True
    waits = row is not None and row.reset_mode == terms.reset_mode == ResetMode.SCHEDULED
    if row is None or (row.has_ended(now) and not waits):
        return amount <= terms.limit
    # What is on lease is as good as used, but for what this process has left of its own.
    used = row.used + row.on_lease - counter_of(meter).unspent(row)
    return used + amount <= terms.limit


@retried
def refund(
    what: Decision | UsageTrackedOrganization,
    amount: int | None = None,
    meter: str = DEFAULT_METER,
    *,
    actor: Any = None,
    reason: str = "",
    now: datetime | None = None,
) -> int:
    """Give back what a decision took, to the period and bucket that were charged, even if they are closed.

    `refund(organization, amount, meter=…)` gives back to the open period instead, from its newest buckets first.
    Never below zero; re-arms no announcement; records a `refunded` event. Returns the amount that came back. A refused
    decision gives back 0. Refund a decision once: this function cannot know what it gave back before.
    """
    now = instant(now)
    if isinstance(what, Decision):
        charge = what.charge
        if amount is not None:
            message = "amount is that of the decision; give one only with an organization."
            raise InvalidInput(message, field="amount")
        if charge is None:
            return 0
        key, meter, using = charge.organization_id, charge.meter, charge.database
    else:
        charge = None
        amount = validate_amount(amount)
        meter_named(meter)
        key, using = key_of(what), database_of(what)
    with settled(key, meter, now=now, using=using) as [ledger]:
        given = ledger.give_back(amount or 0) if charge is None else ledger.give_back_charge(charge)
        ledger.record(UsageEvent.Kind.REFUNDED, actor=actor, reason=reason, amount=given)
    return given


def give_back(decision: Decision, *, now: datetime | None = None) -> int:
    """Give back what a decision took, quietly: what a door does for a request that ended in a server error.

    Unlike `refund()` it leaves no audit event, since an outage would write one per request. Returns the amount.
    """
    if decision.charge is None:
        return 0
    return counter_of(decision.charge.meter).give_back(decision.charge, now=instant(now))


@retried
def adjust(
    organization: UsageTrackedOrganization,
    *,
    used: int,
    meter: str = DEFAULT_METER,
    actor: Any = None,
    reason: str = "",
    now: datetime | None = None,
) -> Usage:
    """Set what the open period has used: a correction by staff, or the import of an existing count.

    Thresholds that this reaches are announced. Records an `adjusted` event. Raises InvalidAmount naming `used`,
    UnknownMeter or OrganizationGone.
    """
    validate_count(used)
    meter_named(meter)
    with settled(key_of(organization), meter, now=instant(now), using=database_of(organization)) as [ledger]:
        previous = ledger.row.used
        ledger.set_used(used)
        ledger.record(UsageEvent.Kind.ADJUSTED, actor=actor, reason=reason, previous_used=previous)
    return ledger.usage()


def usage_of(
    organization: UsageTrackedOrganization, meter: str = DEFAULT_METER, *, now: datetime | None = None
) -> Usage:
    """Return what the organization has used of a meter. Reads one row and writes nothing.

    A lazy period that has ended is shown as the next one, at 0; a scheduled one as it is, `expired`.
    """
    return usages_of([organization], [meter], now=now)[organization.pk][meter]


def usages_of(
    organizations: Iterable[UsageTrackedOrganization],
    meters: Iterable[str] | None = None,
    *,
    now: datetime | None = None,
) -> dict[Any, dict[str, Usage]]:
    """Return {organization key: {meter: usage}}, as `usage_of` tells each, in one query however many there are.

    `meters` (default: all of METERS) keeps its order. Raises InvalidInput, UnknownMeter.
    """
    now = instant(now)
    described = meters_named(meters)
    by_database: dict[str, list[UsageTrackedOrganization]] = defaultdict(list)
    for organization in organizations:
        by_database[database_of(organization)].append(organization)
    usages: dict[Any, dict[str, Usage]] = {}
    for using, members in by_database.items():
        rows = UsagePeriod.objects.using(using).filter(
            organization_id__in=[organization.pk for organization in members],
            meter__in=[meter.name for meter in described],
            is_open=True,
        )
        open_rows = {(row.organization_id, row.meter): row for row in rows}
        for organization in members:
            usages[organization.pk] = {
                meter.name: _shown(open_rows.get((organization.pk, meter.name)), organization, meter, now)
                for meter in described
            }
    return usages


def _shown(row: UsagePeriod | None, organization: UsageTrackedOrganization, meter: Meter, now: datetime) -> Usage:
    if row is not None and (row.reset_mode == ResetMode.SCHEDULED or not row.has_ended(now)):
        # Used is, too, what this process has taken since it last settled.
        row.used += counter_of(meter.name).unsettled(row)
        return usage_from(row, now)
    terms = terms_of(organization, meter)
    return Usage(
        meter=meter.name, used=0, limit=terms.limit, period=terms.period_at(now), enforcement=terms.enforcement
    )


# -- housekeeping ------------------------------------------------------------------------------------------------------


def flush_refusals(*, now: datetime | None = None) -> int:
    """Write the refusals that this process has answered from memory and no row has counted yet; return how many.

    They are written by themselves when their meter next reaches the database; a process that ends may call this.
    """
    moment = instant(now)
    flushed = 0
    for using, pk, meter in refusals.waiting():
        try:
            flushed += _flush(pk, meter, now=moment, using=using)
        except (OrganizationGone, UnknownMeter):
            refusals.pending((using, pk, meter))  # there is no row left to count them in
    return flushed


@retried
def _flush(key: object, meter: str, *, now: datetime, using: str) -> int:
    with settled(key, meter, now=now, using=using) as [ledger]:
        return ledger.count_refusals()


def _take(
    organization: UsageTrackedOrganization,
    amount: int,
    meter: str,
    *,
    now: datetime | None,
    using: str | None,
    refusable: bool,
) -> Decision:
    _check(organization, amount, meter)
    if not usage_settings.ENABLED:
        return Decision(allowed=True, amount=amount, usage=usage_of(organization, meter, now=now))
    using = using or database_of(organization)
    decision = counter_of(meter).take(organization, amount, meter, now=instant(now), using=using, refusable=refusable)
    if refusable and decision.usage.enforcement is SHADOW:
        _log_shadow(decision, organization)
    return decision


def _check(organization: UsageTrackedOrganization, amount: int, meter: str) -> None:
    validate_amount(amount)
    if meter != DEFAULT_METER:  # that one is always there
        meter_named(meter)
    key_of(organization)


async def aconsume(
    organization: UsageTrackedOrganization,
    amount: int = 1,
    meter: str = DEFAULT_METER,
    *,
    now: datetime | None = None,
    using: str | None = None,
) -> Decision:
    """Do the same from the event loop, which it leaves only where the database must be asked."""
    _check(organization, amount, meter)
    if usage_settings.ENABLED:
        decision = consume_at_once(organization, amount, meter, now=now, using=using)
        if decision is not None:
            return decision
    return await sync_to_async(consume)(organization, amount, meter, now=now, using=using)


def consume_at_once(
    organization: UsageTrackedOrganization,
    amount: int,
    meter: str,
    *,
    now: datetime | None = None,
    using: str | None = None,
) -> Decision | None:
    """Take a valid amount of a saved organization, or refuse it, from memory; None if the database must be asked.

    Never waits, and does not ask whether counting is ENABLED.
    """
    if meter not in usage_settings.leased_meters:
        return None
    using = using or home_database(organization)
    key = home_of(using), getattr(organization, key_attribute()), meter
    timestamp = time() if now is None else instant(now).timestamp()
    decision = leased_counter.at_once(key, amount, timestamp, using=using)
    if decision is not None and decision.usage.enforcement is SHADOW:
        _log_shadow(decision, organization)
    return decision


def _log_shadow(decision: Decision, organization: UsageTrackedOrganization) -> None:
    """Log what hard enforcement would have refused."""
    usage = decision.usage
    if decision.allowed and usage.overage:
        shadow_logger.warning(
            "Organization %s used %s of %s %s; hard enforcement would have refused %s.",
            organization.pk,
            usage.used,
            usage.limit,
            usage.meter,
            decision.amount,
        )


arecord = sync_to_async(record)
awould_allow = sync_to_async(would_allow)
arefund = sync_to_async(refund)
aadjust = sync_to_async(adjust)
ausage_of = sync_to_async(usage_of)
ausages_of = sync_to_async(usages_of)
ahistory_of = sync_to_async(history_of)
ahistories_of = sync_to_async(histories_of)
ahistories_of_each = sync_to_async(histories_of_each)
