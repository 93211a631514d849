"""What this process was last told does not fit, so that an exhausted organization does not reach the database.

After the database has said that an amount does not fit, amounts at least as large are refused from memory for up to
one second. The memory is advice of bounded age, never truth: nothing is admitted from it.
"""

import os
import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from usage_tracking.quotas import Usage

__all__ = ["Key", "forget", "known", "pending", "recall", "remember"]

MEMORY: Final = 1
"""For how many seconds."""
SIZE: Final = 10_000
"""Exhausted meters remembered at once; past it the oldest half goes, and those ask the database again."""

Key = tuple[str, object, str]
"""Database alias, organization key, meter."""


@dataclass(slots=True)
class _Refusal:
    amount: int
    usage: Usage
    said_at: float
    valid_until: float
    """In seconds since the epoch."""
    unwritten: int = 0


_refusals: dict[Key, _Refusal] = {}
_lock = threading.Lock()


def _begin_anew() -> None:
    """Know nothing after a fork: what the parent has not written yet the parent writes."""
    global _lock  # noqa: PLW0603 - whoever held it is not here any more
    _lock = threading.Lock()
    _refusals.clear()


os.register_at_fork(after_in_child=_begin_anew)


def remember(key: Key, amount: int, usage: Usage, *, now: datetime, checkpoint_at: datetime) -> None:
    """Note that the database refused `amount` at `now`; void at the row's next checkpoint, where all may change."""
    with _lock:
        if len(_refusals) >= SIZE:
            for old in list(_refusals)[: SIZE // 2]:
                del _refusals[old]
        unwritten = _refusals[key].unwritten if key in _refusals else 0
        said_at = now.timestamp()
        _refusals[key] = _Refusal(amount, usage, said_at, min(said_at + MEMORY, checkpoint_at.timestamp()), unwritten)


def known() -> bool:
    """Return whether there is anything to recall: normally there is not, and no key need be made."""
    return bool(_refusals)


def recall(key: Key, amount: int, timestamp: float) -> Usage | None:
    """Return the usage that stands against `amount`, and count one refusal; None if the database must be asked.

    `timestamp` is in seconds since the epoch.
    """
    refusal = _refusals.get(key)
    if refusal is None or amount < refusal.amount or not refusal.said_at <= timestamp < refusal.valid_until:
        return None
    with _lock:
        refusal.unwritten += 1
    return refusal.usage


def pending(key: Key) -> int:
    """Take the number of refusals that no row has counted yet: the caller writes them."""
    with _lock:
        refusal = _refusals.get(key)
        if refusal is None:
            return 0
        unwritten, refusal.unwritten = refusal.unwritten, 0
        return unwritten


def forget(key: Key) -> None:
    """Ask the database next time: the limit was moved, an amount came back, a period was opened."""
    with _lock:
        if key in _refusals:
            _refusals[key].valid_until = _refusals[key].said_at


def waiting() -> list[Key]:
    """Return the meters with refusals that no row has counted yet."""
    with _lock:
        return [key for key, refusal in _refusals.items() if refusal.unwritten]


def clear() -> None:
    """Forget everything, also what is not written yet (between two tests, say)."""
    with _lock:
        _refusals.clear()
