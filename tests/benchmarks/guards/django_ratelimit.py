"""django-ratelimit's decorator, on Django's Redis cache. It answers 403, its default."""

from django.core.exceptions import PermissionDenied
from django.test import RequestFactory
from django_ratelimit.core import get_usage
from django_ratelimit.decorators import ratelimit

from tests.benchmarks.guards.base import Guard

RATE = {"group": "comparison", "key": "user", "rate": lambda group, request: f"{request.caller.limit}/d"}


def refusal(request, who):
    """Refuse as the decorator does."""
    raise PermissionDenied


class DjangoRatelimit(Guard):
    """Counts requests, refused ones too, in windows."""

    refusal = staticmethod(refusal)
    guarded = staticmethod(ratelimit(**RATE)(Guard.bare))

    def used(self, caller):
        request = RequestFactory().get("/")
        request.caller, request.user = caller, caller.user
        return get_usage(request, **RATE)["count"]


guard = DjangoRatelimit()
