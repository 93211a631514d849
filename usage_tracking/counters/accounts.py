"""What a process knows by heart: an account for each organization's meter that it is asked for, perhaps with a lease.

What it tells the database are totals since a lease was lent, `spent` and `granted`, so that a settlement whose commit
was not heard of can be repeated.

There are two ways to settle. A visit to the ledger takes the lease with it: `hand_in`, then `end`, `reopen` if that was
undone, or `await_settlement` if nobody can tell. A batch goes on with it: `offer`, then `renew`, or `keep` if its turn
did not come.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import Enum, auto
from functools import lru_cache
from time import monotonic
from typing import Any, Final, Self, TypeVar

from django.db import connections

from usage_tracking.counters.settlement import Offer, Settled
from usage_tracking.databases import LOCK_WAIT_SECONDS, may_have_to_be_joined
from usage_tracking.deadlocks import LockTimeout, in_any_transaction
from usage_tracking.ledger import Ledger, SpentLease, locked
from usage_tracking.lending import Demand, kept
from usage_tracking.models import UsageLease, UsagePeriod
from usage_tracking.periods import Period
from usage_tracking.quotas import Charge, Decision, Enforcement, Usage

__all__ = ["BRIEFLY", "Account", "Lease", "Turns", "locked_with", "turn_of"]

Value = TypeVar("Value", Period, datetime, float)

BRIEFLY: Final = 0.1
"""Seconds to wait for what the caller's own transaction may hold; MariaDB waits for whole ones."""

IDLE: Final = Demand(0, 0)


@lru_cache(maxsize=1024)
def _shared(value: Value) -> Value:
    """Return one object for all that are equal: most leases are of the same period and bucket."""
    return value


class State(Enum):
    """How far what is on lease, and spent, is settled."""

    OPEN = auto()
    """What was settled is known, and what comes back may go into the lease."""
    IN_FLIGHT = auto()
    """A transaction is just writing what was spent."""
    PENDING = auto()
    """What was spent may have been written, and the lease ended: whoever settles next finds out."""


class Lease:
    """What this process has on lease of one open bucket."""

    __slots__ = (
        "begins", "bucket_start", "calls", "charge", "deadline", "ends", "enforcement", "expired", "granted", "kept",
        "limit", "marked", "passed_over", "period", "period_id", "pk", "settled", "spent", "state", "used",
    )  # fmt: skip

    def __init__(self, lease: UsageLease, row: UsagePeriod, *, deadline: float, now: datetime) -> None:
        self.pk = lease.pk
        self.granted = self.kept = lease.granted
        self.spent = self.settled = 0
        # What was spent when this settle interval began, and the calls since then.
        self.marked = self.calls = 0
        self.period_id, self.period, self.limit = row.pk, _shared(row.span), row.limit
        self.enforcement, self.expired = Enforcement(row.enforcement), row.has_ended(now)
        self.bucket_start = _shared(row.bucket_start)
        # Within which seconds since the epoch it may be spent: those of its bucket.
        self.begins, self.ends = _shared(row.bucket_start.timestamp()), _shared(row.checkpoint_at.timestamp())
        self.used = row.used
        self.charge: Charge | None = None
        # By the monotonic clock, until when nobody believes us dead.
        self.deadline = deadline
        self.state = State.OPEN
        # Whether it was left out when it was last to be settled, as its row was locked.
        self.passed_over = False

    def take_off(self) -> None:
        """Be on the way to the database; what is pending stays so."""
        if self.state is State.OPEN:
            self.state = State.IN_FLIGHT

    def land(self) -> None:
        """Be back from there, with nothing written."""
        if self.state is State.IN_FLIGHT:
            self.state = State.OPEN


