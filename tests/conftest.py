"""What every test may use, and what happens on a machine that lacks the database they were asked to run on."""

from __future__ import annotations

import os
from functools import cache, partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from django.db import connections

from tests.factories import OrganizationFactory

if TYPE_CHECKING:
    from usage_tracking.models import UsageTrackedOrganization


@cache
def missing_database() -> str | None:
    """Why the database server of `DATABASE_URL` cannot be used, or None when it can."""
    connection = connections["default"]
    if connection.vendor == "sqlite":
        return None
    # Without a name, as Django does it to create the test database: pytest-django guards the connection itself.
    server = type(connection)({**connection.settings_dict, "NAME": None})
    try:
        server.get_new_connection(server.get_connection_params()).close()
    except server.Database.Error as error:  # type: ignore[attr-defined]  # each backend has one
        url = urlsplit(os.environ["DATABASE_URL"])
        return (
            f"No database server answers at {url.hostname}:{url.port}. To run these tests, start one there "
            f"or name yours in DATABASE_URL={url.scheme}://user:password@host:port/name. ({error})"
        )
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip everything when the database server is missing; fail instead where services are required."""
    if reason := missing_database():
        if os.environ.get("USAGE_TRACKING_REQUIRE_SERVICES") == "1":
            pytest.exit(reason, returncode=pytest.ExitCode.TESTS_FAILED)
        for item in items:
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_report_collectionfinish() -> str:
    """Say once why everything is skipped."""
    return missing_database() or ""


@pytest.fixture
def freeze(time_machine):
    """Stop the clock: `freeze(instant)`; again, to move it to another instant."""
    return partial(time_machine.move_to, tick=False)


@pytest.fixture
def organization(db) -> UsageTrackedOrganization:
    """An organization of the selected model, under the settings' defaults."""
    return OrganizationFactory()


@pytest.fixture
def test_database_url() -> str:
    """The test database as a `DATABASE_URL`, for a process that a test starts."""
    name = connections["default"].settings_dict["NAME"]
    return urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()
