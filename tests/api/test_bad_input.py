"""What cannot be used is refused with the name of its field, and changes nothing."""

import json

import pytest
from django.db import connection

from tests.api.conftest import Caller, url
from tests.factories import Organization, UserFactory
from usage_tracking.entitlements import update_limits
from usage_tracking.metering import consume
from usage_tracking.models import UsageEvent, UsagePeriod
from usage_tracking.quotas import MAX_AMOUNT

KEY = "the-key-of-a-machine"


@pytest.fixture(autouse=True)
def _settings(configure):
    """Two meters, two plans, one key."""
    configure(METERS={"tokens": {}}, PLANS={"free": {}, "pro": {}}, API_KEYS=[KEY])


def state(organization):
    """Return all that a request could have changed."""
    return (
        Organization.objects.filter(pk=organization.pk).values().get(),
        list(UsagePeriod.objects.values()),
        UsageEvent.objects.count(),
    )


# -- bodies ------------------------------------------------------------------------------------------------------------

# No number of ours: each is tried as a limit.
NO_LIMITS = ["-1", "true", "false", "1.5", "5.0", "1e3", '"5"', '""', "[]", "{}", str(MAX_AMOUNT + 1), "1" + "0" * 30]

# (body, the field that the error names)
CHANGES = [
    *((f'{{"limits": {{"api": {value}}}}}', "limits.api") for value in NO_LIMITS),
    *((f'{{"limits": {value}}}', "limits") for value in ("null", "1", '"api"', "[]", "true")),
    ('{"limits": {"tokens": 1, "calls": 1}}', "limits"),
    ('{"limits": {"": 1}}', "limits"),
    ('{"limits": {"api": 5, "tokens": -1}}', "limits.tokens"),
    *((f'{{"plan": {value}}}', "plan") for value in ("null", "1", "true", "[]", '"gold"', '"pro\\u0000"', '"PRO"')),
    *((f'{{"features": {value}}}', "features") for value in ("null", "1", '"export"', '["export"]', '{"": true}')),
    *((f'{{"features": {{"seats": {value}}}}}', "features.seats") for value in ("null", "[]", "{}", "1e400")),
    (json.dumps({"features": {f"feature-{number}": True for number in range(201)}}), "features"),
    ('{"features": {"a": "\\u0000"}}', "features.a"),
    ('{"features": {"a": "\\ud800"}}', "features.a"),
    (f'{{"features": {{"{"n" * 65}": true}}}}', "features"),
    *((f'{{"reset_mode": {value}}}', "reset_mode") for value in ("null", "1", '"lazily"', "[]", "true")),
    *((f'{{"reset_period": {value}}}', "reset_period") for value in ("null", "30", '"month"', "{}")),
    *((f'{{"enforcement": {value}}}', "enforcement") for value in ("null", "0", '"harsh"')),
    *(
        (f'{{"anchor": {value}}}', "anchor")
        for value in ("null", "15", '"tomorrow"', '"2023-02-29"', '"1800-01-01"', '"2026-01-01T25:00"', '"\\u0000"')
    ),
    *((f'{{"time_zone": {value}}}', "time_zone") for value in ("null", "1", '"Berlin"', '"../UTC"', '"+02:00"')),
    *((f'{{"reason": {value}}}', "reason") for value in ("null", "5", "[]", '"\\u0000"', f'"{"x" * 1001}"')),
    ('{"limit": {"api": 5}}', "limit"),
    ('{"limits": {"api": 5}, "actor": 1}', "actor"),
    ('{"limits": {"api": 5}, "precondition": null}', "precondition"),
    *((body, "body") for body in ("[]", "1", '"api"', "null", "true")),
]


@pytest.mark.parametrize(("body", "field"), CHANGES)
def test_a_change_that_cannot_be_is_named(organization, manager, body, field):
    """400 with the field's name; what was right about the request is not done either."""
    before = state(organization)
    answer = manager.patch(url("limits", organization), body)
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])
    assert all(isinstance(message, str) for message in answer.json()["errors"][field])
    assert state(organization) == before


RESETS = [
    *((f'{{"meter": {value}}}', "meter") for value in ("null", "1", '"calls"', '""', "[]", '"\\u0000"', "true")),
    *((f'{{"reason": {value}}}', "reason") for value in ("null", "5", '"\\u0000"', f'"{"x" * 1001}"')),
    ('{"metre": "api"}', "metre"),
    *((body, "body") for body in ("[]", "1", '"api"', "null")),
]


