"""The settings: each key's default, what it takes, what it refuses, and that it is read whenever it is needed."""

import ast
import pickle
import re
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.utils import translation
from django.utils.functional import lazystr
from django.utils.translation import gettext_lazy

from usage_tracking.conf import (
    CounterKind,
    Lease,
    LostLease,
    Meter,
    SettingError,
    UsageSettings,
    nearest,
    usage_settings,
)
from usage_tracking.exceptions import UsageTrackingError
from usage_tracking.quotas import MAX_AMOUNT
from usage_tracking.resolvers import default_resolver

KEYS = UsageSettings.keys()
PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "settings.md"


def resolve(request):
    """A resolver of the host."""


def plans():
    """The host's plans, from wherever it keeps them."""
    return {"pro": {"limits": {"api": 5}}}


def no_plans():
    """A callable that returns none."""


API = Meter(name="api", label="api", unit="requests", default_limit=1000)

# key: [(what the host sets, what the property returns), …]
VALID: dict[str, list[tuple[Any, Any]]] = {
    "ENABLED": [(False, False), (True, True)],
    "METERS": [
        ({}, {"api": API}),
        (
            {"tokens": {"label": lazystr("Tokens"), "unit": "tokens", "default_limit": 5}},
            {"api": API, "tokens": Meter(name="tokens", label="Tokens", unit="tokens", default_limit=5)},
        ),
        (
            {"llm-tokens_2": {}},
            {"api": API, "llm-tokens_2": Meter(name="llm-tokens_2", label="llm-tokens_2", unit="", default_limit=None)},
        ),
        (
            {"api": {"label": "Calls", "default_limit": None}},
            {"api": Meter(name="api", label="Calls", unit="requests", default_limit=None)},
        ),
        (
            {"api": {"counter": "leased"}},
            {"api": replace(API, counter=CounterKind.LEASED)},
        ),
        ({"m" * 64: {}}, {"api": API, "m" * 64: Meter(name="m" * 64, label="m" * 64, unit="", default_limit=None)}),
    ],
    "PATHS": [([], ()), (("/v1/", "/v2"), ("/v1/", "/v2")), ({"/"}, ("/",))],
    "EXEMPT_PATHS": [(["/api/health/"], ("/api/health/",))],
    "EXEMPT_METHODS": [([], ()), (["GET", "M-SEARCH"], ("GET", "M-SEARCH"))],
    "ORGANIZATION_RESOLVER": [(resolve, resolve), ("tests.test_conf.resolve", resolve)],
    "DEFAULT_LIMIT": [(None, None), (0, 0), (MAX_AMOUNT, MAX_AMOUNT)],
    "DEFAULT_PLAN": [("gold", "gold")],
    "PLANS": [
        ({"pro": {}}, {"pro": {}}),
        (plans, plans()),
        ("tests.test_conf.plans", plans()),
    ],
    "ENFORCEMENT": [("hard", "hard"), ("soft", "soft"), ("shadow", "shadow")],
    "THRESHOLDS": [([], ()), ([95, 50, 95], (50, 95)), ((1, 99, 101, 1000), (1, 99, 101, 1000))],
    "RESET_MODE": [("lazy", "lazy"), ("scheduled", "scheduled"), ("manual", "manual")],
    "RESET_PERIOD": [(name, name) for name in ("hourly", "daily", "weekly", "monthly", "quarterly", "yearly")],
    "ANCHOR": [
        ("2024-01-15", datetime(2024, 1, 15)),  # noqa: DTZ001 - a wall time
        (date(2024, 1, 15), datetime(2024, 1, 15)),  # noqa: DTZ001 - a wall time
        ("2024-01-15T09:00+00:00", datetime(2024, 1, 15, 9, tzinfo=UTC)),
        (datetime(2024, 1, 15, tzinfo=UTC), datetime(2024, 1, 15, tzinfo=UTC)),
    ],
    "TIME_ZONE": [("Europe/Berlin", ZoneInfo("Europe/Berlin"))],
    "HISTORY_BUCKET": [("day", "day"), ("hour", "hour")],
    "HISTORY_RETENTION_DAYS": [(None, None), (1, 1), (36_500, 36_500)],
    "COUNTER": [("exact", "exact"), ("leased", "leased")],
    "LEASE": [
        ({}, Lease(settle_seconds=1, expire_seconds=30, lost=LostLease.CHARGE)),
        ({"SETTLE_SECONDS": 0.05}, Lease(settle_seconds=0.05, expire_seconds=30)),
        ({"SETTLE_SECONDS": 60}, Lease(settle_seconds=60, expire_seconds=240)),
        ({"EXPIRE_SECONDS": 4}, Lease(settle_seconds=1, expire_seconds=4)),
        ({"SETTLE_SECONDS": 2.5, "EXPIRE_SECONDS": 3600}, Lease(settle_seconds=2.5, expire_seconds=3600)),
        ({"LOST": "forgive"}, Lease(lost=LostLease.FORGIVE)),
    ],
    "REFUND_SERVER_ERRORS": [(False, False), (True, True)],
    "ON_COUNTER_ERROR": [("allow", "allow"), ("refuse", "refuse")],
    "HEADERS": [([], ()), (["x-ratelimit", "ietf"], ("x-ratelimit", "ietf"))],
    "CHARGE_DATABASE": [(None, None), ("charge", "charge")],
    "EVENT_DISPATCH": [("inline", "inline"), ("celery", "celery")],
    "API_KEYS": [([], ()), (("old", "new~!"), ("old", "new~!"))],
}

