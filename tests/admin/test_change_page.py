"""The page of one organization, beside what the host has on it."""

import pytest
from django import forms
from django.contrib import admin

from tests.factories import MembershipFactory, Organization, OrganizationFactory
from tests.host_admin import MembershipInline, OrganizationAdmin
from usage_tracking.entitlements import update_limits
from usage_tracking.metering import record, usage_of
from usage_tracking.models import UsageEvent, UsageHistory, UsagePeriod

NO_MEMBERS = {
    f"memberships-{part}": number
    for part, number in (("TOTAL_FORMS", 0), ("INITIAL_FORMS", 0), ("MIN_NUM_FORMS", 0), ("MAX_NUM_FORMS", 1000))
}


KEY = Organization._meta.pk.name
"""On the form where a person chooses it, as with string keys; else nobody looks at it."""


def test_it_says_what_holds_and_who_says_so(operator, pages, organization):
    """Limit, plan, calendar and features, each with its source."""
    update_limits(organization, plan="pro", limits={"api": 4321})
    content = operator.get(pages.change(organization)).content.decode()
    for name, value, source in [
        ("Plan", "pro", "this organization"),
        ("Limit: API requests", "4,321", "this organization"),
        ("Limit: Tokens", "900", "its plan"),
        ("Reset period", "monthly", "the settings"),
        ("Feature: support", "e-mail", "its plan"),
    ]:
        row = content.split(f">{name}</bdi></th>")[1].split("</tr>")[0]
        assert f"<td><bdi>{value}</bdi></td>" in row
        assert source in row


def test_usage_fields_are_not_in_the_hosts_form(operator, pages, organization):
    """No raw JSON anywhere, also while an organization is added."""
    for url in (pages.change(organization), pages.add):
        assert 'name="usage_' not in operator.get(url).content.decode()
    assert (
        operator.post(pages.add, {"name": "Novel", KEY: str(OrganizationFactory.build().pk), **NO_MEMBERS}).status_code
        == 302
    )
    assert usage_of(Organization.objects.get(name="Novel")).limit == 10


def test_saving_the_page_writes_no_usage_field(operator, pages, organization, monkeypatch):
    """Terms that change between the page's SELECT and its UPDATE stay changed."""
    record(organization, 7)
    save_form = OrganizationAdmin.save_form

    def interrupted(self, request, form, change):
        update_limits(Organization.objects.get(pk=organization.pk), plan="pro", limits={"api": 77})
        return save_form(self, request, form, change)

    monkeypatch.setattr(OrganizationAdmin, "save_form", interrupted)
    response = operator.post(pages.change(organization), {"name": "Renamed", KEY: str(organization.pk), **NO_MEMBERS})
    assert response.status_code == 302
    organization.refresh_from_db()
    assert (organization.name, organization.usage_plan, organization.usage_limits) == ("Renamed", "pro", {"api": 77})
    assert (usage_of(organization).used, usage_of(organization).limit) == (7, 77)
    assert UsageEvent.objects.filter(kind="limits_updated").count() == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [["name"], ["usage_panel"]]),
        ({"fields": ["usage_panel", "name"]}, [["usage_panel", "name"]]),
        ({"fields": ["name", "usage_plan"]}, [["name"], ["usage_panel"]]),
        ({"fieldsets": [(None, {"fields": [("name", "usage_plan")]})]}, [[("name",)], ["usage_panel"]]),
        (
            {"fieldsets": [(None, {"fields": ["name"]}), ("Usage", {"fields": ["usage_plan", "usage_limits"]})]},
            [["name"], ["usage_panel"]],
        ),
        ({"readonly_fields": ["usage_plan"]}, [["name"], ["usage_panel"]]),
    ],
)
def test_what_the_host_shows_stays(rf, staff, organization, options, expected):
    """However it names its fields; the panel comes last unless it was given a place."""
    kind = type("Custom", (OrganizationAdmin,), options)
    custom = kind(Organization, admin.site)
    request = rf.get("/")
    request.user = staff("view_usage")
    shown = [list(options["fields"]) for _name, options in custom.get_fieldsets(request, organization)]
    if Organization._meta.pk.editable and "fields" not in options and "fieldsets" not in options:
        shown = [[field for field in fields if field != Organization._meta.pk.name] for fields in shown]
    assert shown == expected
    request.user = staff()
    shown = [list(options["fields"]) for _name, options in custom.get_fieldsets(request, organization)]
    assert "usage_panel" not in str(shown)
    assert set(custom.get_form(request, organization).base_fields) <= {"name", Organization._meta.pk.name}


def test_a_form_of_the_host_keeps_what_it_excludes(rf, staff, organization):
    """Django asks the form only while the admin excludes nothing, which ours does."""

    class Form(forms.ModelForm):
        class Meta:
            model = Organization
            exclude = ["name"]  # noqa: DJ006 - what is tested

    kind = type("Custom", (OrganizationAdmin,), {"form": Form})
    request = rf.get("/")
    request.user = staff("view_usage")
    assert "name" not in kind(Organization, admin.site).get_form(request, organization).base_fields


def test_deleting_takes_the_usage_along(operator, pages, staff, client):
    """Though nobody may delete a period by itself; one, and many from the list."""
    assert MembershipInline.model is MembershipFactory._meta.model
    client.force_login(staff("view_usage", host=("change_organization", "delete_organization", "view_organization")))
    crowd = [OrganizationFactory() for _ in range(3)]
    for organization in crowd:
        record(organization, 9)
    confirmation = client.get(pages.delete(crowd[0]))
    assert confirmation.status_code == 200
    assert not confirmation.context["perms_lacking"]
    assert not confirmation.context["protected"]
    assert client.post(pages.delete(crowd[0]), {"post": "yes"}).status_code == 302
    keys = [str(organization.pk) for organization in crowd[1:]]
    data = {"action": "delete_selected", "_selected_action": keys}
    assert not client.post(pages.list, data).context["perms_lacking"]
    assert client.post(pages.list, {**data, "post": "yes"}).status_code == 302
    assert [model.objects.count() for model in (Organization, UsagePeriod, UsageHistory, UsageEvent)] == [0, 0, 0, 0]


def test_deleting_a_user_keeps_what_they_did(operator, client, organization, staff, admin_user):
    """The event stays, with the name they had."""
    actor = staff("view_usage")
    update_limits(organization, plan="pro", actor=actor)
    client.force_login(admin_user)
    response = client.post(f"/admin/auth/user/{actor.pk}/delete/", {"post": "yes"})
    assert response.status_code == 302
    event = UsageEvent.objects.get()
    assert (event.actor, event.actor_label) == (None, actor.username)
