"""What every test may use, and what happens on a machine that lacks the database they were asked to run on."""

from __future__ import annotations

import os
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote, urlsplit

import pytest
from django.db import connections

from tests.factories import OrganizationFactory
from usage_tracking.counters import leased_counter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.dispatch import Signal

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
    except server.Database.Error as error:
        url = urlsplit(os.environ["DATABASE_URL"])
        return (
            f"No database server answers at {url.hostname}:{url.port}. To run these tests, start one there "
            f"or name yours in DATABASE_URL={url.scheme}://user:password@host:port/name. ({error})"
        )
    return None


def services_are_required() -> bool:
    """Whether a missing service is a failure, as it is in CI."""
    return os.environ.get("USAGE_TRACKING_REQUIRE_SERVICES") == "1"


def miss(reason: str) -> NoReturn:
    """Skip the running test for want of a service; fail it instead where services are required."""
    (pytest.fail if services_are_required() else pytest.skip)(reason)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip everything when the database server is missing; fail instead where services are required."""
    if reason := missing_database():
        if services_are_required():
            pytest.exit(reason, returncode=pytest.ExitCode.TESTS_FAILED)
        for item in items:
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_report_collectionfinish() -> str:
    """Say once why everything is skipped."""
    return missing_database() or ""


@pytest.fixture(autouse=True)
def _nothing_on_lease():
    """What a test has borrowed is not the next one's; a thread that settles finds nothing to do, and ends."""
    yield
    leased_counter.forget()


@pytest.fixture
def freeze(time_machine):
    """Stop the clock: `freeze(instant)`; again, to move it to another instant."""
    return partial(time_machine.move_to, tick=False)


@pytest.fixture
def configure(settings) -> Callable[..., None]:
    """Change keys of USAGE_TRACKING: `configure(ENFORCEMENT="soft")`."""

    def change(**changes: Any) -> None:
        settings.USAGE_TRACKING = {**getattr(settings, "USAGE_TRACKING", {}), **changes}

    return change


@pytest.fixture
def connected() -> Iterator[Callable[..., None]]:
    """Connect receivers for the length of a test: `connected(signal, receiver)`."""
    connections: list[tuple[Signal, Callable[..., Any]]] = []

    def connect(signal: Signal, receiver: Callable[..., Any]) -> None:
        signal.connect(receiver, weak=False)
        connections.append((signal, receiver))

    yield connect
    for signal, receiver in connections:
        signal.disconnect(receiver)


@pytest.fixture
def organization(db) -> UsageTrackedOrganization:
    """An organization of the selected model, under the settings' defaults."""
    return OrganizationFactory()


@pytest.fixture(scope="session")
def test_database_url(django_db_setup) -> str:
    """The test database as a `DATABASE_URL`, for a process that a test starts."""
    url = urlsplit(os.environ["DATABASE_URL"])
    # Not `geturl()`: on Python 3.11 it takes the first folder of an absolute path for a host.
    return f"{url.scheme}://{url.netloc}/{quote(connections['default'].settings_dict['NAME'])}"
