"""The scheduled reset by HTTP: what a cron job may do with a key, and that the key stays secret."""

import logging
import sys
from datetime import UTC, datetime

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.views.debug import ExceptionReporter

from tests.api.conftest import Caller, url
from tests.factories import OrganizationFactory, UserFactory
from usage_tracking.metering import consume
from usage_tracking.models import UsagePeriod

KEY, OLD = "s3cret-key-of-a-machine", "s3cret-key-from-before"
MARCH = datetime(2026, 3, 10, 12, tzinfo=UTC)
APRIL = datetime(2026, 4, 1, tzinfo=UTC)

BEARER = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(autouse=True)
def _settings(configure):
    """Two keys."""
    configure(API_KEYS=[KEY, OLD], RESET_MODE="scheduled", METERS={"tokens": {}})


def test_it_closes_what_has_ended(db, freeze):
    """It says how many periods of how many organizations; a second call finds nothing."""
    for _ in range(2):
        organization = OrganizationFactory()
        consume(organization, now=MARCH)
        consume(organization, 5, "tokens", now=MARCH)
    consume(OrganizationFactory(), now=APRIL)
    freeze(APRIL)
    answer = Caller().post(url("reset-expired"), **BEARER)
    assert (answer.status_code, answer.json()) == (200, {"closed": 4, "organizations": 2, "more": False})
    assert answer["Cache-Control"] == "no-store"
    assert UsagePeriod.objects.filter(closed_by="scheduled").count() == 4
    assert Caller().post(url("reset-expired"), **BEARER).json() == {"closed": 0, "organizations": 0, "more": False}


def test_it_says_when_there_is_more(db, freeze, monkeypatch):
    """One request resets so many organizations that it ends in time; a caller that goes on reaches all of them."""
    monkeypatch.setattr("usage_tracking.api.views.ORGANIZATIONS_A_CALL", 2)
    for organization in OrganizationFactory.create_batch(3):
        consume(organization, now=MARCH)
    freeze(APRIL)
    answers = [Caller().post(url("reset-expired"), **BEARER).json() for _ in range(2)]
    assert answers == [
        {"closed": 2, "organizations": 2, "more": True},
        {"closed": 1, "organizations": 1, "more": False},
    ]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (None, BEARER),
        (None, {"Authorization": f"bearer {OLD}"}),
        ({"apiKey": KEY}, {}),
        ({"apiKey": OLD, "more": "than that"}, {}),
        ({"apiKey": KEY}, {"Authorization": "Basic cHJveHk6cHJveHk="}),
        ("this is no JSON and is not read", BEARER),
        ({"apiKey": "wrong"}, BEARER),
    ],
)
def test_a_key_opens_it(db, body, headers):
    """In the header, or in the body; the header comes first, and a body that it makes superfluous is not looked at."""
    assert Caller().post(url("reset-expired"), body, **headers).status_code == 200


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (None, {}),
        ({}, {}),
        ([KEY], {}),
        (KEY, {"Content-Type": "text/plain"}),
        (f"apiKey={KEY}", {"Content-Type": "application/x-www-form-urlencoded"}),
        ({"apikey": KEY}, {}),
        ({"apiKey": None}, {}),
        ({"apiKey": [KEY]}, {}),
        ({"apiKey": True}, {}),
        ({"apiKey": ""}, {}),
        ({"apiKey": KEY[:-1]}, {}),
        ({"apiKey": KEY + "x"}, {}),
        ({"apiKey": f" {KEY}"}, {}),
        ({"apiKey": KEY.upper()}, {}),
        ({"apiKey": "\ud800"}, {}),
        ({"apiKey": "ключ"}, {}),
        ({"apiKey": KEY}, {"Authorization": "Bearer wrong"}),
        (None, {"Authorization": "Bearer"}),
        (None, {"Authorization": "Bearer "}),
        (None, {"Authorization": f"Bearer {KEY} {KEY}"}),
        (None, {"Authorization": f"Bearer {KEY},{OLD}"}),
        (None, {"Authorization": f"Token {KEY}"}),
        (None, {"Authorization": KEY}),
        (None, {"Authorization": "Bearer clé"}),
        (None, {"X-Api-Key": KEY}),
        (None, {"Cookie": f"apiKey={KEY}"}),
    ],
)
def test_nothing_else_does(db, body, headers):
    """401, with the scheme that would have worked."""
    answer = Caller().post(url("reset-expired"), body, **headers)
    assert (answer.status_code, answer["WWW-Authenticate"]) == (401, 'Bearer realm="usage"')


