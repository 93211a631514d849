"""Callers of the HTTP API: who they are, and what they send."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from tests.factories import MembershipFactory, OrganizationFactory, UserFactory

if TYPE_CHECKING:
    from usage_tracking.models import UsageTrackedOrganization

if not find_spec("rest_framework"):
    collect_ignore_glob = ["test_*.py"]


class Caller:
    """Somebody who sends JSON, with a session or without."""

    def __init__(self, user: Any = None, **headers: str) -> None:
        self.user = user
        self.client = Client(headers=headers, raise_request_exception=False)
        if user is not None:
            self.client.force_login(user)

    def get(self, url: str, **query: Any) -> Any:
        """Read."""
        return self.client.get(url, query)

    def post(self, url: str, data: Any = None, **headers: str) -> Any:
        """Send `data` as JSON."""
        return self.send("post", url, data, **headers)

    def patch(self, url: str, data: Any = None, **headers: str) -> Any:
        """Send `data` as JSON."""
        return self.send("patch", url, data, **headers)

    def send(self, method: str, url: str, data: Any = None, **headers: str) -> Any:
        """Send any method; text and bytes as they are, all else as JSON; None is no body."""
        body = "" if data is None else data if isinstance(data, str | bytes) else json.dumps(data)
        headers = {"Content-Type": "application/json", **headers}
        return self.client.generic(method.upper(), url, body, headers.pop("Content-Type"), headers=headers)


def url(name: str, organization: UsageTrackedOrganization | str | None = None) -> str:
    """Return the URL of an endpoint: `url("limits", organization)`."""
    if organization is None:
        return reverse(f"usage_tracking:{name}")
    key = organization if isinstance(organization, str) else organization.pk
    return reverse(f"usage_tracking:organization-{name}", kwargs={"id": key})


def holder(*permissions: str, **fields: Any) -> Any:
    """Return a user with these of our permissions."""
    user = UserFactory(is_staff=True, **fields)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return user


@pytest.fixture
def member(organization) -> Caller:
    """A member."""
    return Caller(MembershipFactory(organization=organization).user)


@pytest.fixture
def manager(organization) -> Caller:
    """A member who manages."""
    return Caller(MembershipFactory(organization=organization, role="manager").user)


@pytest.fixture
def stranger(db) -> Caller:
    """A member and manager of another organization."""
    return Caller(MembershipFactory(organization=OrganizationFactory(), role="manager").user)