@pytest.mark.parametrize(("body", "field"), RESETS)
def test_a_reset_that_cannot_be_is_named(organization, manager, body, field):
    """400 with the field's name; nothing is reset."""
    consume(organization, 3)
    before = state(organization)
    answer = manager.post(url("reset", organization), body)
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])
    assert state(organization) == before


NO_JSON = [
    b"",
    b"{",
    b"{'limits': {}}",
    b'{"limits": {"api": NaN}}',
    b'{"features": {"a": Infinity}}',
    b'{"features": {"a": -Infinity}}',
    b'{"limits": {"api": 5}} {}',
    b'{"limits": {"api": ' + b"9" * 5000 + b"}}",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"\xff\xfe{\x00}\x00",
    b'{"reason": "\xff"}',
]


@pytest.mark.parametrize("body", NO_JSON, ids=range(len(NO_JSON)))
@pytest.mark.parametrize("name", ["limits", "reset"])
def test_a_body_that_is_no_json_is_a_bad_request(organization, manager, name, body):
    """400, however it is broken: not finished, not UTF-8, nested without end, with numbers that JSON does not have."""
    if body == b"":
        pytest.skip("No body is an empty one.")
    before = state(organization)
    answer = manager.send("patch" if name == "limits" else "post", url(name, organization), body)
    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")
    assert answer.json()["errors"] == {"body": ["The body is not JSON."]}
    assert state(organization) == before


@pytest.mark.parametrize("charset", ["utf-16", "base64", "zlib", "idna", "nonsense"])
def test_json_is_utf_8_whatever_the_header_says(organization, manager, charset):
    """RFC 8259 knows no other encoding."""
    content_type = {"Content-Type": f"application/json; charset={charset}"}
    answer = manager.patch(url("limits", organization), '{"limits": {"api": 5}}', **content_type)
    assert answer.status_code == 200


@pytest.mark.parametrize("name", ["limits", "reset", "reset-expired"])
def test_a_large_body_is_not_read(organization, manager, name):
    """10 MB are 413; nothing has changed."""
    body = json.dumps({"reason": "x" * 10_000_000})
    before = state(organization)
    if name == "reset-expired":
        answer = Caller().post(url(name), body)
    else:
        answer = manager.send("patch" if name == "limits" else "post", url(name, organization), body)
    assert (answer.status_code, answer["Content-Type"]) == (413, "application/problem+json")
    assert state(organization) == before


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "nonsense"]
)
@pytest.mark.parametrize("name", ["limits", "reset"])
def test_another_content_type_is_415(organization, manager, name, content_type):
    """The body is JSON or nothing."""
    before = state(organization)
    method = "patch" if name == "limits" else "post"
    answer = manager.send(method, url(name, organization), '{"reason": "x"}', **{"Content-Type": content_type})
    assert (answer.status_code, answer["Content-Type"]) == (415, "application/problem+json")
    assert state(organization) == before


def test_of_a_name_that_comes_twice_the_last_one_holds(organization, manager):
    """As in any JSON parser of Python's."""
    answer = manager.patch(url("limits", organization), '{"limits": {"api": 1}, "limits": {"api": 2}}')
    assert answer.json()["limits"] == {"api": 2}


# -- parameters --------------------------------------------------------------------------------------------------------

# endpoint, query, the field that the error names
PARAMETERS = [
    *(("organization-list", f"{name}={value}", name)
      for name in ("near_limit", "exceeded", "expired") for value in ("1", "yes", "null", "tru", "%00")),
    *(("organization-list", f"plan={value}", "plan") for value in ("gold", "%00", "PRO", "x" * 5000)),
    *(("organization-list", f"reset_mode={value}", "reset_mode") for value in ("lazily", "%00", "1")),
    *(("organization-list", f"meter={value}", "meter") for value in ("calls", "%00", "api,tokens")),
    *(("organization-list", f"ordering={value}", "ordering") for value in ("name", "--id", "usage_plan", "id,plan")),
    *(("organization-list", f"page={value}", "page") for value in ("0", "-1", "x", "last", "1.0", "%00", "")),
    *(("organization-list", f"page_size={value}", "page_size") for value in ("0", "-1", "x", "1e3", "")),
    ("organization-list", "plans=pro", "plans"),
    ("organization-list", "q=1&near_limits=true", "q"),
    ("detail", "meter=api", "meter"),
    ("limits", "meter=api", "meter"),
    ("reset", "meter=api", "meter"),
    ("current", "organization=1", "organization"),
    ("events", "page=x", "page"),
    ("events", "kind=reset", "kind"),
    *(("history", f"meter={value}", "meter") for value in ("calls", "", "api,", "api,calls", "%00", "API")),
    *(("history", f"since={value}", "since")
      for value in ("", "yesterday", "2026-02-30", "03/01/2026", "0001-01-01", "9999-12-31", "%00", "1772323200")),
    *(("history", f"until={value}", "until") for value in ("now", "2026-13-01", "2026-03-01T24:00", "1900-01-01")),
    ("history", "since=2026-03-02&until=2026-03-01", "since"),
    ("history", "since=2026-03-02&until=2026-03-02", "since"),
    ("history", "since=2026-03-02T01:00%2B01:00&until=2026-03-02T00:00Z", "since"),
    ("history", "bucket=day&bucket=hour", "bucket"),
    ("history", "last=5&last=5", "last"),
    ("history", "meter=api&since=2026-03-01&since=2026-03-02", "since"),
    ("organization-list", "meter=api&meter=tokens", "meter"),
    ("organization-list", "plan=pro&plan=", "plan"),
    ("organization-list", "page=1&page=2", "page"),
    ("events", "page_size=5&page_size=6", "page_size"),
    ("history", "since=1950-01-01", "since"),
    *(("history", f"bucket={value}", "bucket") for value in ("", "hour", "year", "days", "%00")),
    *(("history", f"last={value}", "last") for value in ("", "0", "-1", "x", "1.5", "10001", "true", "9" * 40, "%00")),
    ("history", "last=5&since=2026-03-01", "last"),
    ("history", "last=10000&bucket=month", "last"),
    ("history", "days=7", "days"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "query", "field"), PARAMETERS)
