"""Callers of every kind."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Self

import pytest
from asgiref.sync import async_to_sync
from django.test import AsyncClient, Client

from tests.doors import views
from tests.factories import MembershipFactory
from usage_tracking.metering import usage_of
from usage_tracking.testing import forget_refusals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from usage_tracking.models import UsageTrackedOrganization

# name → stack of views, whether it comes through ASGI, whether it has a token instead of a session
CALLERS = {
    "session": ("plain", False, False),
    "session, async view": ("async", False, False),
    "session, ASGI": ("async", True, False),
    "session, ASGI, sync view": ("plain", True, False),
    "session, both doors": ("drf", False, False),
    "token": ("drf", False, True),
    "token, ASGI": ("drf", True, True),
}


# One caller for each way through the doors: for tests that are not about the caller.
DOORS = ["session", "session, async view", "session, ASGI"]
if find_spec("rest_framework"):
    DOORS += ["token", "token, ASGI"]


class Caller:
    """A member of an organization who sends requests through one of the doors."""

    def __init__(self, kind: str, organization: UsageTrackedOrganization) -> None:
        self.kind = kind
        self.stack, self.asgi, self.by_token = CALLERS[kind]
        if self.stack == "drf":
            pytest.importorskip("rest_framework")
        self.organization = organization
        self.client: Client | AsyncClient = (AsyncClient if self.asgi else Client)(raise_request_exception=False)
        self.user = MembershipFactory(organization=organization).user
        self.headers: dict[str, str] = {}
        if self.by_token:
            from rest_framework.authtoken.models import Token  # noqa: PLC0415 - only where it is installed

            self.headers["Authorization"] = f"Token {Token.objects.create(user=self.user).key}"
        else:
            self.client.force_login(self.user)

    def __repr__(self) -> str:
        return f"<Caller: {self.kind}>"

    def anonymous(self) -> Self:
        """Forget session and token: the caller's own requests need no database, whoever resolves them."""
        self.client = (AsyncClient if self.asgi else Client)(raise_request_exception=False)
        self.headers = {"X-Organization": str(self.organization.pk)}
        return self

    def get(self, view: str = "ping", **data: Any) -> Any:
        """Send a GET to the view of that name in the caller's stack, or to a path."""
        return self.send("get", view, data)

    def send(self, method: str, view: str = "ping", data: dict[str, Any] | None = None) -> Any:
        """Send a request to the view of that name in the caller's stack, or to a path."""
        path = view if view.startswith("/") else f"/api/{self.stack}/{view}/"
        send: Callable[..., Any] = getattr(self.client, method)
        # In the thread of the test, and so on its connection: a test case's transaction holds for ASGI, too.
        return (async_to_sync(send) if self.asgi else send)(path, data, headers=self.headers)


def used(organization: UsageTrackedOrganization, meter: str = "api") -> int:
    """Return what the organization has used of a meter."""
    return usage_of(organization, meter).used


@pytest.fixture(autouse=True)
def _doors(settings) -> Iterator[None]:
    """Serve the doors' URLs; leave nothing behind that belongs to a key which another test may get."""
    settings.ROOT_URLCONF = "tests.doors.urls"
    forget_refusals()
    yield
    views.During.action = None
    forget_refusals()


@pytest.fixture(params=CALLERS)
def caller(request, organization) -> Caller:
    """A caller through each of the doors, by turns."""
    return Caller(request.param, organization)
