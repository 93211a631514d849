"""What every caller gets, whichever door counts the request."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta

import pytest

from tests.doors.conftest import Caller, used
from tests.factories import OrganizationFactory, UserFactory
from usage_tracking.entitlements import update_limits
from usage_tracking.metering import consume, record, usage_of

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _stopped_clock(freeze) -> None:
    freeze(NOW)


def limited(organization, limit: int | None, **changes) -> None:
    """Change the organization's quota."""
    update_limits(organization, limits={"api": limit}, **changes)


# -- counted and refused -----------------------------------------------------------------------------------------------


def test_a_request_is_counted_and_told_what_is_left(caller):
    """Every door takes one from the quota and writes the same two fields."""
    response = caller.get()
    assert response.status_code == 200
    assert json.loads(response.content) == {"pong": True}
    assert response.headers["RateLimit-Policy"] == '"api";q=1000;w=2678400'
    assert response.headers["RateLimit"] == '"api";r=999;t=1857600'
    assert used(caller.organization) == 1


def test_a_request_past_the_limit_is_refused(caller):
    """Every door answers 429 with the same problem and the same fields, and the view does not run."""
    limited(caller.organization, 1)
    caller.get()
    response = caller.get()
    assert response.status_code == 429
    assert json.loads(response.content) == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Quota exceeded",
        "status": 429,
        "detail": "This request needs 1 of the quota “api”; 0 of 1 are left. It resets at 2026-04-01T00:00:00Z.",
        "violated-policies": ["api"],
        "meter": "api",
        "used": 1,
        "limit": 1,
        "remaining": 0,
        "resets_at": "2026-04-01T00:00:00Z",
    }
    fields = ["Content-Type", "Retry-After", "Cache-Control", "RateLimit-Policy", "RateLimit"]
    assert {field: response.headers[field] for field in fields} == {
        "Content-Type": "application/problem+json",
        "Retry-After": "1857600",
        "Cache-Control": "no-store",
        "RateLimit-Policy": '"api";q=1;w=2678400',
        "RateLimit": '"api";r=0;t=1857600',
    }
    assert used(caller.organization) == 1


def test_a_request_that_does_not_fit_names_what_it_needs(caller):
    """An amount larger than what is left is refused whole."""
    limited(caller.organization, 1)
    response = caller.get("costly")
    assert response.status_code == 429
    assert json.loads(response.content)["detail"].startswith("This request needs 3 of the quota “api”; 1 of 1 is left.")
    assert used(caller.organization) == 0


def test_a_request_through_both_doors_is_charged_once(organization):
    """The throttle finds the middleware's charge and leaves it at that."""
    caller = Caller("session, both doors", organization)
    assert caller.get("costly").status_code == 200
    assert used(organization) == 3


def test_the_next_period_admits_again(caller, freeze):
    """When the period has ended, the same caller is let through."""
    limited(caller.organization, 1)
    caller.get()
    assert caller.get().status_code == 429
    freeze(datetime(2026, 4, 1, tzinfo=UTC))
    # Whoever came by a session came weeks ago.
    if not caller.by_token:
        caller.client.force_login(caller.user)
    assert caller.get().status_code == 200


# -- fields ------------------------------------------------------------------------------------------------------------


def test_an_unlimited_meter_has_no_fields(caller, configure):
    """There is nothing to tell about a quota that does not exist."""
    configure(HEADERS=["ietf", "x-ratelimit"])
    limited(caller.organization, None)
    response = caller.get()
    assert response.status_code == 200
    assert not [field for field in response.headers if "ratelimit" in field.lower()]
    assert used(caller.organization) == 1


def test_a_quota_without_an_end_promises_no_instant(caller, configure):
    """Under manual reset nobody knows when: no `w`, no `t`, no Retry-After, no X-RateLimit-Reset."""
    configure(HEADERS=["ietf", "x-ratelimit"])
    limited(caller.organization, 1, reset_mode="manual")
    caller.get()
    response = caller.get()
    assert response.status_code == 429
    assert response.headers["RateLimit-Policy"] == '"api";q=1'
    assert response.headers["RateLimit"] == '"api";r=0'
    assert response.headers["X-RateLimit-Remaining"] == "0"
    assert "Retry-After" not in response.headers
    assert "X-RateLimit-Reset" not in response.headers
    assert json.loads(response.content)["resets_at"] is None
    assert json.loads(response.content)["detail"] == "This request needs 1 of the quota “api”; 0 of 1 are left."


def test_a_scheduled_quota_past_its_end_promises_no_instant(caller, freeze):
    """A reset that is late happens when its job comes: there is no time to name."""
    limited(caller.organization, 1, reset_mode="scheduled")
    caller.get()
    freeze(NOW + timedelta(days=30))
    if not caller.by_token:
        caller.client.force_login(caller.user)
    response = caller.get()
    assert response.status_code == 429
    assert "Retry-After" not in response.headers
    assert response.headers["RateLimit"] == '"api";r=0'
    assert "It resets" not in json.loads(response.content)["detail"]


