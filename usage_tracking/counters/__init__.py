"""Where an amount is taken."""

from usage_tracking.counters.base import Counter
from usage_tracking.counters.exact import ExactCounter

__all__ = ["Counter", "counter"]

counter: Counter = ExactCounter()
"""The counter of this process."""
