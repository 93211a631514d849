"""django-smart-ratelimit's quota, in the database that the environment names."""

from django_smart_ratelimit import get_quota_usage, quota

from tests.benchmarks.callers import LIMITS
from tests.benchmarks.guards.base import Guard


def key(request, *_, **__):
    """The caller's."""
    return request.caller.key


class SmartQuota(Guard):
    """Locks the row, then saves it."""

    # Its limit is a number, so that each caller needs a decorator of their own.
    _views = {who: quota(key=key, limit=limit, period="month")(Guard.bare) for who, limit in LIMITS.items()}

    def guarded(self, request, who):
        return self._views[who](request, who)

    def used(self, caller):
        return get_quota_usage(f"quota:{caller.key}")["used"]


guard = SmartQuota()