def test_the_older_fields_on_request(caller, configure):
    """HEADERS = ["x-ratelimit"] writes what GitHub's clients know, and no other."""
    configure(HEADERS=["x-ratelimit"])
    response = caller.get()
    assert response.headers["X-RateLimit-Limit"] == "1000"
    assert response.headers["X-RateLimit-Remaining"] == "999"
    assert response.headers["X-RateLimit-Reset"] == "1775001600"
    assert "RateLimit" not in response.headers


def test_no_fields_on_request(caller, configure):
    """HEADERS = [] counts in silence; a refusal still says when to come back."""
    configure(HEADERS=[])
    limited(caller.organization, 1)
    assert not [field for field in caller.get().headers if "ratelimit" in field.lower()]
    assert caller.get().headers["Retry-After"] == "1857600"


def test_a_part_of_a_second_is_rounded_up(organization, freeze):
    """Who comes back after Retry-After seconds comes after the reset, never before."""
    limited(organization, 0)
    freeze(datetime(2026, 3, 31, 23, 59, 58, 900_000, tzinfo=UTC))
    assert Caller("session", organization).get().headers["Retry-After"] == "2"


# -- other people's middleware -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("outside", [True, False])
def test_a_refusal_keeps_what_others_put_on_the_response(caller, settings, outside):
    """Headers and cookies of other middlewares survive, be they around ours or inside."""
    stamp = "tests.doors.middleware.stamp"
    settings.MIDDLEWARE = [stamp, *settings.MIDDLEWARE] if outside else [*settings.MIDDLEWARE, stamp]
    limited(caller.organization, 0)
    response = caller.get()
    assert response.status_code == 429
    assert response.headers["X-Stamp"] == "stamped"
    assert response.cookies["stamp"].value == "stamped"
    assert response.headers["Content-Type"] == "application/problem+json"


def test_a_refusal_is_not_mistaken_for_the_body_it_replaces(caller, settings):
    """An inner gzip middleware compressed another body: its encoding, length and tag are gone with it."""
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "django.middleware.gzip.GZipMiddleware",
        "tests.doors.middleware.pad",
    ]
    settings.MIDDLEWARE.remove("django.middleware.common.CommonMiddleware")  # it would write the right length again
    caller.headers["Accept-Encoding"] = "gzip"
    assert caller.get().headers["Content-Encoding"] == "gzip"
    limited(caller.organization, 1)
    response = caller.get()
    assert json.loads(response.content)["status"] == 429
    assert not {"Content-Encoding", "Content-Length", "ETag"} & set(response.headers)


def test_a_refusal_replaces_a_stream(caller, settings):
    """A middleware inside that streams every response does not stream a refusal away."""
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "tests.doors.middleware.stream", "tests.doors.middleware.stamp"]
    limited(caller.organization, 0)
    response = caller.get()
    assert response.status_code == 429
    assert not response.streaming
    assert json.loads(response.content)["status"] == 429
    assert response.headers["X-Stamp"] == "stamped"


# -- what is counted ---------------------------------------------------------------------------------------------------


def test_a_head_is_counted_without_a_body(caller):
    """HEAD costs what GET costs; refused, it has the fields and no body."""
    limited(caller.organization, 1)
    assert caller.send("head").status_code == 200
    response = caller.send("head")
    assert response.status_code == 429
    assert response.content == b""
    assert response.headers["Retry-After"] == "1857600"


def test_preflights_are_free(caller):
    """OPTIONS is exempt unless the host says otherwise."""
    limited(caller.organization, 0)
    assert caller.send("options").status_code == 200
    assert used(caller.organization) == 0


def test_methods_can_be_exempt(caller, configure):
    """EXEMPT_METHODS replaces the default."""
    configure(EXEMPT_METHODS=["GET"])
    caller.get()
    assert used(caller.organization) == 0
    caller.send("options")
    assert used(caller.organization) == 1


def test_paths_can_be_exempt(caller, configure):
    """EXEMPT_PATHS wins over PATHS."""
    configure(EXEMPT_PATHS=[f"/api/{caller.stack}/pi"])
    assert "RateLimit" not in caller.get().headers
    assert "RateLimit" in caller.get("costly").headers
    assert used(caller.organization) == 3


@pytest.mark.parametrize("kind", ["session", "token"])
def test_only_the_paths_are_counted(organization, kind):
    """A view outside of PATHS is nobody's usage, throttle or not."""
    caller = Caller(kind, organization)
    assert caller.get(f"/other/{caller.stack}/ping/").status_code == 200
    assert used(organization) == 0


@pytest.mark.parametrize("kind", ["session", "session, ASGI", "token"])
def test_an_unknown_url_is_not_counted(organization, kind):
    """A 404 of the URLs has no view, so nothing is charged."""
    caller = Caller(kind, organization)
    assert caller.get("/api/nothing/here/").status_code == 404
    assert used(organization) == 0