NO_MEMBER: list[Any] = [None, 1, "", [], {}]
NO_BOOL: list[Any] = [None, 0, 1, "yes", []]
NO_LIST: list[Any] = [None, 1, "GET", b"GET", {"GET": 1}]
NO_PATHS: list[Any] = [*NO_LIST, "/api/", [None], [""], ["api/"], ["/ok/", "https://example.com/"]]

# key: [(what the host sets, what the error says), …]; the words are part of the promise: they lead to the mistake.
INVALID: dict[str, list[tuple[Any, str]]] = {
    "ENABLED": [(value, "must be True or False, not") for value in NO_BOOL],
    "METERS": [
        (None, "must be a dict"),
        (["tokens"], "must be a dict"),
        *(
            ({name: {}}, "is no meter name")
            for name in ("", "Tokens", "2x", "_x", "a b", 'a"', "ä", "m" * 65, 1, "a\n")
        ),
        ({"tokens": None}, "['tokens'] must be a dict"),
        ({"tokens": {"limit": 5}}, "['tokens'] has an unknown key 'limit'"),
        ({"tokens": {"defaultlimit": 5}}, "Did you mean 'default_limit'?"),
        ({"tokens": {"default_limit": -1}}, "['tokens']['default_limit'] cannot be used"),
        ({"tokens": {"default_limit": True}}, "['tokens']['default_limit'] cannot be used"),
        ({"tokens": {"label": 1}}, "['tokens']['label'] must be a string, not 1."),
        ({"api": {"unit": None}}, "['api']['unit'] must be a string, not None."),
        ({"api": {"counter": "lease"}}, "['api']['counter'] cannot be 'lease'. Did you mean 'leased'?"),
        ({"api": {"counter": None}}, "['api']['counter'] cannot be None. Known: exact, leased."),
    ],
    "PATHS": [(value, "must") for value in NO_PATHS],
    "EXEMPT_PATHS": [(value, "must") for value in NO_PATHS],
    "EXEMPT_METHODS": [(value, "must") for value in [*NO_LIST, ["get"], [None], [""]]],
    "ORGANIZATION_RESOLVER": [
        (None, "must be a callable or the dotted path of one, not None."),
        ("", "cannot be imported"),
        ("nowhere.resolve", "cannot be imported: No module named 'nowhere'."),
        ("tests.test_conf.nothing", "cannot be imported"),
        ("tests.test_conf.KEYS", "must be a callable or the dotted path of one, not ["),
    ],
    "DEFAULT_LIMIT": [(value, "cannot be used: limit must be") for value in (-1, True, 1.0, "1", MAX_AMOUNT + 1)],
    "DEFAULT_PLAN": [(value, "must be a string that is not empty, not") for value in (None, "", 1)],
    "PLANS": [
        (None, "must be a dict"),
        (["free"], "must be a dict"),
        ("", "cannot be imported"),
        ("tests.test_conf.nothing", "cannot be imported"),
        (no_plans, "must be a dict, not None."),
        ("tests.test_conf.no_plans", "must be a dict, not None."),
    ],
    "ENFORCEMENT": [(value, "Known: hard, soft, shadow.") for value in NO_MEMBER]
    + [("harsh", "cannot be 'harsh'. Did you mean 'hard'?")],
    "THRESHOLDS": [(value, "must") for value in [*NO_LIST, [0], [100], [1001], [80, True], [80.0], ["80"], [None]]],
    "RESET_MODE": [("lazily", "Did you mean 'lazy'?"), ("", "Known:"), (None, "Known:"), ([], "Known:")],
    "RESET_PERIOD": [("month", "Did you mean 'monthly'?"), (30, "Known:"), (None, "Known:"), ([], "Known:")],
    "ANCHOR": [
        ("tomorrow", "cannot be used: 'tomorrow' is not in ISO 8601"),
        ("", "cannot be used"),
        ("2023-02-29", "cannot be used"),
        (datetime(1800, 1, 1, tzinfo=UTC), "cannot be used"),
        (15, "must be an ISO 8601 string or a datetime, not 15."),
        (None, "must be an ISO 8601 string or a datetime, not None."),
    ],
    "TIME_ZONE": [
        ("Berlin", "cannot be used: 'Berlin' is not the IANA name of a time zone; did you mean 'Europe/Berlin'?"),
        ("", "must be a string that is not empty"),
        (None, "must be a string that is not empty"),
        (ZoneInfo("UTC"), "must be a string that is not empty"),
    ],
    "HISTORY_BUCKET": [("week", "Known: day, hour."), (None, "Known:"), ([], "Known:")],
    "HISTORY_RETENTION_DAYS": [
        (value, "must be None or a whole number from 1 to 36500, not")
        for value in (0, -1, True, 1.0, "90", [], 36_501, 10**30)
    ],
    "COUNTER": [("leases", "Did you mean 'leased'?"), (None, "Known: exact, leased."), ([], "Known:"), ("", "Known:")],
    "LEASE": [
        *((value, "must be a dict") for value in (None, 1, "charge", [])),
        ({"LOSS": "charge"}, "has an unknown key 'LOSS'. Did you mean 'LOST'?"),
        ({"settle_seconds": 1}, "has an unknown key 'settle_seconds'."),
        ({"LOST": "forget"}, "['LOST'] cannot be 'forget'. Did you mean 'forgive'?"),
        ({"LOST": None}, "['LOST'] cannot be None. Known: charge, forgive."),
        *(
            ({"SETTLE_SECONDS": value}, "['SETTLE_SECONDS'] must be a number of seconds from 0.05 to 60, not")
            for value in (0, 0.049, 60.1, -1, True, None, "1", [], float("nan"), float("inf"))
        ),
        *(
            ({"EXPIRE_SECONDS": value}, "['EXPIRE_SECONDS'] must be a number of seconds from 4 to 3600, not")
            for value in (0, 3.9, 3600.1, True, None, "30", [], float("nan"))
        ),
        ({"SETTLE_SECONDS": 10, "EXPIRE_SECONDS": 30}, "['EXPIRE_SECONDS'] must be a number of seconds from 40 to"),
    ],
    "REFUND_SERVER_ERRORS": [(value, "must be True or False, not") for value in NO_BOOL],
    "ON_COUNTER_ERROR": [("deny", "Known: allow, refuse."), (None, "Known:"), (False, "Known:")],
    "HEADERS": [
        *((value, "must be a list") for value in NO_LIST),
        (["x-rate-limit"], "cannot be 'x-rate-limit'. Did you mean 'x-ratelimit'?"),
        ([None], "Known: ietf, x-ratelimit."),
        ([[]], "Known: ietf, x-ratelimit."),
    ],
    "CHARGE_DATABASE": [
        ("charges", "must be None or an alias of DATABASES, not 'charges'. Did you mean 'charge'?"),
        ("", "Known: default, charge."),
        (False, "must be None or an alias of DATABASES"),
        ([], "must be None or an alias of DATABASES"),
    ],
    "EVENT_DISPATCH": [("celeri", "Did you mean 'celery'?"), (None, "Known: inline, celery."), ([], "Known:")],
    "API_KEYS": [
        *((value, "must be a list of keys.") for value in NO_LIST),
        *(([value], "must be visible ASCII characters") for value in (None, 1, "", " ", "with space", "clé", "a\n")),
    ],
}


