"""Where an amount is taken."""

from usage_tracking.conf import usage_settings
from usage_tracking.counters.base import Counter
from usage_tracking.counters.exact import ExactCounter
from usage_tracking.counters.leased import LeasedCounter

__all__ = ["Counter", "counter_of", "leased_counter", "settled"]

exact_counter = ExactCounter()
leased_counter = LeasedCounter(exact_counter)
"""The counters of this process."""


def counter_of(meter: str) -> Counter:
    """Return the counter that COUNTER, or the meter itself, asks for."""
    return leased_counter if meter in usage_settings.leased_meters else exact_counter


settled = leased_counter.settled
"""Like `ledger.locked`, once this process has settled what it has borrowed: whoever changes usage or quotas sees all
that was used here, and the next request here sees the change."""
