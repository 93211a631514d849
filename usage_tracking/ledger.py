"""The slow path: one organization's meter under lock.

Whatever is exact happens here, once: buckets and periods are closed, limits derived again, amounts past a rail
counted or refused, thresholds announced, new rails set; all in one transaction, with the organization's row locked
first and the open period's second. A request between the rails never comes here (see `counters.exact`).
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from django.db import transaction
from django.db.models import F, Model, QuerySet
from django.utils import timezone
from django.utils.translation import gettext

from usage_tracking import events, lending, refusals
from usage_tracking.conf import LostLease, usage_settings
from usage_tracking.databases import home_of, locking
from usage_tracking.exceptions import InvalidAmount, InvalidInput
from usage_tracking.models import (
    UsageEvent,
    UsageHistory,
    UsageLease,
    UsagePeriod,
    UsageTrackedOrganization,
)
from usage_tracking.organizations import lock_organization
from usage_tracking.periods import FIRST_YEAR, LAST_YEAR, Period, ResetMode
from usage_tracking.plans import Terms, meter_named, terms_of
from usage_tracking.quotas import MAX_AMOUNT, Charge, Enforcement, Usage, ceiling_of, crossed, next_checkpoint

__all__ = [
    "Ledger",
    "SpentLease",
    "bucket_of",
    "closing_of",
    "delete_usage",
    "instant",
    "is_governed_by",
    "locked",
    "opened",
    "usage_from",
]

TICK: Final = timedelta(microseconds=1)
"""The finest step the databases store: the shortest a period can be."""


class SpentLease(NamedTuple):
    """A lease as its holder hands it in."""

    pk: int
    spent: int
    """In all, since it was lent."""


NOTHING: Final[Mapping[str, SpentLease]] = MappingProxyType({})


def instant(moment: datetime | None, *, field: str = "now") -> datetime:
    """Return `moment`, or the current time if it is None.

    Raises InvalidInput naming `field` unless it is aware and in the years that calendars cover.
    """
    if moment is None:
        return timezone.now()
    if not isinstance(moment, datetime) or moment.utcoffset() is None or not FIRST_YEAR < moment.year < LAST_YEAR:
        message = gettext("%(field)s must be an aware datetime after %(first)s and before %(last)s, not %(value)r.")
        message %= {"field": field, "first": FIRST_YEAR, "last": LAST_YEAR, "value": moment}
        raise InvalidInput(message, field=field)
    return moment


@contextmanager
def locked(
    key: object,
    *meters: str,
    now: datetime,
    using: str,
    every: bool = False,
    visitor: ResetMode = ResetMode.LAZY,
    leases: Mapping[str, SpentLease] = NOTHING,
) -> Iterator[list["Ledger"]]:
    """Lock the organization with this key and open the ledgers of some meters (`every`: also all that are in use).

    Each has closed what has ended by `now` and is governed by today's terms. `visitor` says who comes: a request
    (lazy) leaves an expired scheduled period to its job; the job (scheduled) and a person (manual) close any. `leases`
    are those that whoever comes has on the meters: they are settled before anything else. What the block does to the
    ledgers is written when it ends, and undone if it raises.
    """
    with transaction.atomic(using=using):
        organization = lock_organization(key, using)
        names = set(meters)
        if every:
            open_rows = UsagePeriod.objects.using(using).filter(organization_id=organization.pk, is_open=True)
            names |= usage_settings.METERS.keys() & open_rows.values_list("meter", flat=True)
        ledgers = [
            Ledger(organization, meter, now=now, using=using, visitor=visitor, lease=leases.get(meter))
            for meter in sorted(names)
        ]
        yield ledgers
        for ledger in ledgers:
            ledger.write()
        # Once for all events: each dispatch asks the outbox, or a broker that may be down.
        if any(ledger.has_news for ledger in ledgers):
            events.dispatch_after_commit(using)


class Ledger:
    """One meter's open period, locked; made and written by `locked()`."""

    def __init__(
        self,
        organization: UsageTrackedOrganization,
        meter: str,
        *,
        now: datetime,
        using: str,
        visitor: ResetMode,
        lease: SpentLease | None,
    ) -> None:
        self.organization = organization
        self.terms: Terms = terms_of(organization, meter_named(meter))
        self.using = using
        self.visitor = visitor
        self.refused = False
        self.has_news = False
        self.closed: list[UsagePeriod] = []
        self._late: set[int] = set()
        self._closing_details: dict[str, Any] = {}
        self._lowered = False
        row = self._rows().filter(is_open=True).select_for_update().first()
        # A clock that lags behind the one that opened the bucket must not write into the past.
        self.now = now if row is None else max(now, row.bucket_start)
        self.row = row or self._open(self.terms.period_at(self.now))
        if lease is not None:
            self._settle(lease)
        self.govern(self.terms)

    @property
    def key(self) -> refusals.Key:
        """The name of this meter in the memory of refusals."""
        return home_of(self.using), self.organization.pk, self.terms.meter

    # -- time passes --------------------------------------------------------------------------------------------------

    def _roll(self) -> None:
        """Close the bucket that has ended, and the period, unless a scheduled one waits for its job."""
        if self.row.checkpoint_at <= self.now:
            self._close_bucket(self.row.checkpoint_at)
        scheduled = self.row.reset_mode == self.terms.reset_mode == ResetMode.SCHEDULED
        if self.row.has_ended(self.now) and not (scheduled and self.visitor == ResetMode.LAZY):
            self._close_period()

    def _close_bucket(self, end: datetime) -> None:
        """Write the open bucket into history as [bucket_start, end) and open the one that contains `now`."""
        row = self.row
        bucket = UsageHistory(**bucket_of(row, end))
        # What is on lease may have been spent in this bucket, and is yet to be settled there.
        if bucket.used or bucket.refused or row.on_lease:
            bucket.save(using=self.using)
        row.used_before_bucket, row.refused_before_bucket = row.used, row.refused
        # What comes after the period's end must be told apart from it, also where that is no boundary any more.
        earliest = max(end, row.end) if row.end and row.has_ended(self.now) else end
        row.bucket_start = self.terms.bucket_start_at(self.now, earliest)
        row.checkpoint_at = self.terms.bucket_end_after(self.now)

    def _close_period(self) -> None:
        """Close the expired row and open the period that contains `now`.

        Usage after the row's end (a scheduled period goes on until its job comes) moves out of it: every elapsed
        interval that had usage becomes a closed period of its own, the latest carries on in the new open row. A bucket
        is never split: after a change of calendar it may outlast the interval that it began in, which then ends later.
        """
        old, ended = self.row, self.row.end
        assert ended is not None  # noqa: S101 - callers have asked has_ended()
        *elapsed, (current, carried) = self._intervals_since(ended)
        carries_bucket = old.bucket_start >= ended
        begun = [row.start for row in carried] + [old.bucket_start] * carries_bucket
        new = self._open(Period(min([current.start, *begun]), current.end))
        new.used_before_bucket, new.refused_before_bucket = _totals(carried)
        new.used, new.refused = new.used_before_bucket, new.refused_before_bucket
        if carries_bucket:
            new.used += old.used - old.used_before_bucket
            new.refused += old.refused - old.refused_before_bucket
            new.bucket_start, new.checkpoint_at = old.bucket_start, old.checkpoint_at

        leases = self._leases().filter(period=old, bucket_start__gte=new.start, lost_at=None) if old.on_lease else None
        if leases is not None:
            new.on_lease = sum(lease.granted - lease.settled for lease in leases)
        used, refused = _totals(row for _, rows in elapsed for row in rows)
        old.used -= used + new.used
        old.refused -= refused + new.refused
        self._close(old, self.visitor)
        previous_end = ended
        for interval, rows in elapsed:
            end = max(min(interval.end or new.start, new.start), rows[-1].end)
            self._insert_closed(max(interval.start, previous_end), end, rows)
            previous_end = end
        new.save(using=self.using)
        if leases is not None:
            leases.update(period=new)
        self._move(carried, new)
        self.row = new

    def _intervals_since(self, ended: datetime) -> list[tuple[Period, list[UsageHistory]]]:
        """Return each interval after `ended` that had usage, with its history; the one that contains `now` is last."""
        late = self.row.history.using(self.using).filter(start__gte=ended).order_by("start") if self.row.pk else []
        intervals = [
            (interval, list(rows))
            for interval, rows in groupby(late, key=lambda row: self.terms.interval_at(row.start, ended))
        ]
        carried = intervals.pop()[1] if intervals and self.now in intervals[-1][0] else []
        current = self.terms.interval_at(self.now, intervals[-1][1][-1].end if intervals else ended)
        return [*intervals, (current, carried)]

    def close_now(self) -> None:
        """Close the open row at `now`, before its time, and open [now, next boundary): a manual reset."""
        old = self.row
        # Two resets in one microsecond must not make an empty period.
        self.now = max(self.now, old.bucket_start + TICK, old.start + TICK)
        self._close_bucket(self.now)
        old.end = self.now
        self._close(old, ResetMode.MANUAL)
        self.row = self._open(Period(self.now, self.terms.end_after(self.now)))
        self.row.save(using=self.using)

    def _open(self, period: Period) -> UsagePeriod:
        row = opened(self.terms, period, self.now)
        row.organization_id = self.organization.pk
        return row

    def _close(self, row: UsagePeriod, closed_by: ResetMode) -> None:
        for name, value in closing_of(row, closed_by, self.now).items():
            setattr(row, name, value)
        row.save(using=self.using)
        self.closed.append(row)

    def _insert_closed(self, start: datetime, end: datetime, history: list[UsageHistory]) -> None:
        period, old = self._open(Period(start, end)), self.row
        period.limit, period.enforcement, period.reset_mode = old.limit, old.enforcement, old.reset_mode
        period.used, period.refused = _totals(history)
        self._close(period, self.visitor)
        self._move(history, period)

    def _move(self, history: list[UsageHistory], period: UsagePeriod) -> None:
        if history:
            moved = UsageHistory.objects.using(self.using).filter(pk__in=[row.pk for row in history])
            moved.update(period=period)

    # -- terms change -------------------------------------------------------------------------------------------------

    def govern(self, terms: Terms) -> None:
        """Hold the open row to `terms`: it keeps `start` and `used`, and its `end` moves to the next boundary.

        With the end, the bucket is cut: a clock that lags behind this one would find an earlier boundary, and is kept
        from it by the bucket's start.
        """
        self.terms = terms
        self._roll()
        row = self.row
        if row.limit != terms.limit:
            self._lowered |= terms.limit is not None and (row.limit is None or terms.limit < row.limit)
        row.limit, row.enforcement, row.reset_mode = terms.limit, terms.enforcement, terms.reset_mode
        boundary = terms.end_after(self.now)
        if row.end != boundary and not row.has_ended(self.now):
            row.end = boundary
            if row.bucket_start < self.now:
                self._close_bucket(self.now)
        row.checkpoint_at = min(row.checkpoint_at, boundary or row.checkpoint_at)

    # -- amounts ------------------------------------------------------------------------------------------------------

    def take(self, amount: int, *, refusable: bool = True) -> Charge | None:
        """Count `amount`, or refuse it: None when hard enforcement has no room and it is `refusable`."""
        row = self.row
        if refusable and row.limit is not None and row.enforcement == Enforcement.HARD and amount > self.room:
            if row.on_lease:
                self.bury_lost()
            if amount > self.room:
                row.refused += 1
                # What is on lease may come back unspent: only what is used exceeds a limit.
                if row.used + amount > row.limit:
                    self.refused = True
                else:
                    row.called_back_at = timezone.now()
                return None
        self._add(amount, field="amount")
        if row.pk is None:
            row.save(using=self.using)
        return self._charge(amount)

    @property
    def room(self) -> int:
        """What is neither used nor on lease, and may be taken or lent; below 0 if a limit was lowered."""
        return ceiling_of(self.row.limit, Enforcement(self.row.enforcement)) - self.row.used - self.row.on_lease

    def count_refusals(self) -> int:
        """Count what this process has refused from memory since its last visit; return how many."""
        count = refusals.pending(self.key)
        self.row.refused += count
        return count

    def set_used(self, used: int) -> None:
        """Set what the open period has used: more goes into the open bucket, less comes out of the newest ones."""
        difference = used - self.row.used
        if difference > 0:
            self._add(difference, field="used")
        else:
            self.give_back(-difference)

    def give_back(self, amount: int) -> int:
        """Take `amount` out of the open period, from its newest buckets first, never below zero; return how much."""
        row = self.row
        from_bucket = min(amount, row.used - row.used_before_bucket)
        row.used -= from_bucket
        left = amount - from_bucket
        for history in row.history.using(self.using).order_by("-start").iterator() if left and row.pk else ():
            left += self._add_to(history, -left)
            if not left:
                break
        return amount - left

    def give_back_charge(self, charge: Charge) -> int:
        """Take a charge back out of the period and bucket it went to, open or closed; return how much came back."""
        if charge.bucket_start == self.row.bucket_start:
            given = min(charge.amount, self.row.used - self.row.used_before_bucket)
            self.row.used -= given
            return given
        bucket = self._bucket(charge.bucket_start)
        return 0 if bucket is None else -self._add_to(bucket, -charge.amount)

    def _bucket(self, start: datetime) -> UsageHistory | None:
        """Lock and return the closed bucket that begins at `start`, in whichever period."""
        buckets = UsageHistory.objects.using(self.using).filter(organization_id=self.organization.pk)
        return buckets.filter(meter=self.terms.meter, start=start).select_for_update().first()

    def _add_to(self, history: UsageHistory, amount: int) -> int:
        """Add to one history row and its period, or take out what is there if `amount` is negative; return how much."""
        added = max(amount, -history.used)
        UsageHistory.objects.using(self.using).filter(pk=history.pk).update(used=F("used") + added)
        if history.period_id == self.row.pk:
            self.row.used_before_bucket += added
            self.row.used += added
        else:
            closed = UsagePeriod.objects.using(self.using).filter(pk=history.period_id)
            closed.update(used=F("used") + added, used_before_bucket=F("used_before_bucket") + added)
            if added > 0:
                self._late.add(history.period_id)
        return added

    def _add(self, amount: int, *, field: str) -> None:
        if self.row.used + amount > MAX_AMOUNT:
            message = gettext("%(field)s would bring used past %(maximum)s.")
            message %= {"field": field, "maximum": MAX_AMOUNT}
            raise InvalidAmount(message, field=field)
        self.row.used += amount

    def _charge(self, amount: int) -> Charge:
        return Charge(
            database=self.using,
            organization_id=self.organization.pk,
            meter=self.terms.meter,
            amount=amount,
            period_id=self.row.pk,
            bucket_start=self.row.bucket_start,
        )

    # -- leases -------------------------------------------------------------------------------------------------------

    def share(self, wanted: int) -> int:
        """Return how much of `wanted` may be lent now; 0 if that is nothing."""
        row, options = self.row, usage_settings.LEASE
        if lending.is_called_back(row.called_back_at, timezone.now(), options.settle_seconds):
            return 0
        return lending.share(wanted, self.room, on_lease=row.on_lease)

    def lend(self, amount: int, *, holder: str, expires_at: datetime) -> UsageLease:
        """Put `amount` of the open period's room on lease."""
        if self.row.pk is None:
            self.row.save(using=self.using)
        lease = UsageLease(
            organization_id=self.organization.pk,
            meter=self.terms.meter,
            period=self.row,
            bucket_start=self.row.bucket_start,
            holder=holder,
            granted=amount,
            expires_at=expires_at,
        )
        lease.save(using=self.using, force_insert=True)
        self.row.on_lease += amount
        return lease

    def _settle(self, ended: SpentLease) -> None:
        """Count what a lease has spent, in the bucket it was lent from, open or closed, and end it.

        A lease that is gone was settled by a transaction whose commit its holder did not learn of.
        """
        lease = self._leases().filter(pk=ended.pk).select_for_update().first()
        if lease is not None:
            self._release(lease)
            self._settle_in(lease.bucket_start, ended.spent - lease.settled - lease.charged)
            self._leases().filter(pk=ended.pk).delete()
            # Under the limit that it was spent under, and before its period is closed perhaps.
            self._announce(self.row)

    def bury_lost(self) -> int:
        """Give up the leases whose holders are believed dead, by the real clock; return how much they had on lease.

        What was lost is charged in its bucket, or forgiven, and recorded for staff to decide otherwise.
        """
        real = timezone.now()
        lost = list(self._leases().filter(lost_at=None, expires_at__lte=real).select_for_update())
        for lease in lost:
            amount = lease.granted - lease.settled
            self._release(lease)
            lease.lost_at = real
            lease.charged = amount if usage_settings.LEASE.lost == LostLease.CHARGE else 0
            lease.save(using=self.using)
            self._settle_in(lease.bucket_start, lease.charged)
            if amount:
                details = {"amount": amount, "charged": lease.charged, "holder": lease.holder}
                self.record(UsageEvent.Kind.LEASE_LOST, **details)
        return sum(lease.granted - lease.settled for lease in lost)

    def _release(self, lease: UsageLease) -> None:
        # A closed period has nothing on lease: nothing can be taken from it any more.
        if lease.lost_at is None and lease.period_id == self.row.pk:
            self.row.on_lease -= lease.granted - lease.settled

    def _settle_in(self, bucket_start: datetime, amount: int) -> None:
        """Count, or give back if negative, in the bucket that began then; in the open one if that was pruned."""
        bucket = None if bucket_start == self.row.bucket_start else self._bucket(bucket_start)
        if bucket is not None:
            self._add_to(bucket, amount)
        else:
            self.row.used = max(self.row.used + amount, self.row.used_before_bucket)

    def _leases(self) -> QuerySet[UsageLease]:
        return UsageLease.objects.using(self.using).filter(organization_id=self.organization.pk, meter=self.terms.meter)

    # -- writing ------------------------------------------------------------------------------------------------------

    def usage(self) -> Usage:
        """Return the state of the open period."""
        return usage_from(self.row, self.now)

    def record(self, kind: UsageEvent.Kind, **details: Any) -> UsageEvent:
        """Record one event, about the open period unless the details say otherwise (see `events.record`)."""
        if self.row.pk is None:
            self.row.save(using=self.using)
        event = events.record(
            kind,
            self.organization,
            **{"period": self.row, "state": self.row, **details},
            plan=self.terms.plan,
            now=self.now,
            using=self.using,
        )
        self.has_news |= event.delivered_at is None
        return event

    def write(self) -> None:
        """Write the row, its new rails and the events; what this process remembers of refusals is void after it."""
        row = self.row
        self.count_refusals()
        row.checkpoint_used = _amount_rail(row)
        row.save(using=self.using)
        for closed in self.closed:
            details = events.reset_details(f"{events.RESET_KEY}{closed.pk}", closed.closed_by, closed.used)
            self.record(UsageEvent.Kind.RESET, period=closed, **details, **self._closing_details)
        self._announce(row, refused=self.refused or (self._lowered and row.limit == 0))
        for late in UsagePeriod.objects.using(self.using).filter(pk__in=self._late):
            self._announce(late)
        # Now, as the caller's transaction may go on to ask, and again once others can see what has changed.
        refusals.forget(self.key)
        transaction.on_commit(partial(refusals.forget, self.key), using=self.using)

    def sign_closings(self, *, actor: Any, reason: str) -> None:
        """Put who and why on the reset events of this ledger."""
        self._closing_details = {"actor": actor, "reason": reason}

    def _announce(self, row: UsagePeriod, *, refused: bool = False) -> None:
        """Record each threshold that a period has reached under its limit and that is not on record yet."""
        due = crossed(row.used, row.limit, [*usage_settings.THRESHOLDS, 100])
        if refused:
            due.append(100)
        keys = {f"threshold:{row.pk}:{row.limit}:{percent}": percent for percent in due}
        if not keys:
            return
        # A locking read: under REPEATABLE READ a plain one may be older than our lock. In the order of deliveries.
        told = set(
            UsageEvent.objects.using(self.using)
            .select_for_update()
            .filter(dedupe_key__in=keys)
            .order_by("pk")
            .values_list("dedupe_key", flat=True)
        )
        for key, percent in keys.items():
            if key not in told:
                kind = UsageEvent.Kind.EXCEEDED if percent == 100 else UsageEvent.Kind.WARNING
                self.record(kind, period=row, state=row, threshold=percent, dedupe_key=key)

    def _rows(self) -> QuerySet[UsagePeriod]:
        return UsagePeriod.objects.using(self.using).filter(
            organization_id=self.organization.pk, meter=self.terms.meter
        )


