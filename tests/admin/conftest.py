"""Staff, and the addresses of the admin's pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission
from django.urls import reverse

from tests import host_admin  # noqa: F401 - importing it registers the organization
from tests.factories import Organization, UserFactory

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from django.test import Client

PLANS = {
    "free": {"limits": {"api": 10}, "features": {"export": False, "seats": 2}},
    "pro": {"limits": {"api": 5000, "tokens": 900}, "features": {"export": True, "seats": 2.5, "support": "e-mail"}},
}
ALL = ("view_usage", "reset_usage", "change_limits")


@pytest.fixture(autouse=True)
def _terms(configure):
    """Two plans, two meters."""
    configure(PLANS=PLANS, METERS={"api": {"label": "API requests"}, "tokens": {"label": "Tokens"}})


@pytest.fixture
def staff(db) -> Callable[..., User]:
    """Make a member of staff who may change organizations, and has these permissions of ours."""

    def make(*codenames: str, host: tuple[str, ...] = ("change_organization",)) -> User:
        user = UserFactory(is_staff=True)
        ours = Permission.objects.filter(content_type__app_label="usage_tracking", codename__in=codenames)
        theirs = Permission.objects.filter(content_type__app_label=Organization._meta.app_label, codename__in=host)
        user.user_permissions.set([*ours, *theirs])
        return user

    return make


@pytest.fixture
def operator(client, staff) -> Client:
    """The browser of somebody who may do everything with usage."""
    client.force_login(staff(*ALL, host=("change_organization", "delete_organization", "add_organization")))
    return client


class Pages:
    """Addresses."""

    prefix = f"admin:{Organization._meta.app_label}_organization"
    list = property(lambda self: reverse(f"{self.prefix}_changelist"))
    add = property(lambda self: reverse(f"{self.prefix}_add"))

    def change(self, organization) -> str:
        """The page of one organization."""
        return reverse(f"{self.prefix}_change", args=[quote(organization.pk)])

    def delete(self, organization) -> str:
        """Its deletion."""
        return reverse(f"{self.prefix}_delete", args=[quote(organization.pk)])

    def operation(self, organization, name: str) -> str:
        """Something that can be done to its usage."""
        return reverse(f"{self.prefix}_usage", args=[quote(organization.pk), name])

    def records(self, name: str, page: str = "changelist") -> str:
        """Periods, history or events."""
        return reverse(f"admin:usage_tracking_usage{name}_{page}")


@pytest.fixture
def pages() -> Pages:
    """Where the pages are."""
    return Pages()
