"""The loser of a deadlock begins again, unless it is the caller's transaction that was lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Event

import pytest
from django.db import OperationalError, connection, connections, transaction

from tests.factories import OrganizationFactory
from usage_tracking.deadlocks import ATTEMPTS, retried
from usage_tracking.metering import consume, refund, usage_of

NOW = datetime(2025, 6, 10, 12, tzinfo=UTC)
PATIENCE = 60


class PostgresError(Exception):
    """What psycopg raises, as far as we look at it."""

    def __init__(self, sqlstate):
        self.sqlstate = sqlstate


def failure(cause=None, *args):
    """The error that Django makes of a driver's."""
    error = OperationalError(*args)
    error.__cause__ = cause
    return error


DEADLOCKS = [
    pytest.param(failure(None, 1213, "Deadlock found"), id="mariadb"),
    pytest.param(failure(PostgresError("40P01")), id="postgresql"),
    pytest.param(failure(PostgresError("40001")), id="postgresql serializable"),
]
OTHERS = [
    pytest.param(failure(None, 1205, "Lock wait timeout exceeded"), id="mariadb"),
    pytest.param(failure(PostgresError("55P03")), id="postgresql"),
    pytest.param(failure(None, "database is locked"), id="sqlite"),
]


def failing(error, *, times):
    """A function that raises so many times before it answers, and the list of its calls."""
    calls = []

    @retried
    def function(answer):
        calls.append(answer)
        if len(calls) <= times:
            raise error
        return answer

    return function, calls


@pytest.mark.parametrize("error", DEADLOCKS)
def test_loser_begins_again(transactional_db, error):
    """A deadlock costs the caller nothing, and a series of them ends."""
    function, calls = failing(error, times=ATTEMPTS - 1)
    assert function("done") == "done"
    assert len(calls) == ATTEMPTS

    function, calls = failing(error, times=ATTEMPTS)
    with pytest.raises(OperationalError):
        function("done")
    assert len(calls) == ATTEMPTS


@pytest.mark.parametrize("error", OTHERS)
def test_other_errors_are_not_repeated(transactional_db, error):
    """A lock that was waited for in vain is not waited for again."""
    function, calls = failing(error, times=1)
    with pytest.raises(OperationalError):
        function("done")
    assert len(calls) == 1


@pytest.mark.parametrize("error", DEADLOCKS)
def test_callers_transaction_is_the_callers_to_repeat(transactional_db, error):
    """Inside of `atomic()` a deadlock propagates: the database has undone the whole of it."""
    function, calls = failing(error, times=1)
    with pytest.raises(OperationalError), transaction.atomic():
        function("done")
    assert len(calls) == 1


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one lock for all, so nobody waits in a circle.")
def test_deadlock_with_a_callers_transaction(transactional_db):
    """A transaction of the host that holds the period's row and asks for the organization's meets a refund that does
    the opposite: the refund is made, and the host's transaction is counted unless it was undone.
    """  # noqa: D205
    organization = OrganizationFactory(usage_limits={"api": 10})
    consume(organization, 5, now=NOW)
    holds_period, wants_period = Event(), Event()

    def give_back():
        def announce(execute, sql, *arguments):
            if "usage_tracking_usageperiod" in sql and "FOR UPDATE" in sql:
                wants_period.set()
            return execute(sql, *arguments)

        assert holds_period.wait(PATIENCE)
        try:
            with connection.execute_wrapper(announce):
                return refund(organization, 1, now=NOW)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(give_back)
        try:
            with transaction.atomic():
                consume(organization, 1, now=NOW)
                holds_period.set()
                assert wants_period.wait(PATIENCE)
                consume(organization, 2, now=NOW)
            counted = 3
        except OperationalError:
            counted = 0
    assert answer.result() == 1
    assert usage_of(organization, now=NOW).used == 5 + counted - 1
