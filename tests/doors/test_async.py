"""Under ASGI: clients that go away, and what the event loop is spared."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from asgiref.sync import SyncToAsync, async_to_sync
from asgiref.testing import ApplicationCommunicator
from django.core.handlers.asgi import ASGIHandler
from django.db import connections

from tests.doors import views
from tests.doors.conftest import Caller, used
from tests.factories import Organization
from usage_tracking.entitlements import update_limits
from usage_tracking.metering import consume
from usage_tracking.models import UsageEvent
from usage_tracking.signals import usage_warning

pytestmark = pytest.mark.django_db(transaction=True)

ASGI = ["session, ASGI", "session, ASGI, sync view"]


def send(path: str) -> ApplicationCommunicator:
    """Begin a GET as an ASGI server does."""
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"testserver")],
    }
    return ApplicationCommunicator(ASGIHandler(), scope)


@pytest.fixture
def _short_connections(monkeypatch):
    """Let each request close its own connection: under ASGI it has a thread of its own, which ends with it."""
    for connection in connections.all():
        monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 0)


@pytest.fixture
def _resolved(organization, configure):
    """Resolve every request to the organization, without asking the database."""
    stub = Organization(pk=organization.pk)
    configure(ORGANIZATION_RESOLVER=lambda _: stub)


@pytest.mark.usefixtures("_short_connections", "_resolved")
def test_a_client_that_goes_away_cancels_the_view_and_stays_charged(organization, configure, connected):
    """The view is cancelled, not we; the charge stands, its event waits for the next delivery, nothing is broken."""
    configure(THRESHOLDS=[50])
    update_limits(organization, limits={"api": 2})
    told = []
    connected(usage_warning, lambda event, **_: told.append(event.pk))
    seen = []

    async def go_away() -> None:
        running = asyncio.Event()

        async def wait(_: Any) -> None:
            running.set()
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        views.During.action = wait
        communicator = send("/api/async/awaiting/")
        await communicator.send_input({"type": "http.request", "body": b""})
        await asyncio.wait_for(running.wait(), 5)
        await communicator.send_input({"type": "http.disconnect"})
        await communicator.wait(5)
        assert await communicator.receive_nothing()

    async_to_sync(go_away)()
    assert seen == ["cancelled"]
    assert used(organization) == 1
    assert not told
    assert UsageEvent.objects.filter(delivered_at=None).count() == 1
    # The connection works, and a later delivery brings what waited.
    configure(THRESHOLDS=[50, 90])
    assert Caller("session, ASGI", organization).get().status_code == 200
    assert len(told) == 2
    assert used(organization) == 2


@pytest.mark.usefixtures("_short_connections", "_resolved")
def test_a_client_that_goes_away_during_the_charge_is_charged(organization, configure):
    """A thread that is on its way to the database goes on; the view never runs, and nothing is a server error."""
    started, released = threading.Event(), threading.Event()
    stub = Organization(pk=organization.pk)

    def slow(_: Any) -> Any:
        started.set()
        assert released.wait(5)
        return stub

    configure(ORGANIZATION_RESOLVER=slow)
    views.During.action = lambda _: pytest.fail("The view ran.")

    async def go_away() -> None:
        communicator = send("/api/async/awaiting/")
        await communicator.send_input({"type": "http.request", "body": b""})
        while not started.is_set():  # noqa: ASYNC110 - it is set in a thread
            await asyncio.sleep(0.01)
        await communicator.send_input({"type": "http.disconnect"})
        await asyncio.sleep(0.05)
        released.set()
        await communicator.wait(5)
        assert await communicator.receive_nothing()

    async_to_sync(go_away)()
    assert used(organization) == 1
    configure(ORGANIZATION_RESOLVER=lambda _: stub)
    assert Caller("session, ASGI", organization).get().status_code == 200
    assert used(organization) == 2


@pytest.fixture
def hops(monkeypatch):
    """Record what of ours is handed to a thread."""
    recorded: list[str] = []
    call = SyncToAsync.__call__

    async def counting(self, *args, **kwargs):
        if self.func.__module__.startswith("usage_tracking."):
            recorded.append(self.func.__name__)
        return await call(self, *args, **kwargs)

    monkeypatch.setattr(SyncToAsync, "__call__", counting)
    return recorded


@pytest.mark.parametrize("kind", ASGI)
def test_a_request_takes_one_hop(organization, kind, hops):
    """Resolver and counter share one visit to a thread; the header fields need none."""
    consume(organization)
    assert Caller(kind, organization).get().status_code == 200
    assert hops == ["charge"]


def test_a_request_that_is_not_counted_takes_none(organization, hops):
    """An exempt view stays on the event loop."""
    assert Caller("session, ASGI", organization).get("exempt").status_code == 200
    assert not hops


def test_a_refund_takes_a_second_one(organization, hops):
    """Only a server error goes back to the database."""
    assert Caller("session, ASGI", organization).get("status", status="500").status_code == 500
    assert hops == ["charge", "finish"]
    assert used(organization) == 0


def test_an_async_resolver_runs_on_the_event_loop(organization, configure, hops):
    """It is awaited there, once, and not handed to a thread and back."""
    loops = []
    stub = Organization(pk=organization.pk)

    async def resolver(request):
        loops.append(asyncio.get_running_loop())
        return stub

    configure(ORGANIZATION_RESOLVER=resolver)
    assert Caller("session, ASGI", organization).get().status_code == 200
    assert len(loops) == 1
    assert hops == ["charge"]
    assert used(organization) == 1
