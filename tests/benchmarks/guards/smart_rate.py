"""django-smart-ratelimit's decorator for rates, on Redis, with its default algorithm."""

from django_smart_ratelimit import ratelimit
from django_smart_ratelimit.backends import get_backend

from tests.benchmarks.guards.base import Guard

DAY = 86_400


class SmartRate(Guard):
    """Keeps an entry for each request of the last day."""

    guarded = staticmethod(
        ratelimit(
            key=lambda request, *_, **__: request.caller.key,
            rate=lambda request: f"{request.caller.limit}/d",
            block=True,
        )(Guard.bare)
    )

    def used(self, caller):
        return get_backend().get_count(caller.key, DAY)


guard = SmartRate()
