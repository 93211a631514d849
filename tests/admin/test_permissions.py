"""Who may see and do what: every role at every address."""

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from tests.admin.conftest import ALL
from tests.admin.forms import filled
from tests.factories import Organization, UserFactory
from tests.host_admin import OrganizationAdmin
from usage_tracking.metering import record, usage_of
from usage_tracking.models import UsageEvent

LOGIN, FORBIDDEN, MISSING, SHOWN = 302, 403, 404, 200

ROLES = {
    "anonymous": None,
    "a user": {"is_staff": False},
    "staff": {},
    "staff who sees": {"codenames": ["view_usage"]},
    "staff who sees no organizations": {"codenames": ALL, "host": ()},
    "staff who resets": {"codenames": ["view_usage", "reset_usage"]},
    "staff who changes": {"codenames": ["view_usage", "change_limits"]},
    "staff who resets unseen": {"codenames": ["reset_usage", "change_limits"]},
    "superuser": {"is_superuser": True},
}

TABLE = [
    #  role                              list       records    reset      limits
    ("anonymous", LOGIN, LOGIN, LOGIN, LOGIN),
    ("a user", LOGIN, LOGIN, LOGIN, LOGIN),
    ("staff", SHOWN, FORBIDDEN, FORBIDDEN, FORBIDDEN),
    ("staff who sees", SHOWN, SHOWN, FORBIDDEN, FORBIDDEN),
    ("staff who sees no organizations", FORBIDDEN, SHOWN, FORBIDDEN, FORBIDDEN),
    ("staff who resets", SHOWN, SHOWN, SHOWN, FORBIDDEN),
    ("staff who changes", SHOWN, SHOWN, FORBIDDEN, SHOWN),
    ("staff who resets unseen", SHOWN, FORBIDDEN, FORBIDDEN, FORBIDDEN),
    ("superuser", SHOWN, SHOWN, SHOWN, SHOWN),
]


@pytest.fixture
def as_role(client, staff):
    """Log in as one of ROLES."""

    def log_in(role):
        description = ROLES[role]
        if description is None:
            return client
        if "is_staff" in description or "is_superuser" in description:
            user = UserFactory(**{"is_staff": True, **description})
        else:
            user = staff(*description.get("codenames", ()), host=description.get("host", ("change_organization",)))
        client.force_login(user)
        return client

    return log_in


@pytest.mark.parametrize(("role", "of_list", "of_records", "of_reset", "of_limits"), TABLE)
def test_every_role_at_every_address(as_role, pages, organization, role, of_list, of_records, of_reset, of_limits):
    """GET and POST alike; what may not be done is not done."""
    record(organization, 7)
    client = as_role(role)
    for method in (client.get, client.post):
        assert method(pages.list).status_code == of_list
        assert method(pages.change(organization)).status_code == of_list
    for name in ("period", "history", "event"):
        assert client.get(pages.records(name)).status_code == of_records
        assert client.get(pages.records(name, "export")).status_code == of_records
        assert client.get(pages.records(name, "add")).status_code in {LOGIN, FORBIDDEN}
    expected = {"reset": of_reset, "refund": of_reset, "adjust": of_reset, "limits": of_limits}
    entered = {"reset": {"meters": ["api"]}, "refund": {"amount": 1}, "adjust": {"used": 3}, "limits": {"plan": "pro"}}
    for name, status in expected.items():
        url = pages.operation(organization, name)
        data = filled(name, organization, **entered.get(name, {})) | {"usage_step": "confirm"}
        assert client.get(url).status_code == status
        before = UsageEvent.objects.exclude(kind="warning").count()
        done = client.post(url, data)
        assert (done.status_code, UsageEvent.objects.exclude(kind="warning").count() - before) == (
            (302, 1) if status == SHOWN else (status, 0)
        )


@pytest.mark.parametrize("role", ["staff", "staff who resets unseen"])
def test_without_view_usage_there_is_no_usage_anywhere(as_role, pages, organization, role):
    """Not in the list, not on the page, no filter, no action, no menu entry."""
    record(organization, 7)
    client = as_role(role)
    for url in (pages.list, pages.change(organization), f"{pages.list}?usage=near"):
        content = client.get(url, follow=True).content.decode()
        assert "7 of 10" not in content
        assert "usage-" not in content.replace("usage-tracking", "")
        assert "usage_reset_action" not in content
        assert "/usage_tracking/" not in content.replace("static/usage_tracking/", "")


@pytest.mark.parametrize(
    ("role", "actions"),
    [
        ("staff who sees", set()),
        ("staff who resets", {"reset", "refund", "adjust"}),
        ("staff who changes", {"limits"}),
        ("superuser", {"reset", "refund", "adjust", "limits"}),
    ],
)
def test_actions_and_buttons_are_those_the_user_may_use(as_role, pages, organization, role, actions):
    """And an action that is sent all the same does nothing."""
    record(organization, 7)
    client = as_role(role)
    page = client.get(pages.change(organization)).content.decode()
    listed = client.get(pages.list).content.decode()
    for name in ("reset", "refund", "adjust", "limits"):
        assert (pages.operation(organization, name) in page) == (name in actions)
        assert (f'value="usage_{name}_action"' in listed) == (name in actions)
    if "reset" not in actions:
        data = filled("reset", organization) | {"action": "usage_reset_action", "usage_step": "confirm"}
        client.post(pages.list, {**data, "_selected_action": [str(organization.pk)]})
        assert usage_of(organization).used == 7


def test_an_organization_that_is_not_there_is_not_found(operator, pages, organization):
    """So is one that the host's admin does not show, and an operation that does not exist."""
    gone = Organization.objects.get(pk=organization.pk)
    url, unknown = pages.operation(gone, "reset"), pages.operation(gone, "explode")
    assert operator.get(unknown).status_code == MISSING
    gone.delete()
    assert operator.get(url).status_code == MISSING
    assert operator.post(url, {"usage_step": "confirm"}).status_code == MISSING


def test_a_host_decides_by_organization(operator, pages, organization, monkeypatch):
    """An overridden hook is asked with the organization, on its page and for each in a list."""
    record(organization, 7)
    allowed = OrganizationAdmin.has_reset_usage_permission
    monkeypatch.setattr(
        OrganizationAdmin,
        "has_reset_usage_permission",
        lambda self, request, obj=None: obj != organization and allowed(self, request, obj),
    )
    assert operator.get(pages.operation(organization, "reset")).status_code == FORBIDDEN
    data = filled("reset", organization) | {"action": "usage_reset_action", "usage_step": "confirm"}
    response = operator.post(pages.list, {**data, "_selected_action": [str(organization.pk)]}, follow=True)
    assert "you may not do this" in response.content.decode()
    assert usage_of(organization).used == 7


def test_cross_site_requests_are_refused(staff, pages, organization):
    """Every operation wants Django's token."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(staff(*ALL))
    for name in ("reset", "refund", "adjust", "limits"):
        data = filled(name, organization) | {"usage_step": "confirm"}
        assert client.post(pages.operation(organization, name), data).status_code == FORBIDDEN
    assert not UsageEvent.objects.exists()


def test_django_has_the_permissions(db):
    """Under the names that the manual gives."""
    assert set(Permission.objects.filter(codename__in=ALL).values_list("codename", flat=True)) == set(ALL)