def cases(table):
    """One parameter set for each row of a table."""
    return [
        pytest.param(key, *row, id=f"{key}-{index}") for key, rows in table.items() for index, row in enumerate(rows)
    ]


@pytest.fixture(autouse=True)
def _no_settings(settings):
    """Start from a host that has set nothing."""
    if hasattr(settings, "USAGE_TRACKING"):
        del settings.USAGE_TRACKING


@pytest.mark.parametrize("table", [VALID, INVALID])
def test_the_tables_below_have_every_key(table):
    """No key is left out of the tests."""
    assert list(table) == KEYS


@pytest.mark.parametrize(("key", "given", "expected"), cases(VALID))
def test_a_valid_value_is_returned_as_soon_as_it_is_set(key, given, expected, settings):
    """Nothing is kept from before: the property returns what the host has set by now, and afterwards the default."""
    default = getattr(usage_settings, key)
    settings.USAGE_TRACKING = {key: given}
    value = getattr(usage_settings, key)
    assert value == expected
    assert isinstance(value, type(default) | type(expected))
    settings.USAGE_TRACKING = {}
    assert getattr(usage_settings, key) == default


@pytest.mark.parametrize(("key", "given", "message"), cases(INVALID))
def test_an_invalid_value_is_refused_by_name(key, given, message, settings):
    """A SettingError names the key, says what is wrong, and leaves the other keys alone."""
    settings.USAGE_TRACKING = {key: given}
    with pytest.raises(SettingError) as caught:
        getattr(usage_settings, key)
    assert caught.value.key.partition("[")[0] == key
    assert str(caught.value).startswith(f"USAGE_TRACKING['{key}']")
    assert message in str(caught.value)
    for other in set(KEYS) - {key, "METERS"}:
        getattr(usage_settings, other)


