"""drf-api-tracking: a row in the database for each request, and no limit."""

from rest_framework_tracking.mixins import LoggingMixin
from rest_framework_tracking.models import APIRequestLog

from tests.benchmarks.guards.rest import Bare, RestGuard


class Logged(LoggingMixin, Bare):
    """The same view, logged."""


class RestTracking(RestGuard):
    """Counts by counting the rows."""

    guarded = staticmethod(Logged.as_view())

    def used(self, caller):
        return APIRequestLog.objects.filter(user=caller.user).count()


guard = RestTracking()
