"""For the tests of a host project."""

from django.utils import timezone

from usage_tracking import refusals
from usage_tracking.counters import leased_counter
from usage_tracking.events import deliver_events

__all__ = ["deliver_usage_events", "forget_leases", "forget_refusals", "settle_leases"]

deliver_usage_events = deliver_events
"""Send what waits in the outbox, returning how many events: inside a TestCase no commit ever does it."""

forget_refusals = refusals.clear
"""Forget what this process was told does not fit: for tests that exhaust, wipe and reuse an organization's key."""


def settle_leases() -> None:
    """Write what this process has spent of its leases and return the rest, as its end would: for tests that commit."""
    leased_counter.settle_all(timezone.now(), closing=True)


def forget_leases() -> None:
    """Own no lease any more, and tell nobody: for tests that commit, before their tables are wiped."""
    leased_counter.forget()
