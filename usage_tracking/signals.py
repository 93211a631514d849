"""The signals a host connects to.

Each is sent with `send_robust` after the change has been committed, from the outbox: at least once, normally
exactly once. `event.pk` stays the same when a delivery is repeated, so it is the key to remember what was done.

sender
    the organization model (the class)
organization, meter, plan
    whose usage, of which meter, under which plan
used, limit, percentage
    the state when it happened; `limit` and `percentage` are None when unlimited
period
    the open period, a `usage_tracking.periods.Period`
event
    the `usage_tracking.models.UsageEvent` on record
"""

from django.dispatch import Signal

__all__ = ["limit_exceeded", "limits_updated", "usage_reset", "usage_warning"]

usage_warning = Signal()
"""A threshold was reached; `event.threshold` is its percent."""

limit_exceeded = Signal()
"""The limit was reached, a first request of the period was refused, or the limit was lowered to or below `used`."""

usage_reset = Signal()
"""A period was closed and the next one opened.

Also `mode` ("lazy", "scheduled" or "manual") and `previous_used`; `event.period` is the closed one.
"""

limits_updated = Signal()
"""Quotas were changed. Also `changes` ({field: {"old": …, "new": …}}), `actor` (a user or None) and `reason`."""
