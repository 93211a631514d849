"""Real processes with real threads, each with its own connection."""

from __future__ import annotations

import os
import random
from datetime import timedelta
from functools import partial
from multiprocessing import get_context
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tests.concurrency import worker

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    Client = Callable[[], Any]
    Call = tuple[datetime, int]
    """When, and how much."""

PATIENCE = 120
"""Seconds after which a process that does not answer has hung."""

SECOND = timedelta(seconds=1)


class Crowd:
    """Some processes, started once for all tests; `environment` is what they have beside the database."""

    settings: Mapping[str, Any] = MappingProxyType({})
    """What the processes have in USAGE_TRACKING, besides."""

    def __init__(self, size: int, database_url: str, *, patience: float = PATIENCE, **environment: str) -> None:
        self._patience = patience
        # Not forked: they must share no connection and no lock with the tests.
        context = get_context("spawn")
        self._start_line = context.Barrier(size, timeout=patience)
        self._pipes, self._processes = [], []
        environment = {"DJANGO_SETTINGS_MODULE": "tests.settings", "DATABASE_URL": database_url} | environment
        for _ in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=worker.serve, args=(theirs, environment, self._start_line), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def run(self, *processes: Sequence[Client], notebook: Path | None = None, failing: bool = False) -> list[list[Any]]:
        """Run the clients of each process at once; return what each client returned, process by process.

        The signals they send are written into `notebook`, a line each; with `failing` the receivers then raise. In the
        end each process returns what it has on lease.
        """
        self.start(*processes, notebook=notebook, failing=failing)
        return self.answers(*range(len(self._pipes)))[: len(processes)]

    def start(self, *processes: Sequence[Client], notebook: Path | None = None, failing: bool = False) -> None:
        """Do the same without waiting for the end: whoever does not die has to be asked for its `answers`."""
        groups = [list(clients) for clients in processes]
        groups += [[]] * (len(self._pipes) - len(groups))
        for pipe, clients in zip(self._pipes, groups, strict=True):
            pipe.send(partial(worker.together, clients, notebook, dict(self.settings), failing=failing))

    def answers(self, *processes: int) -> list[list[Any]]:
        """Wait for some of the processes; return what each of their clients returned."""
        # All of them first: an answer that is left in its pipe would be the next test's.
        received = [self._receive(index) for index in processes]
        return [self._checked(index, *answer) for index, answer in zip(processes, received, strict=True)]

    def send_signal(self, process: int, number: signal.Signals) -> None:
        """Send a signal to one of the processes."""
        os.kill(self.key_of(process), number)

    def key_of(self, process: int) -> int:
        """Return the system's number of one of the processes."""
        key = self._processes[process].pid
        assert key is not None
        return key

    def survives(self, action: Client, *, statements: int, notebook: Path | None = None) -> bool:
        """Do one action in a process that is killed after so many statements; return whether it got through."""
        return bool(
            self.ask(partial(worker.survives, action, dict(self.settings), statements=statements, notebook=notebook))
        )

    def ask(self, action: Client) -> Any:
        """Do one action in the first process, on its main thread; return what it returns."""
        self._pipes[0].send(action)
        return self._checked(0, *self._receive(0))

    def close(self) -> None:
        """Let all processes end, or end them."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            if process.is_alive():
                pipe.send(None)
                process.join(self._patience)
            # Whoever hangs or was stopped holds nobody else up: not by its locks either.
            process.kill()
            pipe.close()

    def _receive(self, index: int) -> tuple[Any, str | None]:
        pipe = self._pipes[index]
        assert pipe.poll(self._patience), f"Process {index} hangs."
        answer: tuple[Any, str | None] = pipe.recv()
        return answer

    def _checked(self, index: int, result: Any, error: str | None) -> Any:
        if error is not None:
            raise AssertionError(f"In process {index}:\n{error}")
        return result


def storm(
    start: datetime,
    calls: int,
    *,
    amounts: Sequence[int] = (1,),
    length: timedelta = SECOND,
    skew: timedelta = timedelta(0),
) -> list[Call]:
    """Return so many calls in `length` of pretended time; the clocks are wrong by up to `skew`."""
    choice = random.Random(calls)  # noqa: S311 - the same calls in each run
    return [
        (start + length * number / calls + skew * choice.uniform(-1, 1), choice.choice(amounts))
        for number in range(calls)
    ]


def deal(client: Callable[..., Any], pk: object, calls: Sequence[Call]) -> list[list[Client]]:
    """Deal the calls out to 2 processes × 8 clients, one by one, so that all of them keep about the same time."""
    clients = [partial(client, pk, calls[number::16]) for number in range(16)]
    return [clients[:8], clients[8:]]


def flat(results: list[list[Any]]) -> list[Any]:
    """Return all answers of all clients of all processes."""
    return [answer for process in results for client in process for answer in client]
