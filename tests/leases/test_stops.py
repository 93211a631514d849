"""P2 across graceful stops: whoever ends returns what it has on lease, and what was admitted is counted to the unit."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection

from tests.factories import OrganizationFactory
from usage_tracking.models import UsageHistory, UsageLease, UsagePeriod

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        connection.vendor != "postgresql",
        reason="How a process ends has nothing to do with its database: DATABASE_URL=postgres://… runs these.",
    ),
]

CHECKOUT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 60
"""Seconds after which what has not happened will not happen."""


class Host:
    """A process of the host that counts for one organization."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self.organization = OrganizationFactory(usage_limits={"api": 1_000_000})
        self.served_in, self.log = folder / "served", folder / "log"
        self.served_in.touch()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.environment = os.environ | {
            "DATABASE_URL": database_url,
            "DJANGO_SETTINGS_MODULE": "tests.leases.settings",
            "ORGANIZATION": str(self.organization.pk),
            "PYTHONPATH": f"{CHECKOUT}:{folder}",
            "SERVED": str(self.served_in),
        }

    @contextmanager
    def running(self, *command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run `python -m command`."""
        command = (sys.executable, "-m", *(part.format(port=self.port) for part in command))
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=CHECKOUT,
                env=self.environment | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # with its workers, so that none of them outlives a test that fails
            )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    @contextmanager
    def under_load(self, path: str) -> Iterator[None]:
        """Ask from four threads for as long as the block lasts."""
        enough = Event()
        clients = [Thread(target=self._ask, args=(path, enough)) for _ in range(4)]
        for client in clients:
            client.start()
        try:
            yield
        finally:
            enough.set()
            for client in clients:
                client.join()

    def _ask(self, path: str, enough: Event) -> None:
        while not enough.is_set():
            client = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
            try:
                client.request("GET", path)
                client.getresponse().read()
            except (OSError, HTTPException):
                enough.wait(0.05)  # not there yet, or not any more
            finally:
                client.close()

    @property
    def served(self) -> int:
        """How many uses were admitted."""
        return self.served_in.stat().st_size

    def eventually(self, condition: Callable[[], Any], process: subprocess.Popen[bytes]) -> None:
        """Wait until it holds, while the process runs."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"It did not happen.\n{self.log.read_text()}"
            time.sleep(0.05)

    def is_busy(self, processes: int = 1) -> bool:
        """Whether so many processes have something on lease, and have admitted something from it."""
        return UsageLease.objects.count() >= processes and self.served > 100 * processes

    def holders(self) -> set[str]:
        """Return who has something on lease."""
        return set(UsageLease.objects.values_list("holder", flat=True))

    def has_ended(self, process: subprocess.Popen[bytes], *codes: int) -> None:
        """Wait for the end of the process: nothing is on lease after it, and all that was admitted is counted."""
        code = process.wait(PATIENCE)
        assert code in codes, self.log.read_text()
        self.is_settled()

    def is_settled(self) -> None:
        """Check that nothing is on lease, and that all that was admitted is counted."""
        assert not UsageLease.objects.exists(), self.log.read_text()
        period = UsagePeriod.objects.get()
        assert period.on_lease == 0
        assert period.used == self.served > 0
        assert sum(row.used for row in UsageHistory.objects.all()) == period.used_before_bucket


@pytest.fixture
def host(test_database_url, tmp_path) -> Host:
    """A host on the test database, which nobody settles for."""
    return Host(test_database_url, tmp_path)


GUNICORN = ("gunicorn", "tests.leases.wsgi:application", "--bind=127.0.0.1:{port}")
UVICORN = ("uvicorn", "tests.leases.asgi:application", "--port={port}", "--lifespan=off")
HYPERCORN = ("hypercorn", "tests.leases.asgi:application", "--bind=127.0.0.1:{port}")
GRANIAN = ("granian", "tests.leases.wsgi:application", "--interface=wsgi", "--port={port}")
WAITRESS = ("waitress", "--listen=127.0.0.1:{port}", "tests.leases.wsgi:application")
WSGI_IN_UVICORN = ("uvicorn", "tests.leases.wsgi:application", "--interface=wsgi", *UVICORN[2:])


@pytest.mark.parametrize(
    ("command", "resolver", "path", "processes"),
    [
        pytest.param((*GUNICORN, "--workers=2"), "organization_of", "/api/serve/", 2, id="gunicorn sync"),
        pytest.param((*GUNICORN, "--workers=2", "--threads=4"), "organization_of", "/api/serve/", 2, id="gthread"),
        pytest.param((*GUNICORN, "--workers=2", "--preload"), "organization_of", "/api/serve/", 2, id="preload"),
        pytest.param(UVICORN, "organization_of_async", "/api/aserve/", 1, id="uvicorn"),
        pytest.param(UVICORN, "organization_of", "/api/serve/", 1, id="uvicorn, in threads"),
        pytest.param(WSGI_IN_UVICORN, "organization_of", "/api/serve/", 1, id="uvicorn, WSGI"),
        pytest.param((*UVICORN, "--workers=2"), "organization_of_async", "/api/aserve/", 2, id="uvicorn, 2 workers"),
        pytest.param(HYPERCORN, "organization_of_async", "/api/aserve/", 1, id="hypercorn"),
        pytest.param((*GRANIAN, "--workers=2"), "organization_of", "/api/serve/", 2, id="granian"),
        pytest.param(WAITRESS, "organization_of", "/api/serve/", 1, id="waitress"),
    ],
)
def test_a_server_returns_everything_at_sigterm(host, command, resolver, path, processes):
    """Told to stop under load, a server finishes what it has begun and returns the rest of its leases."""
    if not find_spec(command[0]):
        pytest.skip(f"{command[0]} is not installed: tox run -e py313-django61-postgres has it.")
    with host.running(*command, RESOLVER=resolver) as server, host.under_load(path):
        host.eventually(lambda: host.is_busy(processes), server)
        server.terminate()
        host.has_ended(server, 0, -signal.SIGTERM)
    host.is_settled()


def test_graceful_restarts_under_load_lose_nothing(host):
    """Workers that take each other's place under load hand over what they have: all that was served is counted."""
    if not find_spec("gunicorn"):
        pytest.skip("gunicorn is not installed: tox run -e py313-django61-postgres has it.")
    command = (*GUNICORN, "--workers=2", "--threads=4")
    with host.running(*command) as server, host.under_load("/api/serve/"):
        for _ in range(2):
            host.eventually(lambda: host.is_busy(2), server)
            before = host.holders()
            server.send_signal(signal.SIGHUP)
            host.eventually(lambda before=before: len(host.holders() - before) == 2, server)
            host.eventually(lambda before=before: not host.holders() & before, server)
        server.terminate()
        host.has_ended(server, 0)
    host.is_settled()


def test_runserver_returns_everything_when_it_reloads(host, tmp_path):
    """The process that a changed file ends returns its leases to the one that takes its place."""
    touched = tmp_path / "touched.py"
    touched.write_text("")
    with host.running("django", "runserver", "--skip-checks", "127.0.0.1:{port}", TOUCHED="1") as server:
        with host.under_load("/api/serve/"):
            host.eventually(host.is_busy, server)
        assert UsageLease.objects.exists()
        later = count(int(time.time()) + 10)

        def is_returned() -> bool:
            # Touched again and again: the reloader may not have looked at the file before the first time.
            os.utime(touched, (next(later),) * 2)
            return not UsageLease.objects.exists()

        host.eventually(is_returned, server)
        host.is_settled()


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("use(50)", 0), ("fail()", 1), ("fork()", 0), ("multiply('fork')", 0), ("multiply('spawn')", 0)],
)
def test_a_command_returns_everything_at_its_end(host, code, exit_code):
    """A command returns its leases when it is done or fails, each process its own."""
    with host.running("django", "shell", "--no-imports", "-c", f"from tests.leases.host import *; {code}") as command:
        host.has_ended(command, exit_code)


def test_a_command_returns_everything_at_sigterm(host):
    """The signal that would have ended it at once does so when everything is returned, whatever it was just doing."""
    code = "from tests.leases.host import use; use()"
    with host.running("django", "shell", "--no-imports", "-c", code) as command:
        host.eventually(host.is_busy, command)
        command.terminate()
        assert command.wait(PATIENCE) == -signal.SIGTERM
    assert not UsageLease.objects.exists()
    # It may have been about to note the last one.
    assert UsagePeriod.objects.get().used - host.served in {0, 1}
