"""The REST framework's `UserRateThrottle`, on Django's Redis cache.

It keeps the time of each request within its period, and reads and writes all of them each time.
"""

import time

from django.core.cache import cache
from rest_framework.throttling import UserRateThrottle

from tests.benchmarks.callers import LIMITS
from tests.benchmarks.guards.rest import Bare, RestGuard

# It forgets after a second: else its cost would grow with each request that is measured.
RATES = {"hot": f"{LIMITS['hot']}/s", "spent": f"{LIMITS['spent']}/day", "trial": f"{LIMITS['trial']}/day"}
TYPICAL = 500
"""How many times it keeps on average, on the way to a limit of 1,000."""


class RestThrottle(RestGuard):
    """Counts under the user's key."""

    _views = {
        who: Bare.as_view(throttle_classes=[type("Throttle", (UserRateThrottle,), {"rate": rate})])
        for who, rate in RATES.items()
    }

    def guarded(self, request, who):
        return self._views[who](request, who=who)

    def fill(self, caller):
        cache.set(key_of(caller), [time.time()] * TYPICAL, 60)

    def used(self, caller):
        return len(cache.get(key_of(caller), []))


def key_of(caller):
    """Where the throttle keeps the times of a caller's requests."""
    return UserRateThrottle.cache_format % {"scope": UserRateThrottle.scope, "ident": caller.user.pk}


guard = RestThrottle()