# -- what is written ---------------------------------------------------------------------------------------------------


def bucket_of(row: Any, end: Any) -> dict[str, Any]:
    """Return what history keeps of a row's open bucket, which ends at `end`.

    The row is a UsagePeriod or, where many are written at once, its columns as expressions; so are the values.
    """
    return {
        "organization_id": row.organization_id,
        "meter": row.meter,
        "period_id": row.pk,
        "start": row.bucket_start,
        "end": end,
        "used": row.used - row.used_before_bucket,
        "refused": row.refused - row.refused_before_bucket,
    }


def closing_of(row: Any, closed_by: ResetMode, now: datetime) -> dict[str, Any]:
    """Return what changes in a row that is closed, all its buckets being history: as in `bucket_of`."""
    return {
        "is_open": None,
        "closed_at": now,
        "closed_by": closed_by,
        "bucket_start": row.end,
        "checkpoint_at": row.end,
        "used_before_bucket": row.used,
        "refused_before_bucket": row.refused,
        "on_lease": 0,
    }


def opened(terms: Terms, period: Period, now: datetime) -> UsagePeriod:
    """Return the row that is open from now on, with nothing used; nobody's yet and not saved."""
    start = terms.bucket_start_at(now, period.start)
    row = UsagePeriod(
        meter=terms.meter,
        start=period.start,
        end=period.end,
        limit=terms.limit,
        enforcement=terms.enforcement,
        reset_mode=terms.reset_mode,
        bucket_start=start,
        checkpoint_at=terms.bucket_end_after(max(now, start)),
    )
    row.checkpoint_used = _amount_rail(row)
    return row


