"""Who may do what: every role at every endpoint with every method, and nothing learnt about what is not one's own."""

import json
import uuid

import pytest
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext

from tests.api.conftest import Caller, holder, url
from tests.factories import MembershipFactory, Organization, OrganizationFactory, UserFactory
from usage_tracking.entitlements import update_limits
from usage_tracking.metering import consume, usage_of
from usage_tracking.models import UsageEvent

OLD, NEW = "old-key-of-a-machine", "new-key-of-a-machine"


@pytest.fixture(autouse=True)
def _keys(configure):
    """Two keys are open, as while one is replaced."""
    configure(API_KEYS=[OLD, NEW], METERS={"tokens": {}})


ROLES = {
    "anonymous": lambda organization: Caller(),
    "stranger": lambda organization: Caller(MembershipFactory(role="manager").user),
    "inactive member": lambda organization: Caller(
        MembershipFactory(organization=organization, user__is_active=False).user
    ),
    "member": lambda organization: Caller(MembershipFactory(organization=organization).user),
    "manager": lambda organization: Caller(MembershipFactory(organization=organization, role="manager").user),
    "staff": lambda organization: Caller(holder()),
    "staff, view_usage": lambda organization: Caller(holder("view_usage")),
    "staff, reset_usage": lambda organization: Caller(holder("reset_usage")),
    "staff, change_limits": lambda organization: Caller(holder("change_limits")),
    "superuser": lambda organization: Caller(UserFactory(is_superuser=True)),
    "wrong key": lambda organization: Caller(Authorization="Bearer another-key"),
    "old key": lambda organization: Caller(Authorization=f"Bearer {OLD}"),
    "new key": lambda organization: Caller(Authorization=f"Bearer {NEW}"),
}

# endpoint: method and body of a request that is in order
REQUESTS = {
    "list": ("get", None),
    "detail": ("get", None),
    "history": ("get", None),
    "events": ("get", None),
    "limits": ("get", None),
    "change": ("patch", {"limits": {"api": 5}}),
    "reset": ("post", {}),
    "current": ("get", None),
    "reset-expired": ("post", None),
}

# role:                  list detail history events limits change reset current reset-expired
STATUSES = {
    "anonymous":            (401, 401, 401, 401, 401, 401, 401, 401, 401),
    "stranger":             (200, 404, 404, 404, 404, 404, 404, 200, 401),
    "inactive member":      (401, 401, 401, 401, 401, 401, 401, 401, 401),
    "member":               (200, 200, 200, 403, 403, 403, 403, 200, 401),
    "manager":              (200, 200, 200, 200, 200, 200, 200, 200, 401),
    "staff":                (200, 404, 404, 404, 404, 404, 404, 400, 401),
    "staff, view_usage":    (200, 200, 200, 200, 200, 403, 403, 400, 401),
    "staff, reset_usage":   (200, 404, 404, 404, 404, 404, 200, 400, 401),
    "staff, change_limits": (200, 404, 404, 404, 200, 200, 404, 400, 401),
    "superuser":            (200, 200, 200, 200, 200, 200, 200, 400, 401),
    "wrong key":            (401, 401, 401, 401, 401, 401, 401, 401, 401),
    "old key":              (401, 401, 401, 401, 401, 401, 401, 401, 200),
    "new key":              (401, 401, 401, 401, 401, 401, 401, 401, 200),
}  # fmt: skip


def endpoint(name, organization):
    """Return the URL of a row of REQUESTS."""
    if name in {"current", "reset-expired"}:
        return url(name)
    if name == "list":
        return url("organization-list")
    return url({"change": "limits"}.get(name, name), organization)


def test_the_tables_have_every_role_and_endpoint():
    """Nothing is left out."""
    assert list(STATUSES) == list(ROLES)
    assert {len(row) for row in STATUSES.values()} == {len(REQUESTS)}


@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_what_the_table_says(organization, role):
    """The status of each request that is in order; only those with a 200 have changed something."""
    for name, expected in zip(REQUESTS, STATUSES[role], strict=True):
        method, body = REQUESTS[name]
        before = UsageEvent.objects.filter(organization=organization).count()
        answer = ROLES[role](organization).send(method, endpoint(name, organization), body)
        assert (name, answer.status_code) == (name, expected)
        changed = UsageEvent.objects.filter(organization=organization).count() > before
        assert changed == (expected == 200 and name in {"change", "reset"})
        if expected >= 400:
            assert answer["Content-Type"] == "application/problem+json"
            problem = json.loads(answer.content)
            assert problem["status"] == expected
            assert problem.keys() >= {"type", "title", "detail"}
        if expected == 401:
            assert answer["WWW-Authenticate"]


