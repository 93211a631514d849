"""This package's middleware, with the counter that BENCHMARK_COUNTER names."""

from functools import cache

from django.conf import settings
from django.http import HttpResponse

from tests.benchmarks.guards.base import Guard
from usage_tracking.doors import Outcome, finish
from usage_tracking.metering import consume, usage_of


@cache
def refused(organization):
    """What became of a request that was refused."""
    decision = consume(organization)
    return Outcome(decision.allowed, organization, decision)


def refusal(request, who):
    """Write the response to a refused request, without asking."""
    request.usage_outcome, request.usage_problem = refused(request.organization), None
    return finish(request, HttpResponse(status=429))


class UsageTracking(Guard):
    """Counts in the database that the environment names."""

    middleware = "usage_tracking.middleware.UsageTrackingMiddleware"
    if not settings.BENCHMARK_ASYNC:
        refusal = staticmethod(refusal)

    def used(self, caller):
        return usage_of(caller.organization).used


guard = UsageTracking()
