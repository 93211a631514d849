"""What drawing costs: `python -m tests.benchmarks.drawing`, on the database that DATABASE_URL names.

Prints the median time of each template tag for an organization with a year of history, its queries included. The best
time beside it is what it costs while nothing else runs on the machine.
"""

import os
import statistics
from datetime import timedelta
from functools import partial

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from django.db import connection
from django.template import Context, Template
from django.test.utils import CaptureQueriesContext, setup_databases, teardown_databases
from django.utils import timezone

from tests.benchmarks.timing import timed
from tests.factories import OrganizationFactory
from usage_tracking.metering import history_of, record

ROUNDS = 200
TAGS = {
    "usage_card": "{% usage_card organization %}",
    "feature_access_card": "{% feature_access_card organization %}",
    "usage_history_chart, 90 days": '{% usage_history_chart organization time_range="90d" chart_type="bar" %}',
    "usage_history_chart, 1 year": '{% usage_history_chart organization time_range="1y" %}',
    "usage_dashboard, 90 days": '{% usage_dashboard organization time_range="90d" %}',
}


def measure(call):
    """Median and best milliseconds of a call, and the number of queries of one."""
    with CaptureQueriesContext(connection) as queries:
        call()
    times = [timed(call) for _ in range(ROUNDS)]
    return f"{statistics.median(times) * 1e3:6.2f} {min(times) * 1e3:6.2f} ms  {len(queries)} queries"


def main():
    """Measure in a test database and print the table."""
    databases = setup_databases(verbosity=0, interactive=False)
    try:
        organization = OrganizationFactory(usage_limits={"api": None})
        now = timezone.now()
        for day in range(365, -1, -1):
            record(organization, 1_000 + day % 7 * 300, now=now - timedelta(days=day))
        context = Context({"organization": organization})
        print(f"{connection.vendor}, Django {django.__version__}: median and best of {ROUNDS} calls")
        for name, tag in TAGS.items():
            cost = measure(partial(Template("{% load usage_tracking %}" + tag).render, context))
            print(f"  {name:<30} {cost}")
        cost = measure(partial(history_of, organization, since=now - timedelta(days=90)))
        print(f"  {'history_of(), 90 days':<30} {cost}: what the chart asks first")
    finally:
        teardown_databases(databases, verbosity=0)


if __name__ == "__main__":
    main()
