"""Brokers, and the processes of a host that work on them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from django.conf import settings

from tests.conftest import miss

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery import Celery

PATIENCE = 90
"""Seconds after which what has not happened will not happen."""

CHECKOUT = Path(__file__).resolve().parent.parent.parent
URLS = {"RabbitMQ": ("BROKER_URL", settings.BROKER_URL), "Redis": ("REDIS_URL", settings.REDIS_URL)}


class Host:
    """A project with a Celery application, and the processes that it runs."""

    def __init__(self, broker_url: str, database_url: str, folder: Path) -> None:
        from tests.services.host import application  # noqa: PLC0415 - it imports Celery

        self.broker_url = broker_url
        self.queue = f"usage-tracking-{uuid4()}"
        self.app: Celery = application(broker_url, self.queue)
        self.folder = folder
        self.notebook = folder / "notebook"
        self.environment = os.environ | {
            "DATABASE_URL": database_url,
            "CELERY_TEST_BROKER": broker_url,
            "CELERY_TEST_QUEUE": self.queue,
            "NOTEBOOK": str(self.notebook),
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *arguments: str) -> None:
        """Start a process of Celery."""
        command = [sys.executable, "-m", "celery", "-A", "tests.services.host", name, "--loglevel=INFO", *arguments]
        with self.log(name).open("wb") as log:
            self.processes[name] = subprocess.Popen(
                command, cwd=CHECKOUT, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )

    def start_worker(self) -> None:
        """Start a worker: one process, so that it ends when it is told to."""
        self.start("worker", "--pool=solo", "--without-gossip", "--without-mingle", "--without-heartbeat")

    def start_beat(self, *arguments: str) -> None:
        """Start beat, with its files in a folder of the test."""
        self.start("beat", "--schedule", str(self.folder / "schedule"), "--pidfile=", "--max-interval=1", *arguments)

    def log(self, name: str) -> Path:
        """Return where a process writes what it does."""
        return self.folder / f"{name}.log"

    def told(self) -> list[tuple[int, str, int]]:
        """Return (process, kind, key) of each event that a receiver in one of our processes got."""
        if not self.notebook.exists():
            return []
        lines = [line.split() for line in self.notebook.read_text(encoding="utf-8").splitlines()]
        return [(int(process), kind, int(event)) for process, kind, event in lines]

    def eventually(self, condition: Callable[[], Any]) -> Any:
        """Wait until `condition()` is truthy and return it; fail when a process has died or patience is at an end."""
        deadline = time.monotonic() + PATIENCE
        while not (answer := condition()):
            logs = "\n".join(f"-- {name}\n{self.log(name).read_text()}" for name in self.processes)
            for name, process in self.processes.items():
                assert process.poll() is None, f"{name} has died.\n{logs}"
            assert time.monotonic() < deadline, f"It did not happen.\n{logs}"
            time.sleep(0.1)
        return answer

    def stop(self) -> None:
        """End all processes and leave nothing on the broker."""
        for process in self.processes.values():
            process.kill()
            process.wait()
        if self.broker_url.startswith("redis"):
            import redis  # noqa: PLC0415 - an option of Celery's

            with redis.Redis.from_url(self.broker_url) as client:
                client.delete(*client.scan_iter(f"{self.queue}:*"), "usage-tracking-nothing")
        else:
            with self.app.connection_for_write() as connection:
                connection.default_channel.queue_delete(self.queue)
                connection.default_channel.exchange_delete(self.queue)
        self.app.close()


@pytest.fixture(params=list(URLS))
def broker_url(request) -> str:
    """RabbitMQ and Redis, one after the other."""
    variable, url = URLS[request.param]
    if request.param == "Redis":
        pytest.importorskip("redis", reason="Redis as a broker needs the package `redis`.")
    import kombu  # noqa: PLC0415 - Celery brings it

    try:
        with kombu.Connection(url, connect_timeout=5) as connection:
            connection.ensure_connection(max_retries=1, timeout=5)
    except (OSError, kombu.exceptions.OperationalError) as error:
        miss(f"{request.param} does not answer at {variable}={url}. To run these tests, start it there. ({error})")
    return url


@pytest.fixture
def host(broker_url, test_database_url, transactional_db, tmp_path) -> Iterator[Host]:
    """A host on that broker and on the test database; what a test writes is committed."""
    host = Host(broker_url, test_database_url, tmp_path)
    yield host
    host.stop()


@pytest.fixture
def as_default() -> Iterator[Callable[[Celery], None]]:
    """Make an application the one that this process sends its tasks to: `as_default(app)`."""
    from celery import _state  # noqa: PLC0415 - as an app's own set_default() does it

    before = _state.default_app

    def make(app: Celery) -> None:
        _state.set_default_app(app)
        app.set_current()

    yield make
    _state.set_default_app(before)
    _state._tls.current_app = None