@pytest.mark.parametrize("key", KEYS)
def test_the_docstring_of_a_key_ends_with_its_default(key):
    """What the manual calls the default is the value of a host that has set nothing."""
    *_, last = getattr(UsageSettings, key).__doc__.strip().splitlines()
    documented = ast.literal_eval(last.strip().removeprefix("Default: `").removesuffix("`"))
    value = getattr(usage_settings, key)
    match key:
        case "METERS":
            assert documented == {}
            assert value == {"api": API}
        case "ORGANIZATION_RESOLVER":
            assert documented == f"{default_resolver.__module__}.{default_resolver.__name__}"
            assert value is default_resolver
        case "ANCHOR":
            assert value == datetime.fromisoformat(documented)
        case "TIME_ZONE":
            assert value == ZoneInfo(documented)
        case "LEASE":
            assert documented == {}
            assert value == Lease()
        case _:
            assert value == (tuple(documented) if isinstance(documented, list) else documented)


@pytest.mark.parametrize("given", ["secret-of-ours", ["good-one", "secret of ours"], {"secret-of-ours": 1}])
def test_a_refused_key_is_not_shown(given, settings):
    """What the message says ends up in logs; a key does not."""
    settings.USAGE_TRACKING = {"API_KEYS": given}
    with pytest.raises(SettingError) as caught:
        _ = usage_settings.API_KEYS
    assert "secret" not in str(caught.value)


