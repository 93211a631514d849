"""The other end of the harness: a process of its own, with Django on the database that its environment names.

Nothing of Django is imported before `serve` has set it up.
"""

from __future__ import annotations

import os
import signal
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from threading import Barrier
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Barrier as SharedBarrier
    from pathlib import Path

start_line: SharedBarrier
"""Where the clients of all processes wait for each other."""


def serve(pipe: Connection, environment: dict[str, str], barrier: SharedBarrier) -> None:
    """Do one job after the other, until None comes; answer each with its result, or with its traceback."""
    global start_line  # noqa: PLW0603 - a lock cannot be sent through the pipe later
    start_line = barrier
    os.environ |= environment
    import django  # noqa: PLC0415

    django.setup()
    while (job := pipe.recv()) is not None:
        try:
            pipe.send((job(), None))
        except Exception:  # noqa: BLE001 - the test that gave the job raises it
            pipe.send((None, traceback.format_exc()))


def together(
    clients: list[Callable[[], Any]], notebook: Path | None, settings: dict[str, Any], *, failing: bool
) -> list[Any]:
    """Run each client in a thread of its own, all starting at once; signals are noted in the notebook."""
    if not clients:
        start_line.wait()
        return []
    # The last thread to be ready waits for the other processes on behalf of all.
    ready = Barrier(len(clients), action=start_line.wait)
    with noted(notebook, failing=failing), counting(settings), ThreadPoolExecutor(len(clients)) as threads:
        futures = [threads.submit(_run, client, ready) for client in clients]
    return [future.result() for future in futures]


@contextmanager
def counting(settings: dict[str, Any]) -> Iterator[None]:
    """Count under the project's settings and these, and return in the end what is on lease.

    The time that the clients pretend is also the settler's: it would close their periods otherwise.
    """
    from django.test import override_settings  # noqa: PLC0415

    from usage_tracking.conf import given  # noqa: PLC0415
    from usage_tracking.counters import leased_counter  # noqa: PLC0415

    latest: list[datetime] = []
    take, settle_all = leased_counter.take, leased_counter.settle_all

    def noting(*arguments: Any, now: datetime, **options: Any) -> Any:
        latest[:] = [max([now, *latest])]
        return take(*arguments, now=now, **options)

    def in_pretended_time(now: datetime, **options: Any) -> None:
        settle_all(max(latest, default=now), **options)

    pretended = patch.multiple(leased_counter, take=noting, settle_all=in_pretended_time)
    with override_settings(USAGE_TRACKING={**given(), **settings}), pretended:
        try:
            yield
        finally:
            in_thread(leased_counter.end)
            leased_counter.forget()


def _run(client: Callable[[], Any], ready: Barrier) -> Any:
    from django.db import connection, connections  # noqa: PLC0415

    try:
        connection.ensure_connection()
        ready.wait()
        return client()
    finally:
        connections.close_all()


def in_thread(action: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Do an action in a thread, on a connection of its own, while this one waits; return what it returns."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(_run, partial(action, *arguments, **options), Barrier(1)).result()


@contextmanager
def noted(notebook: Path | None, *, failing: bool = False) -> Iterator[None]:
    """Write a line for each signal that this process sends; a failing receiver raises afterwards."""
    if notebook is None:
        yield
        return
    from usage_tracking.events import SIGNALS  # noqa: PLC0415

    def note(*, event: Any, **_: Any) -> None:
        # One write to a file opened for appending is one line, whoever else writes.
        with notebook.open("a", encoding="utf-8") as lines:
            lines.write(f"{event.kind} {event.pk}\n")
        if failing:
            raise RuntimeError("a receiver that raises")

    for sent in SIGNALS.values():
        sent.connect(note)
    try:
        yield
    finally:
        for sent in SIGNALS.values():
            sent.disconnect(note)


def survives(
    action: Callable[[], Any], settings: dict[str, Any], *, statements: int, notebook: Path | None = None
) -> bool:
    """Do the action in a copy of this process that is killed right after so many statements; whether it got through.

    `kill -9`: nothing is rolled back, closed or flushed by anybody but the database.
    """
    from django.db import connection  # noqa: PLC0415

    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code in {0, -signal.SIGKILL}, "The action failed by itself; its traceback is on stderr."
        return code == 0

    left = statements

    def count_down(execute: Any, *arguments: Any) -> Any:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        result = execute(*arguments)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    try:
        with noted(notebook), counting(settings), connection.execute_wrapper(count_down):
            action()
        os._exit(0)
    except BaseException:  # noqa: BLE001 - this copy must never go on as the worker
        traceback.print_exc()
        os._exit(1)