def test_the_query_string_is_no_place_for_a_key(db):
    """It would end up in every access log."""
    assert Caller().post(f"{url('reset-expired')}?apiKey={KEY}").status_code == 401


def test_no_user_opens_it(db):
    """Not even a superuser: a session is none of its business."""
    assert Caller(UserFactory(is_superuser=True)).post(url("reset-expired")).status_code == 401


@pytest.mark.parametrize("keys", [[], None])
def test_without_keys_it_is_shut(db, configure, settings, monkeypatch, keys):
    """Nothing is a key then, the empty string least of all."""
    monkeypatch.delenv("USAGE_TRACKING_API_KEY", raising=False)
    settings.USAGE_TRACKING = {} if keys is None else {"API_KEYS": keys}
    for headers in (BEARER, {"Authorization": "Bearer "}, {}):
        assert Caller().post(url("reset-expired"), {"apiKey": ""}, **headers).status_code == 401


def test_the_environments_key_opens_it(db, settings, monkeypatch):
    """For a host that keeps its secrets there."""
    settings.USAGE_TRACKING = {}
    monkeypatch.setenv("USAGE_TRACKING_API_KEY", "from-outside")
    assert Caller().post(url("reset-expired"), {"apiKey": "from-outside"}).status_code == 200


@pytest.mark.parametrize("method", ["get", "head", "put", "patch", "delete", "options"])
@pytest.mark.parametrize("headers", [{}, BEARER])
def test_it_is_posted(db, method, headers):
    """405 with or without a key, so that no crawler and no prefetching browser starts it."""
    answer = Caller().send(method, url("reset-expired"), **headers)
    assert (answer.status_code, answer["Allow"]) == (405, "POST")


def test_every_key_is_compared(db, monkeypatch):
    """In constant time, and all of them even after a match: time tells nothing."""
    from usage_tracking.api import authentication  # noqa: PLC0415

    compared = []

    def compare(presented, known):
        compared.append(known)
        return presented == known

    monkeypatch.setattr(authentication.hmac, "compare_digest", compare)
    assert Caller().post(url("reset-expired"), **BEARER).status_code == 200
    assert compared == [KEY.encode(), OLD.encode()]


@pytest.mark.parametrize(("body", "headers"), [(None, BEARER), ({"apiKey": KEY}, {})])
@pytest.mark.parametrize(
    "where", ["usage_tracking.api.views.reset_expired", "usage_tracking.api.authentication._is_open"]
)
def test_a_traceback_does_not_show_the_key(db, monkeypatch, caplog, settings, where, body, headers):
    """Neither the log nor the error report of a failing run, in which every frame's variables are written down."""

    def fail(*args, **options):
        raise ImproperlyConfigured("no database today")

    monkeypatch.setattr(where, fail)
    caller = Caller()
    reports = []

    def report(sender, request, **kwargs):
        reports.append(ExceptionReporter(request, *sys.exc_info()).get_traceback_text())

    from django.core.signals import got_request_exception  # noqa: PLC0415

    got_request_exception.connect(report)
    with caplog.at_level(logging.DEBUG):
        assert caller.post(url("reset-expired"), body, **headers).status_code == 500
    got_request_exception.disconnect(report)
    [text] = reports
    assert "no database today" in text
    assert KEY not in text
    assert KEY not in caplog.text


def test_a_refused_key_is_not_logged(db, caplog):
    """A key with a typo is nearly one."""
    with caplog.at_level(logging.DEBUG):
        Caller().post(url("reset-expired"), {"apiKey": KEY + "x"})
        Caller().post(url("reset-expired"), Authorization=f"Bearer {KEY}x")
    assert "Unauthorized" in caplog.text
    assert KEY not in caplog.text