METHODS = ("get", "head", "post", "put", "patch", "delete", "options")
ALLOWED = {
    "list": {"get", "head"},
    "detail": {"get", "head"},
    "history": {"get", "head"},
    "events": {"get", "head"},
    "limits": {"get", "head", "patch"},
    "reset": {"post"},
    "current": {"get", "head"},
    "reset-expired": {"post"},
}


@pytest.mark.parametrize("name", ALLOWED)
def test_no_endpoint_takes_another_method(organization, name):
    """405 to who is known, 401 to who is not; the scheduled reset says 405 to anybody."""
    manager = ROLES["new key" if name == "reset-expired" else "manager"](organization)
    for method in set(METHODS) - ALLOWED[name]:
        assert (method, manager.send(method, endpoint(name, organization)).status_code) == (method, 405)
        status = Caller().send(method, endpoint(name, organization)).status_code
        assert (method, status) == (method, 405 if name == "reset-expired" else 401)
    for method in ALLOWED[name]:
        assert (method, manager.send(method, endpoint(name, organization)).status_code) == (method, 200)


# -- what a stranger learns --------------------------------------------------------------------------------------------


def missing_key():
    """Return a key of the selected kind that no organization has."""
    return {"AutoField": 987654, "BigAutoField": 987654, "UUIDField": uuid.uuid4()}.get(
        Organization._meta.pk.get_internal_type(), "nobody"
    )


@pytest.mark.parametrize("role", ["anonymous", "stranger", "staff", "staff, reset_usage", "wrong key"])
@pytest.mark.parametrize("name", ["detail", "history", "events", "limits", "change", "reset"])
def test_anothers_organization_is_like_one_that_does_not_exist(organization, role, name):
    """Status, body, headers and the number of queries are the same."""
    if STATUSES[role][list(REQUESTS).index(name)] == 200:
        pytest.skip("This role may.")
    consume(organization)
    caller = ROLES[role](organization)
    method, body = REQUESTS[name]
    seen = []
    for key in (organization.pk, missing_key()):
        with CaptureQueriesContext(
            connection,
        ) as queries:
            answer = caller.send(method, endpoint(name, str(key)), body)
        seen.append((answer.status_code, answer.content, dict(answer.headers), len(queries)))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("name", ["detail", "history", "events", "limits", "change", "reset"])
def test_a_stranger_is_told_nothing_by_what_else_is_wrong(organization, stranger, name):
    """What is wrong with parameters or body is told to those only whom the organization concerns, or to everybody."""
    for key in (str(organization.pk), str(missing_key())):
        if name in {"change", "reset"}:
            answer = stranger.send(REQUESTS[name][0], endpoint(name, key), {"nonsense": 1})
            assert answer.status_code == 404
        answer = stranger.send(REQUESTS[name][0], f"{endpoint(name, key)}?nonsense=1", REQUESTS[name][1])
        assert answer.status_code == 400


def test_lists_and_counts_have_ones_own_only(organization, stranger, member):
    """Neither results nor counts, nor what a filter finds, tell of others."""
    OrganizationFactory(usage_plan="")
    for query in ({}, {"plan": "free"}, {"exceeded": "false"}, {"ordering": "-used"}):
        answer = member.get(url("organization-list"), **query).json()
        assert (answer["count"], [row["organization"] for row in answer["results"]]) == (1, [json_key(organization)])
    assert member.get(url("organization-list"), page=2).status_code == 404


def json_key(organization):
    """Return a key as JSON has it."""
    return organization.pk if isinstance(organization.pk, int) else str(organization.pk)


def test_a_member_twice_over_sees_the_organization_once(organization, member):
    """A join of the host's may find it more than once."""
    MembershipFactory(user=member.user, organization=organization, role="manager")
    assert member.get(url("organization-list")).json()["count"] == 1
    assert member.get(url("detail", organization)).status_code == 200


def test_a_host_that_names_anothers_organization_shows_nothing_of_it(organization, stranger, configure):
    """The resolver says who pays, not who may look."""
    configure(ORGANIZATION_RESOLVER=lambda request: organization)
    answer = stranger.get(url("current"))
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:usage-tracking:problem:no-active-organization")


def test_a_manager_must_see_what_it_manages(organization, monkeypatch):
    """`usage_managed_by` alone opens nothing: seeing comes first."""
    monkeypatch.setattr(Organization, "usage_managed_by", lambda self, user: True)
    assert Caller(UserFactory()).get(url("limits", organization)).status_code == 404
    assert Caller(holder("view_usage")).patch(url("limits", organization), {}).status_code == 200


