"""Beginning again after a deadlock.

Locks are taken in one order, the organization's row before its period's, but that does not rule deadlocks out: InnoDB
locks entries of unique indexes, and their neighbours, in an order of its own when one open row is closed and the next
inserted while requests wait for it; and a caller's transaction may hold a period's row while it asks for the
organization's. The database then undoes one of the transactions, which has done nothing at all and may begin again.
"""

from collections.abc import Callable
from functools import wraps
from typing import Final, ParamSpec, TypeVar

from django.db import OperationalError, connections

__all__ = ["in_transaction", "retried"]

P = ParamSpec("P")
R = TypeVar("R")

ATTEMPTS: Final = 10
"""Each failed one means that somebody else got ahead; past this the error goes to the caller."""

MYSQL_DEADLOCK: Final = 1213
SQLSTATES: Final = ("40001", "40P01")
"""PostgreSQL's serialization_failure (where the host has raised the isolation level) and deadlock_detected."""


def retried(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that is one transaction: the loser of a deadlock begins again.

    Inside the caller's transaction the error propagates: all of it is undone, and only the caller can begin again.
    """

    @wraps(function)
    def persistent(*args: P.args, **kwargs: P.kwargs) -> R:
        for _ in range(ATTEMPTS - 1):
            try:
                return function(*args, **kwargs)
            except OperationalError as error:
                if in_transaction() or not _is_deadlock(error):
                    raise
        return function(*args, **kwargs)

    return persistent


def in_transaction() -> bool:
    """Return whether the caller has begun a transaction, on whichever database."""
    return any(connection.in_atomic_block for connection in connections.all(initialized_only=True))


def _is_deadlock(error: OperationalError) -> bool:
    cause = error.__cause__
    # psycopg calls it sqlstate, psycopg2 pgcode; mysqlclient has the number only.
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return state in SQLSTATES or error.args[:1] == (MYSQL_DEADLOCK,)