class Account:
    """What this process knows of one organization's meter: less than a kilobyte, its lease included."""

    __slots__ = (
        "asked",
        "before",
        "began",
        "calls",
        "held_by",
        "lease",
        "lock",
        "may_be_joined",
        "meter",
        "organization_id",
        "rests_until",
        "turn",
        "using",
    )

    def __init__(self, using: str, organization_id: object, meter: str) -> None:
        self.using, self.organization_id, self.meter = using, organization_id, meter
        self.may_be_joined = may_have_to_be_joined(using)
        self.lease: Lease | None = None
        # Guards the numbers, for as long as it takes to change them.
        self.lock = threading.Lock()
        # Guards the way to the database: one at a time borrows, and the others wait for what it brings.
        self.turn = threading.Lock()
        # Units and calls beyond the lease in this settle interval, and what there was in the last one.
        self.asked = self.calls = 0
        self.before = IDLE
        # When this settle interval began, and until when there is nothing to borrow, by the monotonic clock.
        self.began = self.rests_until = 0.0
        # The mark of the caller's transaction that has locked the open row last: nobody else can count while it runs.
        self.held_by: Callable[[], None] | None = None

    def spend(self, amount: int, timestamp: float) -> Decision | None:
        """Take `amount` from the lease, at an instant in seconds since the epoch; None if it does not cover it."""
        with self.lock:
            lease = self.lease
            if (
                lease is None
                or lease.spent + amount > lease.granted
                or not lease.begins <= timestamp < lease.ends
                or monotonic() >= lease.deadline
            ):
                return None
            lease.spent += amount
            lease.calls += 1
            used = lease.used + lease.spent - lease.settled
            # What one request takes, most others take.
            charge = lease.charge
            if charge is None or charge.amount != amount:
                charge = lease.charge = self._charge(lease, amount)
        usage = Usage(self.meter, used, lease.limit, lease.period, lease.enforcement, lease.expired)
        return Decision(True, amount, usage, charge)  # noqa: FBT003 - by position, see quotas

    def _charge(self, lease: Lease, amount: int) -> Charge:
        return Charge(
            database=self.using,
            organization_id=self.organization_id,
            meter=self.meter,
            amount=amount,
            period_id=lease.period_id,
            bucket_start=lease.bucket_start,
        )

    def note(self, amount: int, interval: float) -> None:
        """Note what was asked for beyond the lease: it tells how busy the account is."""
        with self.lock:
            elapsed = monotonic() - self.began
            if elapsed >= interval:
                self._begin_interval()
                if elapsed >= 2 * interval:
                    self.before = IDLE
            self.asked += amount
            self.calls += 1

    def is_quiet(self, interval: float) -> bool:
        """Return whether there is nothing to know: no lease, and nobody who has asked for long."""
        return self.lease is None and monotonic() - self.began >= 2 * interval

    def _begin_interval(self) -> None:
        self.before = self._so_far
        self.asked, self.calls, self.began = 0, 0, monotonic()
        if self.lease is not None:
            self.lease.marked, self.lease.calls = self.lease.spent, 0

    @property
    def _so_far(self) -> Demand:
        lease = self.lease
        if lease is None:
            return Demand(self.asked, self.calls)
        return Demand(self.asked + max(lease.spent - lease.marked, 0), self.calls + lease.calls)

    @property
    def keeps(self) -> int:
        """How many units it had better have on lease, by what was asked in this settle interval or the last one."""
        return max(kept(self._so_far), kept(self.before))

    def hand_in(self) -> SpentLease | None:
        """Let nothing more be spent of the lease, and return what to settle."""
        with self.lock:
            lease = self.lease
            if lease is None:
                return None
            lease.kept, lease.granted = lease.granted, lease.spent
            lease.take_off()
            return SpentLease(lease.pk, lease.spent)

    def reopen(self) -> None:
        """Go on with the lease: that it was handed in has come to nothing."""
        with self.lock:
            lease = self.lease
            if lease is not None:
                lease.granted = lease.kept
                lease.land()

    def await_settlement(self, *, written: bool = False) -> None:
        """Let nothing come back into the lease, as it may have ended; whoever settles next finds out.

        What it was left with may be spent: the database has it on lease, too, whatever has become of the transaction.
        It is as good as `written` in a transaction of the caller's that is still open.
        """
        with self.lock:
            lease = self.lease
            if lease is not None:
                lease.state = State.PENDING
                if written:
                    lease.settled = lease.spent

    def end(self) -> None:
        """Have no lease any more, as it was settled; that it was in demand in this interval is not forgotten."""
        with self.lock:
            if self.lease is not None:
                self.asked, self.calls = self._so_far
                self.lease = None

    def take_back(self, charge: Charge) -> bool:
        """Give back what was spent in the bucket on lease; return whether that could be done here."""
        with self.lock:
            lease = self.lease
            if (
                lease is None
                or lease.state is not State.OPEN
                or lease.bucket_start != charge.bucket_start
                or lease.spent < charge.amount
            ):
                return False
            lease.spent -= charge.amount
            return True

    def offer(self, now: datetime, *, closing: bool) -> Offer | None:
        """Decide what to settle and what to keep, and let nothing else be spent meanwhile; begins a new interval."""
        with self.lock:
            lease = self.lease
            if lease is None:
                return None
            keep = 0 if closing or not lease.begins <= now.timestamp() < lease.ends else self.keeps
            self._begin_interval()
            lease.take_off()
            lease.granted = min(lease.granted, lease.spent + keep)
            return Offer(
                pk=lease.pk,
                period_id=lease.period_id,
                bucket_start=lease.bucket_start,
                spent=lease.spent,
                granted=lease.granted,
                wanted=lease.spent + keep - lease.granted,
            )

    def renew(self, offer: Offer, settled: Settled, deadline: float) -> None:
        """Go on with what the settlement has written."""
        with self.lock:
            lease = self.lease
            if lease is None:
                return
            if settled.granted is None:
                self.lease = None
                return
            lease.settled, lease.used, lease.limit = offer.spent, settled.used, settled.limit
            lease.granted, lease.deadline = settled.granted, deadline
            lease.state, lease.passed_over = State.OPEN, False

    @property
    def is_due(self) -> bool:
        """Whether the lease must not be passed over: it was the last time, or has run out of time."""
        lease = self.lease
        return lease is not None and (lease.passed_over or monotonic() >= lease.deadline)

    def keep(self, *, passed_over: bool = False) -> None:
        """Go on with what was not settled this time; it was `passed_over` if a locked row was the reason."""
        with self.lock:
            if self.lease is not None:
                self.lease.land()
                self.lease.passed_over |= passed_over


