"""Where an amount is taken."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from usage_tracking.conf import usage_settings
from usage_tracking.counters.base import Counter
from usage_tracking.counters.exact import ExactCounter
from usage_tracking.counters.leased import LeasedCounter
from usage_tracking.ledger import Ledger, locked

__all__ = ["Counter", "counter_of", "leased", "settled"]

exact = ExactCounter()
leased = LeasedCounter(exact)
"""The counters of this process."""


def counter_of(meter: str) -> Counter:
    """Return the counter that COUNTER, or the meter itself, asks for."""
    return leased if meter in usage_settings.leased_meters else exact


@contextmanager
def settled(key: object, *meters: str, now: datetime, using: str, **options: Any) -> Iterator[list[Ledger]]:
    """Like `ledger.locked`, once this process has settled what it has borrowed: whoever changes usage or quotas sees
    all that was used here, and the next request here sees the change.
    """  # noqa: D205
    leased.settle(key, now=now, using=using)
    with locked(key, *meters, now=now, using=using, **options) as ledgers:
        yield ledgers
