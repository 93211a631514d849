"""How much a process borrows: pure arithmetic of the leased counter.

A lease follows demand: it holds what its process is about to need in two settle intervals, and an organization that
is asked for now and then is counted without one. It also follows what is free: never more than an eighth, so that
leases shrink with what is left, a limit is reached in a number of grants that grows with its logarithm, and the last
units are counted one by one, as the exact counter does.

Should somebody be refused for want of what others have on lease, it is called back: their next settlement returns it,
and nothing is lent until whoever was refused may have asked again. tests/benchmarks/simulation.py shows what that does.
"""

from datetime import datetime, timedelta
from typing import Final, NamedTuple

__all__ = ["BUSY", "Demand", "is_called_back", "kept", "share"]

BUSY: Final = 8
"""Calls in one settle interval from which borrowing costs less than counting each of them."""

AHEAD: Final = 2
"""Settle intervals that a lease is to last: one until it is renewed, one in reserve."""

PORTION: Final = 8
"""Nobody borrows more than one part in so many of what is free."""

RETRY: Final = timedelta(seconds=1)
"""When whoever was refused may ask again, at the latest: so long the refusal is remembered."""


class Demand(NamedTuple):
    """What a process was asked for in a settle interval."""

    units: int
    calls: int


def kept(demand: Demand) -> int:
    """Return how many units a process keeps on its lease when it is asked for so much in a settle interval."""
    return AHEAD * demand.units if demand.calls >= BUSY else 0


def share(wanted: int, free: int, *, on_lease: int = 0) -> int:
    """Return how much of `wanted` is lent while `free` units are neither used nor on lease; 0 near the limit.

    That is where no more is free than is on lease: half of what is left is always for those who have none.
    """
    portion = min(wanted, (free - on_lease) // PORTION)
    return portion if portion > 1 else 0


def is_called_back(at: datetime | None, now: datetime, settle_seconds: float) -> bool:
    """Return whether what is on lease is to be returned, after somebody was refused for want of it `at` that time."""
    return at is not None and now - at < RETRY + timedelta(seconds=settle_seconds)
