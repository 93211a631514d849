"""The leased counter: what a process has borrowed it takes from memory.

An organization that is asked for now and then is counted like the exact counter does, in one statement. One that is
busy is lent a part of what is left, in the transaction of the request that finds it busy, and the requests behind it
are admitted from memory. The settler writes what was spent, renews what is in use and returns what is idle.

Two rules keep it exact. What is on lease is as good as used to everybody who looks at the open row. And a lease is
spent in the bucket that it was lent from, or not at all, and settled there whoever has closed it meanwhile.
"""

import logging
import os
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from typing import Any, Final, TypeVar
from uuid import uuid4

from django.db import Error, OperationalError, connections
from django.utils import timezone

from usage_tracking import refusals
from usage_tracking.conf import usage_settings
from usage_tracking.counters.accounts import BRIEFLY, Account, Lease, Turns, locked_with, turn_of
from usage_tracking.counters.base import Counter
from usage_tracking.counters.exact import ExactCounter, count_between_rails
from usage_tracking.counters.settlement import CommitUnknown, write
from usage_tracking.counters.settler import Settler
from usage_tracking.databases import LOCK_WAIT_SECONDS, apart, home_of, is_marked, mark, must_be_joined
from usage_tracking.deadlocks import LockTimeout, in_any_transaction, is_lock_timeout, retried
from usage_tracking.events import deferred_delivery, dispatch, dispatch_after_commit
from usage_tracking.exceptions import OrganizationGone, UnknownMeter
from usage_tracking.ledger import Ledger
from usage_tracking.models import UsagePeriod, UsageTrackedOrganization
from usage_tracking.quotas import Charge, Decision

__all__ = ["LeasedCounter"]

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

Key = tuple[str, object, str]
"""Database alias, organization key, meter."""

BATCH: Final = 1000
"""Leases settled in one transaction: so many organizations' requests wait for it, should theirs have run out."""


