"""How much a process borrows: pure arithmetic of the leased counter.

A lease follows demand: it holds what its process is about to need in two settle intervals, and an organization that
is asked for now and then is counted without one. It also follows what is free: never more than an eighth, so that
leases shrink with what is left, a limit is reached in a number of grants that grows with its logarithm, and the last
units are counted one by one, as the exact counter does.
"""

from typing import Final

__all__ = ["BUSY", "kept", "share"]

BUSY: Final = 8
"""Units in one settle interval from which borrowing costs less than counting each of them."""

AHEAD: Final = 2
"""Settle intervals that a lease is to last: one until it is renewed, one in reserve."""

PORTION: Final = 8
"""Nobody borrows more than one part in so many of what is free."""


def kept(demand: int) -> int:
    """Return how much a process keeps on its lease when it has used `demand` units in a settle interval."""
    return AHEAD * demand if demand >= BUSY else 0


def share(wanted: int, free: int) -> int:
    """Return how much of `wanted` is lent while `free` units are neither used nor on lease; 0 near the limit."""
    portion = min(wanted, free // PORTION)
    return portion if portion > 1 else 0
