"""What counting costs: `python -m tests.benchmarks.cost`, on the database that DATABASE_URL names.

Prints medians and ratios measured side by side in one run. `comparison` sets the same beside other libraries.
"""

import os
import statistics
from datetime import timedelta

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from django.conf import settings
from django.db import connection
from django.db.models import F, Q
from django.http import HttpResponse
from django.test import RequestFactory
from django.test.utils import setup_databases, teardown_databases
from django.urls import path, resolve, set_urlconf
from django.utils import timezone

from tests.benchmarks.middleware import NoOp
from tests.benchmarks.timing import repeated, taking_turns
from tests.factories import OrganizationFactory
from usage_tracking.metering import consume
from usage_tracking.middleware import UsageTrackingMiddleware
from usage_tracking.models import UsagePeriod

ROUNDS, CALLS = 60, 50


def view(request):
    """Answer at once."""
    return HttpResponse("ok")


urlpatterns = [path("api/ping/", view)]


def stack(middleware_class):
    """One request through a middleware and the view, as Django's handler would run it."""

    def get_response(request):
        request.resolver_match = resolve("/api/ping/", urlconf=__name__)
        return middleware.process_view(request, view, (), {}) or view(request)

    middleware = middleware_class(get_response)
    return middleware


def candidates(organization):
    """The measured calls, by name."""
    row = UsagePeriod.objects.get()
    far = timezone.now() + timedelta(days=365)
    factory, no_op, tracking = RequestFactory(), stack(NoOp), stack(UsageTrackingMiddleware)
    quote = connection.ops.quote_name
    bare_sql = (
        f"UPDATE {quote(UsagePeriod._meta.db_table)} SET used = used + %s "  # noqa: S608
        f"WHERE organization_id = %s AND meter = %s AND is_open = %s "
        f"AND checkpoint_at > %s AND used + %s < checkpoint_used"
    )
    key = UsagePeriod._meta.get_field("organization").get_db_prep_value(organization.pk, connection)
    now = connection.ops.adapt_datetimefield_value(timezone.now())

    def bare():
        with connection.cursor() as cursor:
            cursor.execute(bare_sql, (1, key, "api", True, now, 1))
            assert cursor.rowcount == 1

    def orm():
        rows = UsagePeriod.objects.filter(
            Q(checkpoint_used__gt=F("used") + 1),
            organization=organization,
            meter="api",
            is_open=True,
            checkpoint_at__lt=far,
        )
        assert rows.update(used=F("used") + 1) == 1

    def request(handler):
        request = factory.get("/api/ping/")
        request.organization = organization
        return handler(request)

    assert row.limit is None
    return {
        "bare conditional UPDATE": bare,
        "the same through the ORM": orm,
        "consume()": lambda: consume(organization),
        "request, no-op middleware": lambda: request(no_op),
        "request, UsageTrackingMiddleware": lambda: request(tracking),
    }


def measure(calls):
    """Median seconds per call of each candidate."""
    seconds = taking_turns({name: repeated(call, CALLS) for name, call in calls.items()}, ROUNDS)
    return {name: statistics.median(values) / CALLS for name, values in seconds.items()}


def main():
    """Measure in a test database and print the table."""
    databases = setup_databases(verbosity=0, interactive=False)
    try:
        settings.ALLOWED_HOSTS = ["*"]
        set_urlconf(__name__)
        organization = OrganizationFactory(usage_limits={"api": None})
        consume(organization)
        medians = measure(candidates(organization))
    finally:
        teardown_databases(databases, verbosity=0)
    bare = medians["bare conditional UPDATE"]
    print(f"{connection.vendor}, Django {django.__version__}: median of {ROUNDS} rounds of {CALLS} calls")
    for name, seconds in medians.items():
        print(f"  {name:<34} {seconds * 1e6:8.1f} µs  {seconds / bare:5.2f} × bare UPDATE")
    added = medians["request, UsageTrackingMiddleware"] - medians["request, no-op middleware"]
    print(f"  {'added per counted request':<34} {added * 1e6:8.1f} µs  {added / bare:5.2f} × bare UPDATE")


if __name__ == "__main__":
    main()
