"""What views say about themselves: amounts, meters, exemptions and the feature they ask for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.template import Context, Template

from tests.doors import views
from tests.doors.conftest import Caller, used
from tests.factories import OrganizationFactory
from usage_tracking.decorators import require_feature, usage_amount, usage_exempt, usage_meter, usage_of_view
from usage_tracking.entitlements import update_limits
from usage_tracking.exceptions import InvalidAmount
from usage_tracking.quotas import MAX_AMOUNT

pytestmark = pytest.mark.django_db

FEATURE_MISSING = {
    "type": "urn:usage-tracking:problem:feature-missing",
    "title": "Feature not available",
    "status": 403,
    "detail": "The feature “export” is not part of your plan.",
    "feature": "export",
}


def grant(organization, *features: str) -> None:
    """Give the organization some features."""
    update_limits(organization, features=dict.fromkeys(features, True))


def fail(*args):
    """Raise, whatever is asked."""
    raise RuntimeError("It failed.")


# -- who has the say ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("view", "method", "api", "tokens"),
    [
        ("handlers", "get", 2, 0),
        ("handlers", "post", 5, 0),
        ("handlers", "put", 0, 2),
        ("handlers", "delete", 0, 0),
        ("heirs", "get", 7, 0),
        ("heirs", "post", 5, 0),
        ("free-to-read", "get", 0, 0),
        ("free-to-read", "head", 0, 0),
        ("decorated", "get", 4, 0),
    ],
)
def test_a_handler_speaks_before_its_class(organization, configure, view, method, api, tokens):
    """The handler's word comes first, then the class's; a HEAD asks the GET handler."""
    configure(METERS={"tokens": {}})
    grant(organization, "export")
    assert Caller("session", organization).send(method, view).status_code == 200
    assert (used(organization), used(organization, "tokens")) == (api, tokens)


@pytest.mark.parametrize(
    ("view", "method", "expected"), [("reports", "get", 1), ("reports", "post", 5), ("reports/latest", "get", 0)]
)
@pytest.mark.parametrize("kind", ["session, both doors", "token"])
def test_an_action_of_a_viewset_speaks_for_itself(organization, kind, view, method, expected):
    """DRF maps methods to actions; the action's decorator counts, whichever door charges."""
    assert Caller(kind, organization).send(method, view).status_code == 200
    assert used(organization) == expected


def test_a_function_view_of_drf_is_decorated_above_api_view(organization):
    """`@usage_amount` above `@api_view` says what the view costs."""
    assert Caller("token", organization).get("function").status_code == 200
    assert used(organization) == 4


def test_a_view_called_without_urls_speaks_for_its_class(organization, rf):
    """Where no URL was resolved, as in a host's unit test of one view, the class's own word holds."""
    pytest.importorskip("rest_framework")
    from tests.doors import drf_views  # noqa: PLC0415

    request = rf.get("/api/", headers={"X-Organization": str(organization.pk)})
    assert drf_views.Costly.as_view()(request).status_code == 200
    assert used(organization) == 3


@pytest.mark.parametrize("amount", [0, -1, True, 1.0, "3", None, MAX_AMOUNT + 1])
def test_a_nonsensical_amount_is_an_error_where_it_is_written(amount):
    """The decorator raises on import, naming the argument, and marks nothing."""
    with pytest.raises(InvalidAmount) as caught:
        usage_amount(amount)
    assert caught.value.field == "amount"


def test_an_async_amount_is_an_error_where_it_is_written():
    """An amount is computed beside the database, in a thread: a coroutine function would never be awaited."""

    async def amount(request):
        return 1

    with pytest.raises(InvalidAmount, match="plain function"):
        usage_amount(amount)  # type: ignore[arg-type]  # which is the point


def test_decorators_add_up_and_return_the_view_itself():
    """Several of them on one view each say their part, in any order."""

    def view(request):
        return None

    assert usage_exempt(usage_meter("tokens")(usage_amount(3)(view))) is view
    usage = usage_of_view(view, "GET")
    assert (usage.amount, usage.meter, usage.exempt) == (3, "tokens", True)


# -- features: function and class views --------------------------------------------------------------------------------


@pytest.mark.parametrize("view", ["gated", "decorated"])
@pytest.mark.parametrize("kind", ["session", "session, ASGI, sync view", "session, async view", "session, ASGI"])
def test_a_missing_feature_is_forbidden(organization, kind, view):
    """403 with a problem type of its own, until the feature is granted."""
    caller = Caller(kind, organization)
    response = caller.get(view)
    assert response.status_code == 403
    assert response.headers["Content-Type"] == "application/problem+json"
    assert json.loads(response.content) == FEATURE_MISSING
    grant(organization, "export")
    assert caller.get(view).status_code == 200


@pytest.mark.parametrize("kind", ["session", "session, ASGI"])
def test_nobody_has_no_feature(organization, kind):
    """A caller without an organization is told the same."""
    caller = Caller(kind, organization)
    caller.client.logout()
    assert caller.get("gated").status_code == 403


def test_an_exhausted_quota_comes_before_a_missing_feature(organization):
    """A missing feature is never a 429, and a 429 never a missing feature."""
    update_limits(organization, limits={"api": 0})
    assert Caller("session", organization).get("gated").status_code == 429


