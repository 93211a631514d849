"""Deleting old history, so that the table does not grow for ever."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db import router, transaction

from usage_tracking.conf import usage_settings
from usage_tracking.deadlocks import retried
from usage_tracking.exceptions import InvalidInput
from usage_tracking.ledger import instant
from usage_tracking.models import UsageHistory, UsagePeriod
from usage_tracking.setting_values import MAX_DAYS

__all__ = ["PruneReport", "prune_history"]

BATCH: Final = 1000
"""History rows deleted in one transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneReport:
    """What one run of `prune_history()` did."""

    rows: int
    """History rows deleted."""
    periods: int
    """Periods that lost history for the first time."""


def prune_history(
    now: datetime | None = None,
    *,
    days: int | None = None,
    using: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> PruneReport:
    """Delete the history rows of closed periods that ended more than `days` (default: HISTORY_RETENTION_DAYS) ago.

    The periods stay, with what they have used, and are marked by `pruned_at`, so that `verify_usage()` does not miss
    the rows. Without a number of days nothing is deleted. Many rows are one transaction: a run that dies is continued
    by the next, and a second one finds nothing. `progress` is called with how many rows have just been deleted.
    Raises InvalidInput naming `days` or `now`.
    """
    now = instant(now)
    days = usage_settings.HISTORY_RETENTION_DAYS if days is None else days
    if days is None:
        return PruneReport(rows=0, periods=0)
    if type(days) is not int or not 1 <= days <= MAX_DAYS:
        message = f"days must be a whole number from 1 to {MAX_DAYS}, not {days!r}."
        raise InvalidInput(message, field="days")
    using = using or router.db_for_write(UsageHistory)
    old = UsageHistory.objects.using(using).filter(end__lte=now - timedelta(days=days), period__is_open=None)
    rows, periods, last = 0, 0, 0
    # By key: the table is walked once, whatever the number of batches.
    while batch := dict(old.filter(pk__gt=last).order_by("pk").values_list("pk", "period_id")[:BATCH]):
        last = max(batch)
        deleted, marked = _delete(list(batch), set(batch.values()), now, using)
        rows, periods = rows + deleted, periods + marked
        if progress is not None:
            progress(deleted)
    return PruneReport(rows=rows, periods=periods)


@retried
def _delete(history: list[int], periods: set[int], now: datetime, using: str) -> tuple[int, int]:
    """Delete history and mark its periods, rows before periods as a refund locks them; return how many of each."""
    with transaction.atomic(using=using):
        deleted, _ = UsageHistory.objects.using(using).filter(pk__in=history).delete()
        unmarked = UsagePeriod.objects.using(using).filter(pk__in=periods, pruned_at=None)
        return deleted, unmarked.update(pruned_at=now)
