"""What a request costs beyond its resolver: queries, by count."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.doors.conftest import Caller
from tests.factories import Organization
from usage_tracking.entitlements import update_limits
from usage_tracking.metering import consume

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def _resolved(organization, configure):
    """Resolve every request to the organization, without asking the database."""
    known = Organization(pk=organization.pk)
    configure(ORGANIZATION_RESOLVER=lambda _: known)


def queries_of(caller: Caller) -> list[str]:
    """Return the verbs of what one request asks the database."""
    with CaptureQueriesContext(connection) as queries:
        caller.get()
    return [query["sql"].split()[0] for query in queries]


@pytest.mark.usefixtures("_resolved")
@pytest.mark.parametrize("kind", ["session", "session, ASGI", "session, both doors"])
def test_an_admitted_request_is_one_update(organization, kind):
    """Between the rails a request is one statement; a database without RETURNING reads the row once."""
    caller = Caller(kind, organization).anonymous()
    consume(organization)
    assert queries_of(caller) == (["UPDATE", "SELECT"] if connection.vendor == "mysql" else ["UPDATE"])


def test_so_it_is_through_the_throttle(organization):
    """The second door costs the same."""
    caller = Caller("token", organization).anonymous()
    consume(organization)
    assert queries_of(caller) == (["UPDATE", "SELECT"] if connection.vendor == "mysql" else ["UPDATE"])


@pytest.mark.usefixtures("_resolved")
@pytest.mark.parametrize("kind", ["session", "session, ASGI", "session, both doors"])
def test_an_exhausted_organization_leaves_the_database_alone(organization, kind, freeze):
    """Within the second that a refusal is remembered, the next costs no query."""
    freeze("2026-03-10T12:00:00Z")
    update_limits(organization, limits={"api": 0})
    caller = Caller(kind, organization).anonymous()
    assert queries_of(caller)
    assert queries_of(caller) == []
    assert caller.get().status_code == 429
    freeze("2026-03-10T12:00:01Z")
    assert queries_of(caller)


@pytest.mark.usefixtures("_resolved")
def test_what_is_not_counted_costs_nothing(organization):
    """No query for an exempt view."""
    caller = Caller("session", organization).anonymous()
    with CaptureQueriesContext(connection) as queries:
        assert caller.get("exempt").status_code == 200
    assert not queries.captured_queries