# -- sessions, tokens, odd users ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["change", "reset"])
def test_a_session_needs_a_csrf_token(organization, name):
    """Another site cannot make a manager's browser change anything."""
    user = MembershipFactory(organization=organization, role="manager").user
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    method, body = REQUESTS[name]
    target = endpoint(name, organization)
    answer = getattr(client, method)(target, body, content_type="application/json")
    assert (answer.status_code, answer["Content-Type"]) == (403, "application/problem+json")
    assert not UsageEvent.objects.exists()
    client.cookies["csrftoken"] = token = "c" * 32
    answer = getattr(client, method)(target, body, content_type="application/json", headers={"X-CSRFToken": token})
    assert answer.status_code == 200


def test_the_scheduled_reset_asks_for_no_csrf_token(db):
    """No session opens it, so there is nothing to forge."""
    client = Client(enforce_csrf_checks=True)
    answer = client.post(url("reset-expired"), headers={"Authorization": f"Bearer {NEW}"})
    assert answer.status_code == 200


def test_tokens_work_where_the_host_takes_them(organization):
    """DEFAULT_AUTHENTICATION_CLASSES says who the callers are; a bad token is a 401 of its scheme."""
    from rest_framework.authtoken.models import Token  # noqa: PLC0415

    token = Token.objects.create(user=MembershipFactory(organization=organization, role="manager").user)
    classes = ["rest_framework.authentication.TokenAuthentication"]
    with override_settings(REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": classes}):
        caller = Caller(Authorization=f"Token {token.key}")
        assert caller.get(url("detail", organization)).status_code == 200
        assert caller.get(url("current")).json()["organization"] == json_key(organization)
        assert caller.patch(url("limits", organization), {"limits": {"api": 3}}).status_code == 200
        assert UsageEvent.objects.get().actor == token.user
        answer = Caller(Authorization="Token nonsense").get(url("detail", organization))
        assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Token")


@pytest.mark.parametrize(
    ("name", "body", "headers", "query"),
    [
        ("organization-list", None, {"Accept": "text/csv"}, ""),
        ("organization-list", None, {}, "?format=xml"),
        ("organization-list", None, {}, "?nonsense=1"),
        ("reset-expired", "{bad", {}, ""),
    ],
)
def test_the_anonymous_are_told_nothing_else(db, name, body, headers, query):
    """401 whatever else is wrong with the request."""
    answer = Caller().send("get" if body is None else "post", url(name) + query, body, **headers)
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"]


@pytest.mark.parametrize("name", ["Session", "Basic", "Token"])
def test_the_anonymous_are_told_how_to_log_in(organization, name):
    """401 with WWW-Authenticate whatever class comes first, also one that DRF would answer with a 403."""
    classes = [f"rest_framework.authentication.{name}Authentication"]
    with override_settings(REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": classes}):
        answer = Caller().get(url("detail", organization))
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"].startswith(name)


def test_nobody_is_let_in_where_the_host_authenticates_nobody(organization):
    """No classes and no anonymous user are settings that DRF allows."""
    rest = {"DEFAULT_AUTHENTICATION_CLASSES": [], "UNAUTHENTICATED_USER": None}
    with override_settings(REST_FRAMEWORK=rest):
        assert Caller().get(url("detail", organization)).status_code == 401


def test_a_user_that_is_in_no_database_is_a_member_all_the_same(organization, monkeypatch):
    """Stateless tokens have users of their own kind: they may know no permissions, and no event can name them."""

    class Machine:
        pk = "machine"
        is_authenticated = is_active = True

    monkeypatch.setattr(Organization, "usage_visible_to", classmethod(lambda cls, user: cls.objects.all()))
    monkeypatch.setattr(Organization, "usage_managed_by", lambda self, user: True)
    monkeypatch.setattr("rest_framework.authentication.BasicAuthentication.authenticate", lambda *_: (Machine(), None))
    classes = ["rest_framework.authentication.BasicAuthentication"]
    with override_settings(REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": classes}):
        assert Caller().post(url("reset", organization)).status_code == 200
    assert UsageEvent.objects.get().actor is None


def test_what_managers_do_is_on_record(organization, manager):
    """Each change names who made it and why."""
    manager.patch(url("limits", organization), {"limits": {"api": 9}, "reason": "goodwill"})
    manager.post(url("reset", organization), {"reason": "a bad day"})
    events = UsageEvent.objects.order_by("pk")
    assert [(event.kind, event.actor, event.reason) for event in events] == [
        ("limits_updated", manager.user, "goodwill"),
        ("reset", manager.user, "a bad day"),
    ]
    update_limits(organization, limits={"api": "inherit"})
    assert usage_of(organization).limit == 1000
