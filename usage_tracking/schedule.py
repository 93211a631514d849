"""A ready schedule for Celery beat: pure data, importable from a settings module.

Write `CELERY_BEAT_SCHEDULE = {"yours": …} | BEAT_SCHEDULE`.
"""

from datetime import timedelta
from typing import Any, Final

__all__ = ["BEAT_SCHEDULE"]

BEAT_SCHEDULE: Final[dict[str, dict[str, Any]]] = {
    "usage-tracking-reset-expired": {
        "task": "usage_tracking.reset_expired_usage",
        "schedule": timedelta(minutes=1),
        "options": {"expires": 600},
    },
    "usage-tracking-deliver-events": {
        "task": "usage_tracking.deliver_usage_events",
        "schedule": timedelta(minutes=1),
        "options": {"expires": 600},
    },
    "usage-tracking-prune-history": {
        "task": "usage_tracking.prune_usage_history",
        "schedule": timedelta(days=1),
        "options": {"expires": 86_400},
    },
}
"""Every minute: close what has expired, deliver what a crash left undelivered. Every day: prune old history.

While no worker runs, beat goes on sending; what has waited for too long is dropped, as the next does the same.
"""