def test_a_parameter_that_cannot_be_is_named(organization, manager, name, query, field):
    """400 with the parameter's name, also for one that does not exist: a filter must not be ignored silently."""
    target = url(name) if name in {"organization-list", "current"} else url(name, organization)
    method = "post" if name == "reset" else "get"
    answer = manager.send(method, f"{target}?{query}")
    assert answer.status_code == 400
    assert field in answer.json()["errors"]
    assert not UsageEvent.objects.exists()


def test_a_misspelt_parameter_is_corrected(manager):
    """The nearest one that exists is named."""
    answer = manager.get(url("organization-list"), near_limits="true")
    assert "Did you mean 'near_limit'?" in answer.json()["errors"]["near_limits"][0]


# -- ids ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    ["0", "-1", "007", "+1", "1.0", "1e1", "0x1", "1_0", "%201", "%EF%BC%91", "9" * 30, "9" * 5000, "abc", "None",
     "%00", "1%00", "a%00b", "%22", "'", "'; --", "%FF", "%F0%9F%98%80", "current", "..%5C", "{}", "[]", "*", "%25",
     "x" * 2000, "00000000-0000-0000-0000-00000000000", "zzzzzzzz-0000-0000-0000-000000000000"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["detail", "history", "events", "limits", "reset"])
def test_an_id_that_is_none_is_not_found(db, name, key):
    """404 whatever it is and whatever type keys have, for somebody who may see everything."""
    caller = Caller(UserFactory(is_superuser=True))
    target = url(name, "PLACE").replace("PLACE", key)
    answer = caller.send("post" if name == "reset" else "get", target)
    assert (answer.status_code, answer.json()["detail"]) == (404, "Not found.")


@pytest.mark.parametrize("spelling", [str.upper, str.title, "{} ".format, " {}".format, "0{}".format])
def test_an_id_has_one_spelling(organization, manager, spelling):
    """What a database takes for the same key is another one; only UUIDs may be in upper case."""
    key = str(organization.pk)
    other = spelling(key)
    if other == key:
        pytest.skip("This spelling is the key.")
    is_uuid = connection.ops and organization._meta.pk.get_internal_type() == "UUIDField" and len(other) == len(key)
    assert manager.get(url("detail", other)).status_code == (200 if is_uuid else 404)


def test_what_the_engine_refuses_is_named_as_well(organization, manager, monkeypatch):
    """Should a serializer let something pass, the engine's own error is told."""
    monkeypatch.setattr("usage_tracking.api.fields.check_plan", lambda name: None)
    answer = manager.patch(url("limits", organization), {"plan": "gold"})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["plan"])
    update_limits(organization, plan="pro")


def test_an_organization_that_is_deleted_meanwhile_is_not_found(organization, manager, monkeypatch):
    """It was there when the request began."""
    from usage_tracking.api import views  # noqa: PLC0415

    engine = views.reset

    def late(*args, **kwargs):
        Organization.objects.filter(pk=organization.pk).get().delete()
        return engine(*args, **kwargs)

    monkeypatch.setattr(views, "reset", late)
    answer = manager.post(url("reset", organization))
    assert (answer.status_code, answer.json()["title"]) == (404, "Not found")
