"""What resetting everybody costs: `python -m tests.benchmarks.resets --organizations 1000000`, on DATABASE_URL.

Prints the time of `reset_expired()` as a ratio to bare SQL that writes the same rows: on PostgreSQL one statement, on
the others, which cannot do that, four in one transaction. Both begin with the same tables, made anew.
"""

import argparse
import os
import resource
from datetime import UTC, datetime

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from django.core.management import call_command
from django.db import connection, transaction
from django.db.models import F
from django.test.utils import setup_databases, teardown_databases

from tests.benchmarks.tables import analyze
from tests.benchmarks.timing import timed
from tests.factories import Organization, OrganizationFactory
from usage_tracking.inserts import insert_for_each, values_of
from usage_tracking.ledger import opened
from usage_tracking.models import UsageEvent, UsageHistory, UsagePeriod
from usage_tracking.plans import meter_named, terms_of
from usage_tracking.resets import reset_expired

USED_AT, RESET_AT = datetime(2026, 3, 31, 12, tzinfo=UTC), datetime(2026, 4, 1, 0, 1, tzinfo=UTC)
NEXT = {
    "now": RESET_AT,
    "start": datetime(2026, 4, 1, tzinfo=UTC),
    "day": datetime(2026, 4, 2, tzinfo=UTC),
    "end": datetime(2026, 5, 1, tzinfo=UTC),
}


def seed(count):
    """Make so many organizations, each with an expired period that used something on its last day."""
    call_command("flush", interactive=False, verbosity=0)
    organization = OrganizationFactory()
    rows, made = Organization.objects.order_by("pk"), 1
    while made < count:  # twice as many each time, within the database
        missing = min(made, count - made)
        keys = rows.values_list("pk", flat=True)
        insert_for_each(rows.filter(pk__lte=keys[missing - 1]), Organization, values_of(organization))
        made += missing
    terms = terms_of(organization, meter_named("api"))
    period = opened(terms, terms.period_at(USED_AT), USED_AT)
    period.used = 7
    insert_for_each(Organization.objects.all(), UsagePeriod, values_of(period) | {"organization_id": F("pk")})
    analyze(Organization, UsagePeriod)


def bare():
    """Write the same rows with nothing in the way."""
    postgres, mariadb = connection.vendor == "postgresql", connection.vendor == "mysql"
    end, limit = map(connection.ops.quote_name, ("end", "limit"))
    key = "CONCAT('reset:', id)" if mariadb else "'reset:' || id"
    json = "jsonb_build_object" if postgres else "json_object"
    expired = f"is_open AND {end} <= %(now)s"
    closed = "closed" if postgres else "usage_tracking_usageperiod WHERE closed_at = %(now)s"
    close = (
        f"UPDATE usage_tracking_usageperiod SET is_open = NULL, closed_at = %(now)s, closed_by = 'scheduled', "
        f"bucket_start = {end}, checkpoint_at = {end}, used_before_bucket = used, refused_before_bucket = refused, "
        f"on_lease = 0 WHERE {expired}"
    )
    keep = (
        f"INSERT INTO usage_tracking_usagehistory (organization_id, meter, period_id, start, {end}, used, refused) "
        f"SELECT organization_id, meter, id, bucket_start, checkpoint_at, used - used_before_bucket, "
        f"refused - refused_before_bucket FROM usage_tracking_usageperiod WHERE {expired}"
    )
    begin = (
        f"INSERT INTO usage_tracking_usageperiod (organization_id, meter, start, {end}, is_open, used, refused, "
        f"on_lease, {limit}, enforcement, reset_mode, bucket_start, used_before_bucket, refused_before_bucket, "
        f"checkpoint_at, checkpoint_used, closed_by) SELECT organization_id, meter, %(start)s, %(end)s, %(open)s, "
        f"0, 0, 0, 1000, 'hard', 'lazy', %(start)s, 0, 0, %(day)s, 800, '' FROM {closed}"
    )
    tell = (
        f"INSERT INTO usage_tracking_usageevent (organization_id, kind, meter, period_id, {limit}, actor_label, "
        f"reason, data, created_at, delivered_at, dedupe_key) SELECT organization_id, 'reset', meter, id, 1000, '', "
        f"'', {json}('plan', 'free', 'used', 0, 'period_start', %(start_text)s, 'period_end', %(end_text)s, 'mode', "
        f"'scheduled', 'previous_used', used), %(now)s, %(now)s, {key} FROM {closed}"
    )
    statements = [keep, close, begin, tell]
    if postgres:
        returned = f"{close} RETURNING id, organization_id, meter, used"
        statements = [f"WITH kept AS ({keep}), closed AS ({returned}), begun AS ({begin}) {tell}"]
    values = {name: connection.ops.adapt_datetimefield_value(moment) for name, moment in NEXT.items()}
    texts = {"start_text": NEXT["start"].isoformat(), "end_text": NEXT["end"].isoformat(), "open": True}
    with transaction.atomic(), connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement, values | texts)


def written():
    """What was written, but for whose it is and when it was delivered: how many rows of each table, and which."""
    own = {"id", "organization_id", "period_id", "dedupe_key", "delivered_at"}
    found = []
    for model in (UsageEvent, UsageHistory, UsagePeriod):
        names = sorted({field.attname for field in model._meta.concrete_fields} - own)
        found.append((model.objects.count(), sorted(map(str, model.objects.values_list(*names).distinct()))))
    return found


def main():
    """Measure in a test database and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--organizations", type=int, default=20_000)
    count = parser.parse_args().organizations
    memory, handled = [], 0

    def progress(number):
        nonlocal handled
        handled += number
        if (len(memory) < 1 and handled >= count / 10) or handled >= count:
            memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)

    databases = setup_databases(verbosity=0, interactive=False)
    try:
        seed(count)
        bare_seconds = timed(bare)
        expected = written()
        seed(count)
        seconds = timed(lambda: reset_expired(RESET_AT, progress=progress))
        assert handled == count, handled
        assert written() == expected, "They did not write the same rows."
    finally:
        teardown_databases(databases, verbosity=0)
    print(f"{connection.vendor}, Django {django.__version__}: {count} organizations with an expired period")
    print(f"  {'bare SQL':<18} {bare_seconds:8.1f} s")
    ratio = f"{seconds / bare_seconds:5.2f} × bare SQL  {count / seconds:8.0f}/s"
    print(f"  {'reset_expired()':<18} {seconds:8.1f} s  {ratio}")
    print(f"  {'peak memory':<18} {memory[0]:8.1f} MB after a tenth, {memory[-1]:.1f} MB at the end")


if __name__ == "__main__":
    main()