class LeasedCounter(Counter):
    """Takes amounts from what this process has borrowed; where it has borrowed nothing, like the exact counter."""

    def __init__(self, exact: ExactCounter) -> None:
        self._exact = exact
        self._settler = Settler(self)
        self._begin_process()
        os.register_at_fork(after_in_child=self._begin_process)

    def _begin_process(self) -> None:
        """Own nothing: what the parent process has on lease stays the parent's."""
        # One settles at a time.
        self._settling = threading.Lock()
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._accounts: dict[Key, Account] = {}
        self._holder = f"{socket.gethostname()[:40]}:{os.getpid()}:{uuid4().hex[:8]}"
        self._stopping = False
        self._forgets_at = 0.0
        self._settler.begin_anew()

    # -- requests ------------------------------------------------------------------------------------------------------

    def at_once(
        self, key: Key, amount: int, timestamp: float, *, using: str, refusable: bool = True
    ) -> Decision | None:
        """Take, or refuse if `refusable`, from memory; None if the database must be asked. Never waits.

        `timestamp` is in seconds since the epoch: they are asked for, and compared, in less time than a datetime.
        """
        if self._settler.is_unguarded:
            self._settler.guard()
        account = self._accounts.get(key)
        # What is joined is undone with the transaction, and memory is not.
        if account is not None and not (account.may_be_joined and must_be_joined(using)):
            decision = account.spend(amount, timestamp)
            if decision is not None:
                return decision
        if not refusable or not refusals.known() or must_be_joined(using):
            return None
        usage = refusals.recall(key, amount, timestamp)
        return None if usage is None else Decision(allowed=False, amount=amount, usage=usage)

    def take(
        self,
        organization: UsageTrackedOrganization,
        amount: int,
        meter: str,
        *,
        now: datetime,
        using: str,
        refusable: bool = True,
    ) -> Decision:
        """Take `amount` from memory, or count it in the database and borrow for those who come after it.

        The caller's transaction is kept out of, unless it holds the rows that this needs, or made the organization.
        """
        key = home_of(using), organization.pk, meter
        decision = self.at_once(key, amount, now.timestamp(), using=using, refusable=refusable)
        if decision is not None:
            return decision
        return self._unless_held(
            key,
            using,
            alone=lambda: self._take_apart(key, amount, now, using, refusable=refusable),
            joined=lambda: self._exact.take(organization, amount, meter, now=now, using=using, refusable=refusable),
        )

    def _take_apart(self, key: Key, amount: int, now: datetime, using: str, *, refusable: bool) -> Decision:
        with self._telling(), self._turn(key, using) as account:
            # Whoever had the turn before may have brought a lease, or a refusal.
            decision = self.at_once(key, amount, now.timestamp(), using=using, refusable=refusable)
            if decision is None:
                account.note(amount, usage_settings.LEASE.settle_seconds)
                decision = self._ask(account, amount, now, using, refusable=refusable)
        return decision

    def _ask(self, account: Account, amount: int, now: datetime, using: str, *, refusable: bool) -> Decision:
        """Count in the database, and borrow for those who come after if the account is busy."""
        count = partial(self._count, account, amount, now, using, refusable=refusable)
        within = in_any_transaction()
        if account.keeps and monotonic() >= account.rests_until:
            try:
                return apart(using, partial(count, borrows=True), patience=BRIEFLY)
            except OperationalError as error:
                if not within or not is_lock_timeout(error):
                    raise
                # The caller may hold the organization, which borrowing has to lock, and counting has not.
                account.rests_until = monotonic() + usage_settings.LEASE.settle_seconds
        # With a lease there is something to settle; in a transaction that can wait.
        one_statement_may_do = within or account.lease is None
        return apart(using, partial(count, one_statement_may_do=one_statement_may_do), patience=BRIEFLY)

    def _count(
        self,
        account: Account,
        amount: int,
        now: datetime,
        using: str,
        *,
        refusable: bool,
        one_statement_may_do: bool = False,
        borrows: bool = False,
    ) -> Decision:
        """Count between the rails if `one_statement_may_do`, else in the slow path."""
        if one_statement_may_do:
            decision = _count_once(account.organization_id, amount, account.meter, now=now, using=using)
            if decision is not None:
                return decision
        charge, usage, checkpoint_at = self._visit(
            account,
            now,
            using,
            lambda ledger: (ledger.take(amount, refusable=refusable), ledger.usage(), ledger.row.checkpoint_at),
            borrows=borrows,
        )
        if charge is None:
            key = home_of(using), account.organization_id, account.meter
            refusals.remember(key, amount, usage, now=now, checkpoint_at=checkpoint_at)
        return Decision(allowed=charge is not None, amount=amount, usage=usage, charge=charge)

    @retried
    def _visit(
        self, account: Account, now: datetime, using: str, act: Callable[[Ledger], Answer], *, borrows: bool
    ) -> Answer:
        """Settle the account in the slow path, act there, and borrow anew if there is something to borrow."""
        deadline, expires_at = _times()
        lent = None
        with locked_with([account], account.organization_id, account.meter, now=now, using=using) as [ledger]:
            answer = act(ledger)
            # Asked last: a process that has begun to end meanwhile would not return it.
            if borrows and not self._stopping and (size := ledger.share(account.keeps)):
                lent = ledger.lend(size, holder=self._holder, expires_at=expires_at)
        if lent is not None:
            account.lease = Lease(lent, ledger.row, deadline=deadline, now=ledger.now)
            self._settler.ensure_running()
        elif borrows:
            account.rests_until = monotonic() + usage_settings.LEASE.settle_seconds
        return answer

    def give_back(self, charge: Charge, *, now: datetime) -> int:
        """Return a charge to the lease if its bucket is still on lease here, else as the exact counter does."""
        key, using = (home_of(charge.database), charge.organization_id, charge.meter), charge.database
        account = self._accounts.get(key)
        if account is None or charge.joined:
            return self._exact.give_back(charge, now=now)
        return self._unless_held(
            key,
            using,
            alone=lambda: self._give_back_apart(account, charge, now),
            joined=lambda: self._exact.give_back(charge, now=now),
        )

    def _give_back_apart(self, account: Account, charge: Charge, now: datetime) -> int:
        if account.take_back(charge):
            refusals.forget((account.using, account.organization_id, account.meter))
            return charge.amount
        using = charge.database
        # What was being settled is in the database once the turn is ours.
        with self._telling(), turn_of(account, using):
            if account.take_back(charge):
                return charge.amount
            if account.lease is None:
                return self._exact.give_back(charge, now=now)
            give_back = partial(Ledger.give_back_charge, charge=charge)
            visit = partial(self._visit, account, now, using, give_back, borrows=False)
            return apart(using, visit, patience=BRIEFLY)

    def _unless_held(
        self, key: Key, using: str, *, alone: Callable[[], Answer], joined: Callable[[], Answer]
    ) -> Answer:
        """Do it `alone`, or `joined` to the caller's transaction if that has locked, or made, what it needs.

        To find out takes its time, so that is done once in a transaction.
        """
        connection = connections[using]
        if not connection.in_atomic_block:
            return alone()
        account = self._accounts.get(key)
        if must_be_joined(using) or (account is not None and is_marked(connection, account.held_by)):
            return joined()
        try:
            return alone()
        except OperationalError as error:
            if not is_lock_timeout(error):
                raise
        except OrganizationGone:
            pass
        answer = joined()
        if (account := self._accounts.get(key)) is not None:
            account.held_by = mark(connection)
        return answer

    # -- books ---------------------------------------------------------------------------------------------------------

    def unsettled(self, row: UsagePeriod) -> int:
        """Return what the lease has spent since it was last settled, if it is of this period."""
        lease = self._lease_of(row)
        return 0 if lease is None else lease.spent - lease.settled

    def unspent(self, row: UsagePeriod) -> int:
        """Return what the lease has left, if it is of this period."""
        lease = self._lease_of(row)
        return 0 if lease is None else lease.granted - lease.spent

    def _lease_of(self, row: UsagePeriod) -> Lease | None:
        account = self._accounts.get((row._state.db or "", row.organization_id, row.meter))
        lease = None if account is None else account.lease
        return lease if lease is not None and lease.period_id == row.pk else None

    @contextmanager
    def settled(self, key: object, *meters: str, now: datetime, using: str, **options: Any) -> Iterator[list[Ledger]]:
        """Like `ledger.locked`, with whatever this process has on lease of the organization handed in first.

        In the caller's transaction, too: all but what another thread has had in hand for longer than that can wait.
        """
        home, connection = home_of(using), connections[using]
        holds = connection.in_atomic_block and not must_be_joined(using)
        with self._telling(), ExitStack() as turns:
            held = []
            for meter in sorted(usage_settings.leased_meters):
                with suppress(LockTimeout):
                    held.append(turns.enter_context(self._turn((home, key, meter), using)))
            with locked_with(held, key, *meters, now=now, using=using, **options) as ledgers:
                yield ledgers
            if holds:
                left = mark(connection)
                for account in held:
                    account.held_by = left

    def settle_all(self, now: datetime, *, closing: bool = False) -> None:
        """Settle every lease whose turn is free (`closing`: all of them, and return them), some at a time.

        What cannot be settled stays on the books. Raises the first error that stopped some of it.
        """
        with self._telling(), ExitStack() as stack:
            # Whoever waits for another settlement may be the end of the process, which has no patience left.
            if not self._settling.acquire(timeout=2 * LOCK_WAIT_SECONDS):
                message = "Another settlement does not come to its end."
                raise LockTimeout(message)
            stack.callback(self._settling.release)
            known = list(self._accounts.items())
            if closing:  # who waits for turns does so in the order in which `settled` does
                known.sort(key=lambda item: item[1].meter)
            errors: list[Exception] = []
            for start in range(0, len(known), BATCH):
                self._settle_some(known[start : start + BATCH], now, errors, closing=closing)
        if errors:
            raise errors[0]

    def _settle_some(
        self, known: Iterable[tuple[Key, Account]], now: datetime, errors: list[Exception], *, closing: bool
    ) -> None:
        """Settle those of some accounts whose turn can be had: together as far as possible, else one by one."""
        with Turns() as turns:
            due: dict[str, list[Account]] = defaultdict(list)
            for key, account in known:
                if account.lease is None:
                    self._forget_if_quiet(key, account)
                elif turns.take(account, patience=LOCK_WAIT_SECONDS if closing else 0):  # else its own visit settles it
                    due[account.using].append(account)
            for using, accounts in due.items():
                try:
                    left = self._settle_together(accounts, turns, now, using, closing=closing)
                except Exception as error:  # noqa: BLE001 - raised once the others have had their turn
                    errors.append(error)
                    continue
                until = monotonic() + LOCK_WAIT_SECONDS
                for account in left:
                    try:
                        # Open transactions may hold many rows, and each is waited for: not for longer than one of them.
                        if closing or monotonic() < until:
                            self._settle_alone(account, now, using, closing=closing)
                        else:
                            account.keep(passed_over=True)
                    except Exception as error:  # noqa: BLE001 - as above
                        if closing or not is_lock_timeout(error):
                            errors.append(error)
                    finally:
                        turns.release(account)

    def _settle_together(
        self, accounts: Iterable[Account], turns: Turns, now: datetime, using: str, *, closing: bool
    ) -> list[Account]:
        """Settle the accounts that have only a number to tell, and release their turns; return the others."""
        deadline, expires_at = _times()
        due = {account: offer for account in accounts if (offer := account.offer(now, closing=closing)) is not None}
        left: list[Account] = []
        while due:
            try:
                settled = write(list(due.values()), expires_at=expires_at, using=using)
            except BaseException as error:
                for account in due:
                    if isinstance(error, CommitUnknown):
                        account.await_settlement()
                    else:
                        account.keep()
                for account in left:
                    account.keep()
                raise
            called_back = {}
            for account, offer in due.items():
                result = settled.get(offer.pk)
                if result is not None:
                    account.renew(offer, result, deadline)
                    if result.is_called_back and (rest := account.offer(now, closing=True)) is not None:
                        called_back[account] = rest
                        continue
                # Where somebody has locked the row there is a next time, but no third one: others wait for the rest.
                elif closing or offer.pk not in settled or account.is_due:
                    left.append(account)
                    continue
                else:
                    account.keep(passed_over=True)
                turns.release(account)
            due = called_back
        return left

    def _settle_alone(self, account: Account, now: datetime, using: str, *, closing: bool) -> None:
        borrows = account.keeps > 0 and not closing and not self._stopping
        try:
            self._visit(account, now, using, _only_settle, borrows=borrows)
        except (OrganizationGone, UnknownMeter):
            account.lease = None  # there is nothing left to settle it with
        except Error:
            raise
        except Exception:
            # The host's own code and settings: it stands in nobody else's way.
            logger.exception("The lease of organization %s could not be settled yet.", account.organization_id)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing on lease."""
        return not any(account.lease for account in list(self._accounts.values()))

    def stop(self) -> None:
        """Return everything and borrow no more: this process is about to end."""
        self._stopping = True
        self.settle_all(timezone.now(), closing=True)

    def end(self) -> None:
        """Do the same, but log what goes wrong, and wait for no database for longer than ten seconds."""
        self._settler.stop()

    def guard(self) -> None:
        """Let no SIGTERM end the process before everything is returned; called on its main thread, to be of use."""
        self._settler.guard()

    def forget(self) -> None:
        """Own nothing, and tell nobody: for tests that wipe the database."""
        with self._settling:
            self._begin_anew()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Tell what is announced in the block when it is over: a receiver may want a turn that the block has."""
        with deferred_delivery() as outboxes:
            yield
        _tell(outboxes)

    def _forget_if_quiet(self, key: Key, account: Account) -> None:
        if account.is_quiet(usage_settings.LEASE.settle_seconds) and account.turn.acquire(blocking=False):
            try:
                if account.lease is None and self._accounts.get(key) is account:
                    del self._accounts[key]
            finally:
                account.turn.release()

    def _forget_quiet_ones(self) -> None:
        """Forget who has not asked for long; the settler does so, too, but comes only while something is on lease."""
        if monotonic() >= self._forgets_at:
            self._forgets_at = monotonic() + 60 * usage_settings.LEASE.settle_seconds
            for key, account in list(self._accounts.items()):
                self._forget_if_quiet(key, account)

    @contextmanager
    def _turn(self, key: Key, using: str) -> Iterator[Account]:
        """Have the turn of an account, which is made if there is none."""
        if key not in self._accounts:
            self._forget_quiet_ones()
        while True:
            account = self._accounts.get(key) or self._accounts.setdefault(key, Account(*key))
            with turn_of(account, using):
                # The settler forgets idle accounts, perhaps while we waited.
                if self._accounts.get(key) is account:
                    yield account
                    return


def _times() -> tuple[float, datetime]:
    """Return until when what is lent now may be spent, by the monotonic clock, and when it is lost.

    The holder's clock starts before the transaction does, and stops at half time: the rest is for settling.
    """
    seconds = usage_settings.LEASE.expire_seconds
    return monotonic() + seconds / 2, timezone.now() + timedelta(seconds=seconds)


# One statement is a transaction of its own; the slow path begins again by itself.
_count_once = retried(count_between_rails)


def _only_settle(_: Ledger) -> None:
    """Do nothing in a visit beyond settling."""


def _tell(outboxes: Iterable[str]) -> None:
    """Deliver what was announced once the caller's transaction is over, if there is one: it is not its business."""
    for outbox in outboxes:
        if connections[outbox].in_atomic_block:
            dispatch_after_commit(outbox)
        else:
            dispatch([outbox])