def test_a_caller_without_an_organization_is_not_counted(organization, client):
    """No organization, no count, no fields, no refusal."""
    limited(organization, 0)
    assert client.get("/api/plain/ping/").status_code == 200
    client.force_login(UserFactory())
    response = client.get("/api/plain/outcome/")
    assert json.loads(response.content) == {"outcome": None}
    assert "RateLimit" not in response.headers
    assert used(organization) == 0


def test_switched_off_nothing_is_counted_or_refused(caller, configure):
    """ENABLED = False lets everybody through and writes nothing."""
    limited(caller.organization, 0)
    configure(ENABLED=False)
    response = caller.get()
    assert response.status_code == 200
    assert "RateLimit" not in response.headers
    assert used(caller.organization) == 0


# -- amounts and meters ------------------------------------------------------------------------------------------------


def test_a_view_says_what_it_costs(caller):
    """`usage_amount` takes a number or a function of the request; `usage_exempt` is free."""
    caller.get("costly")
    caller.get("weighed", amount="3")
    caller.get("exempt")
    assert used(caller.organization) == 6


def test_a_view_says_which_meter_it_turns(caller, configure):
    """Each meter has its own quota, and its name is in the fields and the problem."""
    configure(METERS={"tokens": {"default_limit": 1}})
    assert caller.get("tokens").headers["RateLimit"] == '"tokens";r=0;t=1857600'
    response = caller.get("tokens")
    assert response.status_code == 429
    assert json.loads(response.content)["violated-policies"] == ["tokens"]
    assert (used(caller.organization), used(caller.organization, "tokens")) == (0, 1)
    assert caller.get().status_code == 200


def test_a_view_sees_what_was_decided(caller):
    """`request.usage_outcome` has the decision and the organization."""
    response = caller.get("outcome")
    assert json.loads(response.content) == {"outcome": {"used": 1, "organization": str(caller.organization.pk)}}


# -- enforcement -------------------------------------------------------------------------------------------------------


def test_soft_counts_the_overage(caller):
    """Past a soft limit requests go on, and the fields say that nothing is left."""
    limited(caller.organization, 1, enforcement="soft")
    caller.get()
    response = caller.get()
    assert response.status_code == 200
    assert response.headers["RateLimit"] == '"api";r=0;t=1857600'
    assert usage_of(caller.organization).overage == 1


def test_shadow_logs_what_hard_would_have_refused(caller, caplog):
    """Shadow lets everything pass and names each request that would not have."""
    limited(caller.organization, 1, enforcement="shadow")
    caller.get()
    with caplog.at_level(logging.WARNING, "usage_tracking.shadow"):
        assert caller.get().status_code == 200
    assert [entry.name for entry in caplog.records] == ["usage_tracking.shadow"]
    assert used(caller.organization) == 2


# -- refunds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", ["500", "503", "raised"])
def test_a_server_error_is_given_back(caller, failure):
    """Whether the view returns a 5xx or raises: the customer does not pay for it."""
    record(caller.organization, 5)
    response = caller.get("raising") if failure == "raised" else caller.get("status", status=failure)
    assert response.status_code >= 500
    assert used(caller.organization) == 5
    assert "RateLimit" not in response.headers


@pytest.mark.parametrize("status", ["400", "403", "404"])
def test_the_callers_own_mistakes_are_not_given_back(caller, status):
    """A 4xx was work, too."""
    assert caller.get("status", status=status).status_code == int(status)
    assert used(caller.organization) == 1


def test_what_another_throttle_refuses_is_given_back(caller):
    """DRF asks every throttle, so we have charged a request that another one refuses: it was not served."""
    assert caller.get("status", status="429").status_code == 429
    assert used(caller.organization) == 0


def test_a_server_error_can_cost(caller, configure):
    """REFUND_SERVER_ERRORS = False keeps the charge, and the fields say so."""
    configure(REFUND_SERVER_ERRORS=False)
    response = caller.get("status", status="500")
    assert response.headers["RateLimit"] == '"api";r=999;t=1857600'
    assert used(caller.organization) == 1


def test_a_refund_makes_room(caller):
    """The last unit of a quota, given back, can be had again at once."""
    limited(caller.organization, 1)
    caller.get("raising")
    assert caller.get().status_code == 200
    assert caller.get().status_code == 429


def test_a_failing_refund_is_not_a_second_failure(caller, caplog, configure):
    """When the settings break between charge and response, the response still goes out."""
    from tests.doors import views  # noqa: PLC0415

    views.During.action = lambda _: configure(HEADERS=["nonsense"])
    assert caller.get("during").status_code == 200
    assert "could not be told its usage" in caplog.text


def test_organizations_do_not_share(caller):
    """What one organization exhausts another still has."""
    limited(caller.organization, 0)
    other = OrganizationFactory()
    assert caller.get().status_code == 429
    assert consume(other)