def test_the_environment_has_a_key_where_the_settings_have_none(settings, monkeypatch):
    """USAGE_TRACKING_API_KEY is the key of a host that leaves API_KEYS out, and of no other."""
    monkeypatch.setenv("USAGE_TRACKING_API_KEY", "from-outside\n")
    assert usage_settings.API_KEYS == ("from-outside",)
    settings.USAGE_TRACKING = {"API_KEYS": ["from-within"]}
    assert usage_settings.API_KEYS == ("from-within",)
    settings.USAGE_TRACKING = {"API_KEYS": []}
    assert usage_settings.API_KEYS == ()
    del settings.USAGE_TRACKING
    monkeypatch.setenv("USAGE_TRACKING_API_KEY", "")
    assert usage_settings.API_KEYS == ()


@pytest.mark.parametrize("given", [None, [], "ENABLED", 1])
def test_without_a_dict_every_key_says_so(given, settings):
    """USAGE_TRACKING is a dict or missing."""
    settings.USAGE_TRACKING = given
    for key in KEYS:
        with pytest.raises(SettingError, match=r"^USAGE_TRACKING must be a dict, not ") as caught:
            getattr(usage_settings, key)
        assert caught.value.key == ""


def test_the_label_of_a_meter_is_translated_when_it_is_read(settings):
    """`gettext_lazy` works in the settings: each reader gets the language of its own request."""
    settings.USAGE_TRACKING = {"METERS": {"tokens": {"label": gettext_lazy("Monday")}}}
    with translation.override("de"):
        assert usage_settings.METERS["tokens"].label == "Montag"
    with translation.override("en"):
        assert usage_settings.METERS["tokens"].label == "Monday"


def test_a_broken_default_limit_is_not_blamed_on_the_meters(settings):
    """The meter `api` needs DEFAULT_LIMIT, and the error names that."""
    settings.USAGE_TRACKING = {"DEFAULT_LIMIT": -1}
    with pytest.raises(SettingError) as caught:
        _ = usage_settings.METERS
    assert caught.value.key == "DEFAULT_LIMIT"


def test_each_meter_is_leased_as_it_says_or_as_all_are(settings):
    """METERS says it for one of them, COUNTER for all that say nothing."""
    meters = {"api": {"counter": "exact"}, "tokens": {"counter": "leased"}, "seats": {}}
    settings.USAGE_TRACKING = {"METERS": meters}
    assert usage_settings.leased_meters == {"tokens"}
    settings.USAGE_TRACKING = {"METERS": meters, "COUNTER": "leased"}
    assert usage_settings.leased_meters == {"tokens", "seats"}


def test_a_setting_error_is_ours_and_djangos():
    """It is caught as either, and survives the way from a worker process."""
    error = SettingError("METERS['api']['unit']", "must be a string, not 1.")
    assert isinstance(error, UsageTrackingError)
    assert isinstance(error, ImproperlyConfigured)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (str(copy), copy.key) == (str(error), error.key)
    assert str(error) == "USAGE_TRACKING['METERS']['api']['unit'] must be a string, not 1."


def test_the_nearest_word_is_named_or_all_are():
    """A typo is corrected; without a near word, the known ones are listed."""
    assert nearest("PATH", ["PATHS", "HEADERS"]) == " Did you mean 'PATHS'?"
    assert nearest(None, ["PATHS", "HEADERS"]) == " Known: PATHS, HEADERS."


def test_every_key_is_documented_in_the_order_of_the_code():
    """The reference has a heading for each key, with the docstring of its property, and for nothing else."""
    sections = re.findall(
        r"^### (\w+)\n\n```\{eval-rst\}\n\.\. autoproperty:: usage_tracking\.conf\.UsageSettings\.(\w+)\n",
        PAGE.read_text(),
        re.MULTILINE,
    )
    assert sections == [(key, key) for key in KEYS]
    assert len(re.findall(r"^###", PAGE.read_text(), re.MULTILINE)) == len(KEYS)
