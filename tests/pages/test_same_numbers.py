"""Whoever tells it: the numbers are the same."""

import pytest
from django.contrib import admin
from django.urls import reverse

from tests import host_admin  # noqa: F401 - importing it registers the organization
from tests.factories import MembershipFactory, Organization, UserFactory
from usage_tracking.entitlements import update_limits
from usage_tracking.metering import adjust, history_of

pytest.importorskip("rest_framework")


def test_page_api_admin_and_429_tell_the_same(organization, client):
    """Used, limit, percentage and history of one organization at one time, from five mouths."""
    update_limits(organization, limits={"api": 1_234})
    adjust(organization, used=1_234)
    staff = UserFactory(is_staff=True, is_superuser=True)
    MembershipFactory(user=staff, organization=organization)
    client.force_login(staff)

    refused = client.get("/api/ping/")
    api = client.get("/usage/current/").json()["meters"]["api"]
    points = client.get(f"/usage/organizations/{organization.pk}/history/").json()["points"]
    page = client.get("/dashboard/").content.decode()
    listed = client.get(reverse(f"admin:{Organization._meta.app_label}_organization_changelist")).content.decode()

    assert admin.site.is_registered(Organization)
    assert refused.status_code == 429
    told = refused.json()
    assert (told["used"], told["limit"], told["remaining"]) == (api["used"], api["limit"], api["remaining"])
    assert (api["used"], api["limit"], api["percentage"]) == (1_234, 1_234, 100)
    assert "<strong>1,234</strong> of 1,234 requests" in page
    assert "100%" in page
    assert "1,234 of 1,234" in listed
    assert sum(point["used"] for point in points) == sum(point.used for point in history_of(organization)) == 1_234
    assert f"<strong>{sum(point['used'] for point in points):,}</strong> requests" in page
