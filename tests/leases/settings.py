"""The tests' project with the leased counter, for the processes that the tests start.

Nothing is settled while a test runs: what is counted in the end was returned by whoever ended.
"""

import os

from tests.settings import *  # noqa: F403

USAGE_TRACKING = {
    "COUNTER": "leased",
    "LEASE": {"SETTLE_SECONDS": 60, "EXPIRE_SECONDS": 3600},
    "ORGANIZATION_RESOLVER": f"tests.leases.host.{os.environ.get('RESOLVER', 'organization_of')}",
}
MIDDLEWARE = ["usage_tracking.middleware.UsageTrackingMiddleware"]
ROOT_URLCONF = "tests.leases.host"
ALLOWED_HOSTS = ["127.0.0.1"]