class Turns:
    """The turns of many accounts, released one by one, or all that are left at the end of the block."""

    def __init__(self) -> None:
        self._held: set[Account] = set()

    def take(self, account: Account, *, patience: float) -> bool:
        """Have the turn of one more, if that can be had in so many seconds; return whether it was."""
        if not account.turn.acquire(timeout=patience):
            return False
        self._held.add(account)
        return True

    def release(self, account: Account) -> None:
        """Let others have this one."""
        self._held.remove(account)
        account.turn.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for account in self._held:
            account.turn.release()


@contextmanager
def turn_of(account: Account, using: str) -> Iterator[None]:
    """Have the turn of an account. Raises LockTimeout if a caller in a transaction would wait for it too long.

    Whoever has the turn may wait for a row that the caller's transaction holds, and no database sees that deadlock.
    A caller who can count in that transaction instead waits briefly.
    """
    patience: float = -1
    if in_any_transaction():
        patience = BRIEFLY if connections[using].in_atomic_block else LOCK_WAIT_SECONDS
    if not account.turn.acquire(timeout=patience):
        message = f"Usage of organization {account.organization_id} is being settled for too long."
        raise LockTimeout(message)
    try:
        yield
    finally:
        account.turn.release()


@contextmanager
def locked_with(accounts: Iterable[Account], key: object, *meters: str, **options: Any) -> Iterator[list[Ledger]]:
    """Like `ledger.locked`, with the leases of these accounts, whose turns are ours, settled and ended."""
    handed_in = {account: lease for account in accounts if (lease := account.hand_in()) is not None}
    rolled_back = True
    try:
        with locked(key, *meters, leases={acc.meter: lease for acc, lease in handed_in.items()}, **options) as ledgers:
            yield ledgers
            # From here on an error may be that of a commit which has taken place all the same.
            rolled_back = False
    except BaseException:
        for account in handed_in:
            if rolled_back:
                account.reopen()
            else:
                account.await_settlement()
        raise
    visited = {ledger.terms.meter for ledger in ledgers}
    for account in handed_in:
        if account.meter not in visited:
            account.reopen()
        elif connections[options["using"]].in_atomic_block:
            # Not `on_commit`: the host may undo this by a savepoint that Django does not know of.
            account.await_settlement(written=True)
        else:
            account.end()
