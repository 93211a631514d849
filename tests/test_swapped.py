"""Hosts differ in their organization: its key, and the migration it arrives in."""

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader

from usage_tracking.models import UsageEvent, UsageHistory, UsagePeriod, get_organization_model


@pytest.mark.parametrize("model", [UsagePeriod, UsageHistory, UsageEvent])
def test_our_tables_refer_to_the_organization_by_its_own_key(model, organization):
    """The column has the type of the host's key, and the database refuses a key of nobody."""
    key = model._meta.get_field("organization")
    assert key.related_model is get_organization_model()
    with connection.cursor() as cursor:
        constraints = connection.introspection.get_constraints(cursor, model._meta.db_table)
    assert (organization._meta.db_table, organization._meta.pk.column) in {
        constraint["foreign_key"] for constraint in constraints.values() if constraint["columns"] == [key.column]
    }


def test_our_tables_come_after_the_organization(db):
    """The plan of a first `migrate` creates the organization before the tables that refer to it."""
    app_label = settings.USAGE_TRACKING_ORGANIZATION_MODEL.partition(".")[0]
    loader = MigrationLoader(connection)
    created_in = next(
        key
        for key, migration in loader.disk_migrations.items()
        if key[0] == app_label
        and any(getattr(operation, "name", None) == "Organization" for operation in migration.operations)
    )
    assert created_in in loader.graph.forwards_plan(("usage_tracking", "0001_initial"))


@pytest.mark.django_db(transaction=True)
def test_our_tables_can_be_removed_and_made_again():
    """`migrate usage_tracking zero` takes the app out of a project, `migrate` brings it back."""
    call_command("migrate", "usage_tracking", "zero", verbosity=0)
    try:
        assert UsagePeriod._meta.db_table not in connection.introspection.table_names()
    finally:
        call_command("migrate", verbosity=0)
    assert not UsagePeriod.objects.exists()
