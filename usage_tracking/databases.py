"""Connections and their locks, and CHARGE_DATABASE: a second name for the database of the usage.

A charge that joined the view's transaction would hold the open period's row for as long as the view runs, and vanish
with its rollback. On a connection of its own it is committed at once.
"""

import math
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Final, TypeVar

from django.db import Error, connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model, QuerySet

from usage_tracking.conf import SettingError, usage_settings
from usage_tracking.models import UsagePeriod

__all__ = [
    "LOCK_WAIT_SECONDS",
    "apart",
    "charge_alias",
    "close_own",
    "home_of",
    "is_marked",
    "limit_lock_waits",
    "limit_own_waits",
    "locking",
    "mark",
    "may_have_to_be_joined",
    "must_be_joined",
    "survival_of",
]

M = TypeVar("M", bound=Model)
R = TypeVar("R")

LOCK_WAIT_SECONDS: Final = 2
"""How long a charge on CHARGE_DATABASE waits for a row before ON_COUNTER_ERROR decides."""


def charge_alias(home: str) -> str:
    """Return the alias on which to charge usage that lives on `home`.

    That is `home`, unless it is in a transaction and CHARGE_DATABASE keeps out of it. In the transaction of a test
    case there is no keeping out: what the test wrote is invisible to every other connection.
    """
    alias = usage_settings.CHARGE_DATABASE
    return home if alias is None or not connections[home].in_atomic_block or must_be_joined(home) else alias


def home_of(alias: str) -> str:
    """Return the alias that the rest of the project knows the usage on `alias` by: CHARGE_DATABASE is nobody's home.

    What this process remembers is filed under it, and receivers get an organization that belongs to it: one that
    belonged to CHARGE_DATABASE could not be related to the host's other objects.
    """
    return router.db_for_write(UsagePeriod) if alias == usage_settings.CHARGE_DATABASE else alias


def survival_of(connection: BaseDatabaseWrapper) -> Callable[[], bool]:
    """Return a function that tells whether what the running transaction has done so far still stands."""
    committed: list[bool] = []

    def kept() -> None:
        committed.append(True)

    transaction.on_commit(kept, using=connection.alias)
    # A rolled-back savepoint drops its callbacks; under a test case the outermost block never commits.
    return lambda: bool(committed) or is_marked(connection, kept)


def mark(connection: BaseDatabaseWrapper) -> Callable[[], None]:
    """Leave a mark in the running transaction, by which `is_marked` knows it until it ends."""

    def left_by_us() -> None:
        """Do nothing: that this is still to be called after the commit is the mark."""

    transaction.on_commit(left_by_us, using=connection.alias)
    return left_by_us


def is_marked(connection: BaseDatabaseWrapper, left: Callable[[], None] | None) -> bool:
    """Return whether the transaction that runs on the connection bears this mark."""
    return any(callback is left for _, callback, *_ in connection.run_on_commit)


def locking(rows: QuerySet[M], *, skip_locked: bool = False) -> QuerySet[M]:
    """Return the query that locks these rows until the running transaction ends, as far as the database can.

    `skip_locked` leaves those out that somebody else has locked; a database that cannot do that waits for them.
    """
    connection = connections[rows.db]
    features = connection.features
    if features.has_select_for_update:
        # NO KEY: other tables' foreign keys to these rows need not wait for us.
        return rows.select_for_update(
            no_key=features.has_select_for_no_key_update,
            skip_locked=skip_locked and features.has_select_for_update_skip_locked,
        )
    # SQLite has one lock for all, and only a transaction that begins with a write gets in line for it.
    table = connection.ops.quote_name(rows.model._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET rowid = rowid WHERE 1 = 0")  # noqa: S608 - no value of anybody's
    return rows


def limit_lock_waits(*, connection: BaseDatabaseWrapper, **_: Any) -> None:
    """Receiver of `connection_created`: on CHARGE_DATABASE nobody waits for a row for more than two seconds.

    The view's own transaction may hold that very row, and no database sees a deadlock between two connections.
    """
    try:
        is_for_charges = connection.alias == usage_settings.CHARGE_DATABASE
    except SettingError:
        return  # a system check names it; the host's other connections must not fail for it
    # An alias that views use as well (a check error) keeps the host's own lock timeout.
    if is_for_charges and not connection.settings_dict["ATOMIC_REQUESTS"]:
        _limit_lock_waits(connection, LOCK_WAIT_SECONDS)


def apart(using: str, work: Callable[[], R], *, patience: float = LOCK_WAIT_SECONDS) -> R:
    """Do `work` in no transaction of the caller: in a thread, hence on a connection of its own, if there is one.

    There, too, nobody waits for a row for more than `patience` seconds: it may be the caller who holds it.
    """
    if not connections[using].in_atomic_block:
        return work()

    def on_its_own_connection() -> R:
        try:
            _limit_lock_waits(connections[using], patience)
            return work()
        finally:
            close_own()

    # Its end is waited for, also when the caller is interrupted: what is done here is done under the caller's locks.
    with ThreadPoolExecutor(1, thread_name_prefix="usage-apart") as thread:
        return thread.submit(copy_context().run, on_its_own_connection).result()


def limit_own_waits(using: str) -> None:
    """Wait for no row for more than two seconds on this thread's connection: others wait for what it does."""
    _limit_lock_waits(connections[using], LOCK_WAIT_SECONDS)


def close_own() -> None:
    """Close this thread's connections, and leave no limit to whoever gets them from a pool."""
    for connection in connections.all(initialized_only=True):
        _return_to_pool(connection)
    connections.close_all()


def _limit_lock_waits(connection: BaseDatabaseWrapper, patience: float) -> None:
    statements = {
        "postgresql": f"SET lock_timeout = '{round(patience * 1000)}ms'",
        # In whole seconds, of which MariaDB takes 0 for no wait at all.
        "mysql": f"SET SESSION innodb_lock_wait_timeout = {math.ceil(patience)}",
    }
    if statement := statements.get(connection.vendor):
        with connection.cursor() as cursor:
            cursor.execute(statement)


def _return_to_pool(connection: BaseDatabaseWrapper) -> None:
    """Leave no limit to whoever is next to get this connection from Django's pool."""
    if getattr(connection, "pool", None) is not None and connection.connection is not None:
        with suppress(Error), connection.cursor() as cursor:
            cursor.execute("RESET lock_timeout")


def may_have_to_be_joined(alias: str) -> bool:
    """Return whether some transaction on `alias` may be one for `must_be_joined`, which need not be asked otherwise.

    A server's process has not loaded Django's test cases.
    """
    return connections[alias].vendor == "sqlite" or "django.test.testcases" in sys.modules


def must_be_joined(alias: str) -> bool:
    """Return whether there is no keeping out of the transaction that runs on `alias`.

    So it is in a test case, as nobody else can see what is written there, and on SQLite, which has one writer at a
    time: a second connection would wait for the first until it times out.
    """
    connection = connections[alias]
    return connection.in_atomic_block and (connection.vendor == "sqlite" or _is_in_test_case(connection))


def _is_in_test_case(connection: BaseDatabaseWrapper) -> bool:
    return any(getattr(block, "_from_testcase", False) for block in connection.atomic_blocks)
