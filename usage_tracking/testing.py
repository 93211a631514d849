"""For the tests of a host project."""

from usage_tracking import refusals
from usage_tracking.events import deliver_events

__all__ = ["deliver_usage_events", "forget_refusals"]

deliver_usage_events = deliver_events
"""Send what waits in the outbox, returning how many events: inside a TestCase no commit ever does it."""

forget_refusals = refusals.clear
"""Forget what this process was told does not fit: for tests that exhaust, wipe and reuse an organization's key."""
