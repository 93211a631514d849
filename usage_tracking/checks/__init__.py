"""System checks: a mistake in the setup is named by `manage.py check`, before a request meets it.

No check asks a database unless `--database` (or `migrate`) does, and none raises because of the settings: a check
that needs a broken one is silent, and `check_settings` names it. docs/reference/checks.md explains every id.
"""

from django.core.checks import Tags, register

from usage_tracking.checks.databases import (
    check_charge_database,
    check_connections,
    check_counter,
    check_leasing,
    check_sqlite,
)
from usage_tracking.checks.organization import (
    check_organization,
    check_organization_migrated,
    check_organization_unchanged,
)
from usage_tracking.checks.requests import check_middleware, check_paths, check_view_meters
from usage_tracking.checks.settings import (
    check_api_keys,
    check_asked_plans,
    check_celery,
    check_lease,
    check_settings,
    check_time_zones,
)

__all__ = ["register_checks"]

TAG = "usage_tracking"


def register_checks() -> None:
    """Register the checks with Django."""
    for check in (
        check_settings,
        check_time_zones,
        check_celery,
        check_api_keys,
        check_lease,
        check_organization,
        check_middleware,
        check_paths,
        check_view_meters,
        check_charge_database,
        check_sqlite,
    ):
        register(check, TAG)
    # A development server may open as many connections as it likes.
    register(check_connections, TAG, deploy=True)
    register(check_counter, TAG, deploy=True)
    # Without our own tag: `check --tag usage_tracking` would ask every database.
    register(check_asked_plans, Tags.database)
    register(check_leasing, Tags.database)
    register(check_organization_migrated, Tags.database)
    register(check_organization_unchanged, Tags.database)
