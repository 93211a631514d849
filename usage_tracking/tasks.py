"""Celery tasks: `pip install django-usage-tracking[celery]`. `schedule.BEAT_SCHEDULE` runs them."""

from typing import Any

from celery import shared_task
from celery.signals import worker_process_shutdown

from usage_tracking.counters import leased_counter
from usage_tracking.events import deliver_events
from usage_tracking.pruning import prune_history
from usage_tracking.resets import reset_expired

__all__ = ["deliver_usage_events", "prune_usage_history", "reset_expired_usage"]


@worker_process_shutdown.connect(dispatch_uid="usage_tracking")
def return_leases(**_: Any) -> None:
    """Return what a worker's child process has on lease: it ends without running what is registered with `atexit`."""
    leased_counter.end()


@shared_task(name="usage_tracking.reset_expired_usage", ignore_result=True)
def reset_expired_usage() -> int:
    """Close every period that has ended; return how many were closed."""
    return reset_expired().closed


@shared_task(name="usage_tracking.deliver_usage_events", ignore_result=True)
def deliver_usage_events(using: str | None = None, after: int = 0) -> int:
    """Deliver what waits in the outbox, or what of it was recorded `after` an event; return how many were sent."""
    return deliver_events(using=using, after=after)


@shared_task(name="usage_tracking.prune_usage_history", ignore_result=True)
def prune_usage_history() -> int:
    """Delete history that is older than HISTORY_RETENTION_DAYS; return how many rows were deleted."""
    return prune_history().rows