@pytest.mark.parametrize("kind", ["session", "session, ASGI", "session, both doors", "token"])
@pytest.mark.parametrize("refuse", ["allow", "refuse"])
def test_what_cannot_be_looked_up_is_not_given_away(organization, configure, caplog, kind, refuse):
    """When PLANS fails, a gate answers 503, whatever ON_COUNTER_ERROR says, and the charge is given back."""
    caller = Caller(kind, organization)
    assert caller.get("ping").status_code == 200
    configure(PLANS=fail, ON_COUNTER_ERROR=refuse)
    response = caller.get("gated")
    assert response.status_code == 503
    assert json.loads(response.content)["title"] == "Features cannot be looked up right now"
    assert "could not be looked up" in caplog.text
    configure(PLANS={})
    assert used(organization) == 1


@pytest.mark.parametrize("kind", ["session", "session, ASGI"])
def test_a_failing_resolver_closes_the_gate(organization, configure, kind):
    """The caller reads 503, not 500, also of an async resolver."""

    async def afail(request):
        raise RuntimeError("The resolver failed.")

    caller = Caller(kind, organization)
    for resolver in (fail, afail):
        configure(ORGANIZATION_RESOLVER=resolver)
        assert caller.get("gated").status_code == 503


@pytest.mark.parametrize("decorator", [require_feature, usage_meter])
def test_a_forgotten_argument_is_named(decorator):
    """`@require_feature` and `@usage_meter` without their name raise on import, not at the first request."""

    def view(request):
        pass

    with pytest.raises(TypeError, match="takes a name"):
        decorator(view)


def test_a_class_is_not_wrapped_by_mistake():
    """`require_feature` on a class says how it is done."""
    with pytest.raises(TypeError, match=r'@method_decorator\(require_feature\(.export.\), name="dispatch"\)'):
        require_feature("export")(views.Handlers)


# -- features: DRF -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gate", "features", "status"),
    [
        ("gated", [], "missing"),
        ("gated", ["export"], 200),
        ("both", ["export"], "missing"),
        ("both", ["export", "audit"], 200),
        ("either", [], "missing"),
        ("either", ["audit"], 200),
        ("either", ["export"], 200),
        ("without", [], 200),
        ("without", ["export"], 403),
        ("or-admin", [], "missing"),
        ("and-nobody", [], "missing"),
        ("and-nobody", ["export"], 403),
    ],
)
@pytest.mark.parametrize("kind", ["session, both doors", "token"])
def test_the_permission_composes(organization, kind, gate, features, status):
    """`&`, `|` and `~` mean what they say, and only a denial for want of a feature is called one."""
    grant(organization, *features)
    response = Caller(kind, organization).get(gate)
    if status == "missing":
        assert response.status_code == 403
        assert json.loads(response.content)["type"] == FEATURE_MISSING["type"]
    else:
        assert response.status_code == status
        assert response.headers.get("Content-Type") != "application/problem+json"


@pytest.mark.parametrize("gate", ["or-admin", "without"])
def test_a_views_own_403_is_not_called_a_missing_feature(organization, gate):
    """A feature that was missing but not needed does not explain what the view says later."""
    caller = Caller("token", organization)
    caller.user.is_staff = True
    caller.user.save()
    response = caller.get(gate, status="403")
    assert response.status_code == 403
    assert response.content == b""


@pytest.mark.parametrize(("gate", "status"), [("gated", 401), ("gated-session", 403)])
def test_an_anonymous_caller_is_asked_who_they_are(organization, gate, status):
    """Without credentials the answer is DRF's own, not a missing feature."""
    caller = Caller("token", organization)
    caller.headers.clear()
    response = caller.get(gate)
    assert response.status_code == status
    assert json.loads(response.content) == {"detail": "Authentication credentials were not provided."}


def test_the_permission_can_be_asked_without_a_view(organization, rf):
    """As hosts do in their unit tests."""
    pytest.importorskip("rest_framework")
    from rest_framework.request import Request  # noqa: PLC0415

    from usage_tracking.api.permissions import HasFeature  # noqa: PLC0415

    request = rf.get("/")
    request.organization = organization
    no_view: Any = None
    assert not HasFeature("export")().has_permission(Request(request), no_view)
    grant(organization, "export")
    assert HasFeature("export")().has_permission(Request(request), no_view)


# -- features: templates -----------------------------------------------------------------------------------------------


def test_a_template_asks_for_a_feature(organization):
    """`organization|has_feature:"export"` is true for those who have it; nobody has nothing."""
    template = Template('{% load usage_tracking %}{% if whose|has_feature:"export" %}yes{% else %}no{% endif %}')
    assert template.render(Context({"whose": organization})) == "no"
    grant(organization, "export")
    assert template.render(Context({"whose": organization})) == "yes"
    assert template.render(Context({"whose": OrganizationFactory()})) == "no"
    assert template.render(Context({"whose": None})) == "no"
    assert template.render(Context({})) == "no"


def test_a_template_survives_what_cannot_be_looked_up(organization, configure, caplog):
    """The page is shown without the feature, and the reason is logged."""
    configure(PLANS=fail)
    template = Template('{% load usage_tracking %}{{ whose|has_feature:"export" }}')
    assert template.render(Context({"whose": organization})) == "False"
    assert "could not be looked up" in caplog.text
