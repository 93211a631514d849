"""Beginning again after a deadlock, and telling one that no database sees.

Locks are taken in one order, the organization's row before its period's, but that does not rule deadlocks out: InnoDB
locks entries of unique indexes, and their neighbours, in an order of its own when one open row is closed and the next
inserted while requests wait for it; and a caller's transaction may hold a period's row while it asks for the
organization's. The database then undoes one of the transactions, which has done nothing at all and may begin again.
"""

from collections.abc import Callable, Collection
from functools import wraps
from typing import Final, ParamSpec, TypeVar

from django.db import OperationalError, connections

__all__ = ["LockTimeout", "in_any_transaction", "is_lock_timeout", "retried"]

P = ParamSpec("P")
R = TypeVar("R")

ATTEMPTS: Final = 10
"""Each failed one means that somebody else got ahead; past this the error goes to the caller."""

DEADLOCK: Final = {"40001", "40P01", 1213}
"""PostgreSQL's serialization_failure (where the host has raised the isolation level) and deadlock_detected; MariaDB's
ER_LOCK_DEADLOCK."""

LOCK_TIMEOUT: Final = {"55P03", 1205}
"""PostgreSQL's lock_not_available and MariaDB's ER_LOCK_WAIT_TIMEOUT."""


class LockTimeout(OperationalError):
    """What a thread of this process has locked was waited for as long as that is sensible."""


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
                if in_any_transaction() or not _is(DEADLOCK, error):
                    raise
        return function(*args, **kwargs)

    return persistent


def in_any_transaction() -> bool:
    """Return whether the caller has begun a transaction, on whichever database."""
    return any(connection.in_atomic_block for connection in connections.all(initialized_only=True))


def is_lock_timeout(error: Exception) -> bool:
    """Return whether somebody was waited for in vain, and nothing was done."""
    return isinstance(error, LockTimeout) or _is(LOCK_TIMEOUT, error)


def _is(codes: Collection[object], error: Exception) -> bool:
    cause = error.__cause__
    # psycopg calls it sqlstate, psycopg2 pgcode; drivers of MariaDB have a number, beside one of their own perhaps.
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return state in codes or any(code in codes for code in error.args[:1])