def _amount_rail(row: UsagePeriod) -> int:
    enforcement = Enforcement(row.enforcement)
    return next_checkpoint(row.used, row.limit, enforcement, usage_settings.THRESHOLDS, on_lease=row.on_lease)


def _totals(history: Iterable[UsageHistory]) -> tuple[int, int]:
    """Return what the rows have used and refused together."""
    rows = list(history)
    return sum(row.used for row in rows), sum(row.refused for row in rows)


def usage_from(row: UsagePeriod, now: datetime) -> Usage:
    """Return the state of a row as a value."""
    return Usage(
        meter=row.meter,
        used=row.used,
        limit=row.limit,
        period=row.span,
        enforcement=Enforcement(row.enforcement),
        expired=row.has_ended(now),
    )


def is_governed_by(row: UsagePeriod, terms: Terms, now: datetime) -> bool:
    """Return whether an open row holds to `terms` already. An expired one keeps its end until it is closed."""
    return (row.limit, row.enforcement, row.reset_mode) == (terms.limit, terms.enforcement, terms.reset_mode) and (
        row.has_ended(now) or row.end == terms.end_after(max(now, row.start))
    )


def delete_usage(*, instance: Model, using: str, **_: Any) -> None:
    """Receiver of `pre_delete`: remove all usage of an organization under its lock, in the deleting transaction."""
    locking(type(instance)._base_manager.using(using).filter(pk=instance.pk)).first()
    for model in (UsageEvent, UsageLease, UsageHistory, UsagePeriod):
        model._base_manager.using(using).filter(organization_id=instance.pk).delete()
