"""The system checks: each fires on the mistake that it is for, and on nothing else."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace, new_class
from typing import Any

import pytest
from django.conf.urls.i18n import i18n_patterns
from django.contrib.auth.models import Group
from django.core.checks import run_checks
from django.core.checks.registry import registry
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections, models, router
from django.http import HttpResponse
from django.test.utils import isolate_apps
from django.urls import include, path, re_path
from django.utils.functional import lazystr
from django.views import View

from tests.urls import ping
from usage_tracking import checks
from usage_tracking.checks import databases, organization, requests
from usage_tracking.checks import settings as settings_checks
from usage_tracking.decorators import usage_meter
from usage_tracking.middleware import UsageTrackingMiddleware
from usage_tracking.models import UsagePeriod, UsageTrackedOrganization

CHECKOUT = Path(__file__).resolve().parent.parent
PAGE = CHECKOUT / "docs" / "reference" / "checks.md"
SOURCES = sorted(Path(checks.__file__).parent.glob("*.py"))
# A ModelAdmin checks itself.
ADMIN = CHECKOUT / "usage_tracking" / "admin" / "organizations.py"
ADMIN_TESTS = CHECKOUT / "tests" / "admin" / "test_list.py"

OURS = "usage_tracking.middleware.UsageTrackingMiddleware"


class Renamed(UsageTrackingMiddleware):
    """A host's subclass."""


def ids(check, **kwargs):
    """What a check finds: the ids, without the prefix that all share."""
    return [message.id.removeprefix("usage_tracking.") for message in check(**kwargs)]


def urlconf(*patterns):
    """A host's URLs, for ROOT_URLCONF."""
    module: Any = ModuleType("urls_of_a_host")
    module.urlpatterns = patterns
    return module


def found(check, number, **kwargs):
    """The one message with that id."""
    [message] = [message for message in check(**kwargs) if message.id == f"usage_tracking.{number}"]
    return message


# -- the settings ------------------------------------------------------------------------------------------------------


def raise_at_once():
    """A host's plans, from a service that is down."""
    raise RuntimeError("no plans today")


def ask_a_missing_table():
    """A host's plans, from a table that the first `migrate` has yet to make."""
    raise DatabaseError("no such table: plans")


def misspelt_plans():
    """A host's plans, from wherever it keeps them."""
    return {"free": {"limit": 5}}


SETTINGS: list[tuple[Any, list[str]]] = [
    (None, ["E001"]),
    ([], ["E001"]),
    ({}, []),
    ({"ENABLED": False, "PLANS": {"free": {"limits": {"api": 1}, "features": {"export": True}}}}, []),
    ({"PATH": ["/api/"]}, ["E002"]),
    ({"enabled": True, 1: 2, "PLAN": {}}, ["E002", "E002", "E002"]),
    ({"ENABLED": 1}, ["E003"]),
    ({"ENABLED": 1, "HEADERS": "ietf", "nonsense": 1}, ["E002", "E003", "E003"]),
    ({"DEFAULT_LIMIT": -1}, ["E003"]),  # once, though METERS and PLANS ask for it as well
    ({"METERS": {"api": {"limit": 1}}, "PLANS": {"free": {"limits": {"api": 1}}}}, ["E003"]),
    ({"ORGANIZATION_RESOLVER": "tests.no_such_module.resolve"}, ["E003"]),
    ({"CHARGE_DATABASE": "replica"}, ["E003"]),
    ({"PLANS": ["free"]}, ["E003"]),
    ({"PLANS": "tests.test_checks.nothing"}, ["E003"]),
    ({"PLANS": {"free": None}}, ["E003"]),
    ({"PLANS": {"free": {"limit": {"api": 5}}}}, ["E003"]),
    ({"PLANS": {"free": {"limits": {"tokens": 5}}}}, ["E003"]),
    ({"PLANS": {"free": {"limits": {"tokens": 5}}}, "METERS": {"tokens": {}}}, []),
    ({"PLANS": {"free": {"limits": {"api": -1}}}}, ["E003"]),
    ({"PLANS": {"free": {"features": {"seats": [1]}}}}, ["E003"]),
    ({"PLANS": {"free": {"enforcement": "harsh"}}}, ["E003"]),
    ({"PLANS": {"free": {"reset_period": "month"}}}, ["E003"]),
    ({"PLANS": {"free": {}, 1: {}, "": {}, "pro": {"a": 1}}}, ["E003", "E003", "E003"]),
    ({"PLANS": {"gold": {}}}, ["W004"]),
    ({"PLANS": {"gold": {}}, "DEFAULT_PLAN": "gold"}, []),
    ({"PLANS": {"gold": {}}, "DEFAULT_PLAN": None}, ["E003"]),
    ({"PLANS": raise_at_once}, []),
    ({"PLANS": "tests.test_checks.misspelt_plans"}, []),
]


@pytest.mark.parametrize(("given", "expected"), SETTINGS)
def test_keys_and_values_are_checked(given, expected, settings):
    """Unknown keys and impossible values are found, each of them, and valid settings are left alone."""
    settings.USAGE_TRACKING = given
    assert ids(settings_checks.check_settings) == expected


@pytest.mark.parametrize(
    ("given", "number", "message", "hint"),
    [
        ([], "E001", "USAGE_TRACKING must be a dict, not [].", "Write USAGE_TRACKING = {…}, or leave it out:"),
        ({"PATH": []}, "E002", "USAGE_TRACKING has an unknown key 'PATH'.", "Did you mean 'PATHS'?"),
        ({"qqqq": []}, "E002", "USAGE_TRACKING has an unknown key 'qqqq'.", "Known: ENABLED, METERS, PATHS,"),
        (
            {"ENABLED": 1},
            "E003",
            "USAGE_TRACKING['ENABLED'] must be True or False, not 1.",
            "ENABLED: Whether anything is counted or refused at all. Default: `True`",
        ),
        (
            {"PLANS": {"free": {"limit": 1}}},
            "E003",
            "USAGE_TRACKING['PLANS']['free'] has an unknown key 'limit'. Did you mean 'limits'?",
            "PLANS: ",
        ),
        (
            {"PLANS": {"free": {"limits": {"tokenz": 1}}}, "METERS": {"tokens": {}}},
            "E003",
            "limits has an unknown meter 'tokenz'. Did you mean 'tokens'?",
            "PLANS: ",
        ),
        ({"PLANS": {"frei": {}}}, "W004", "The default plan 'free' is not in PLANS", "Did you mean 'frei'?"),
    ],
)
def test_a_mistake_is_named_with_what_to_do(given, number, message, hint, settings):
    """The message says what happened and where, the hint what to do next."""
    settings.USAGE_TRACKING = given
    problem = found(settings_checks.check_settings, number)
    assert message in problem.msg
    assert hint in problem.hint


def test_a_module_that_fails_while_it_is_imported_is_reported(settings, monkeypatch):
    """Whatever the host's own module raises becomes a message, not a traceback."""
    settings.USAGE_TRACKING = {"ORGANIZATION_RESOLVER": "broken.resolve", "PLANS": "broken.plans"}

    def fail(name):
        raise SyntaxError(name)

    monkeypatch.setattr("usage_tracking.setting_values.import_string", fail)
    assert ids(settings_checks.check_settings) == ["E003", "E003"]
    assert ids(settings_checks.check_asked_plans, databases=["default"]) == []


@pytest.mark.parametrize(
    ("plans", "expected"),
    [
        ({"free": {"limit": 5}}, []),  # for `check_settings`
        ("tests.test_checks.nothing", []),  # for `check_settings`
        (misspelt_plans, ["E003"]),
        ("tests.test_checks.misspelt_plans", ["E003"]),
        (lambda: {"gold": {}}, ["W004"]),
        (lambda: {"free": {}}, []),
        (lambda: None, ["E003"]),
        (raise_at_once, ["E003"]),
        (ask_a_missing_table, []),
    ],
)
def test_plans_of_a_callable_are_checked_when_databases_may_be_asked(plans, expected, settings):
    """With `--database` the callable is asked; one whose table is still to come is not to stop `migrate`."""
    settings.USAGE_TRACKING = {"PLANS": plans}
    assert ids(settings_checks.check_asked_plans, databases=["default"]) == expected
    assert ids(settings_checks.check_asked_plans, databases=None) == []
    assert ids(settings_checks.check_asked_plans, databases=[]) == []


@pytest.mark.parametrize(("keys", "expected"), [([], []), (["new"], []), (["old", "new"], ["W010"]), ("old", [])])
def test_a_key_that_was_replaced_is_to_go(keys, expected, settings):
    """Two open keys are for the time in which one replaces the other; the keys themselves are not shown."""
    settings.USAGE_TRACKING = {"API_KEYS": keys}
    assert ids(settings_checks.check_api_keys) == expected


@pytest.mark.parametrize(("use_tz", "expected"), [(True, []), (False, ["E010"])])
def test_time_zones_must_be_on(use_tz, expected, settings):
    """Periods need instants."""
    settings.USE_TZ = use_tz
    assert ids(settings_checks.check_time_zones) == expected


@pytest.mark.parametrize(
    ("dispatch", "installed", "expected"),
    [
        ("inline", False, []),
        ("inline", True, []),
        ("celery", True, []),
        ("celery", False, ["E011"]),
        ("celeri", False, []),  # for `check_settings`
    ],
)
def test_celery_must_be_installed_to_deliver(dispatch, installed, expected, settings, monkeypatch):
    """Without Celery, `EVENT_DISPATCH = "celery"` would leave every event in the outbox."""
    settings.USAGE_TRACKING = {"EVENT_DISPATCH": dispatch}
    monkeypatch.setattr(settings_checks, "find_spec", lambda name: {"celery": installed or None}[name])
    assert ids(settings_checks.check_celery) == expected


# -- the organization --------------------------------------------------------------------------------------------------


class Hooks:
    """A mixin of the host that answers for several models."""

    @classmethod
    def usage_visible_to(cls, user):
        """The organizations of the user."""

    def usage_managed_by(self, user):
        """Whether the user may change them."""


class InstanceHook:
    """A mixin without the decorator."""

    def usage_visible_to(self, user):
        """Too late: there is no `self` yet."""

    def usage_managed_by(self, user):
        """Whether the user may change it."""


class StaticHook(Hooks):
    """Unusual, but it works."""

    @staticmethod
    def usage_visible_to(user):
        """Nobody sees anything."""


class Hiding(Hooks):
    """A mixin whose attribute has the name of a field."""

    usage_plan = "gold"


class Base(UsageTrackedOrganization):
    """An abstract model between ours and theirs, as hosts have it."""

    class Meta:
        abstract = True


@pytest.mark.parametrize(
    ("bases", "expected"),
    [
        ((Hooks, UsageTrackedOrganization), []),
        ((Hooks, Base), []),
        ((StaticHook, UsageTrackedOrganization), []),
        ((UsageTrackedOrganization,), ["W001", "W002"]),
        ((Base,), ["W001", "W002"]),
        ((UsageTrackedOrganization, Hooks), ["W003", "W003"]),
        ((Base, Hooks), ["W003", "W003"]),
        ((InstanceHook, UsageTrackedOrganization), ["E006"]),
        ((Hiding, UsageTrackedOrganization), ["E005"]),
        ((Hooks, models.Model), ["E004"]),
    ],
)
def test_the_organization_is_checked(bases, expected, monkeypatch):
    """It inherits our model, whole, and its hooks are the ones that are asked."""
    with isolate_apps("tests"):
        model = new_class(
            "Club",
            bases,
            exec_body=lambda body: body.update(__module__=__name__, Meta=type("Meta", (), {"app_label": "tests"})),
        )
    monkeypatch.setattr(organization, "get_organization_model", lambda: model)
    assert ids(organization.check_organization) == expected
    assert all(problem.obj is model for problem in organization.check_organization())


def test_a_hidden_field_is_named(monkeypatch):
    """The message says which field is missing."""
    with isolate_apps("tests"):

        class Club(Hiding, UsageTrackedOrganization):
            class Meta:
                app_label = "tests"

    monkeypatch.setattr(organization, "get_organization_model", lambda: Club)
    assert "usage_plan." in found(organization.check_organization, "E005").msg


@pytest.mark.django_db
def test_an_organization_setting_that_was_changed_after_migrating_is_found(settings):
    """The foreign keys of our tables say what was migrated."""
    check = organization.check_organization_unchanged
    assert ids(check, databases=["default"]) == []
    migrated = connections["default"].introspection.table_names()
    settings.USAGE_TRACKING_ORGANIZATION_MODEL = "auth.Group"
    problem = found(check, "E014", databases=["default"])
    assert "USAGE_TRACKING_ORGANIZATION_MODEL is 'auth.Group', whose table is 'auth_group'" in problem.msg
    assert repr(UsagePeriod._meta.get_field("organization").related_model._meta.db_table) in problem.msg
    assert "auth_group" in migrated
    assert ids(check) == ids(check, databases=None) == ids(check, databases=[]) == []


@pytest.mark.django_db
@pytest.mark.parametrize("model", [UsagePeriod, Group])
def test_a_table_that_is_still_to_be_migrated_is_no_drift(model, settings, monkeypatch):
    """`migrate` runs this check before it makes or renames a table, and must not be stopped by it."""
    settings.USAGE_TRACKING_ORGANIZATION_MODEL = "auth.Group"
    monkeypatch.setattr(model._meta, "db_table", "still_to_come")
    assert ids(organization.check_organization_unchanged, databases=["default"]) == []


@pytest.mark.django_db
def test_a_database_without_our_tables_is_not_asked(settings, monkeypatch):
    """Where the router lets our tables not be, there is nothing to compare."""
    settings.USAGE_TRACKING_ORGANIZATION_MODEL = "auth.Group"
    monkeypatch.setattr(router, "allow_migrate_model", lambda alias, _: alias != "elsewhere")
    assert ids(organization.check_organization_unchanged, databases=["elsewhere"]) == []
    assert ids(organization.check_organization_unchanged, databases=["default", "elsewhere"]) == ["E014"]


@pytest.mark.django_db
def test_a_database_without_foreign_keys_is_no_drift(settings, monkeypatch):
    """Some databases keep none; then there is nothing to compare."""
    settings.USAGE_TRACKING_ORGANIZATION_MODEL = "auth.Group"
    introspection = connections["default"].introspection
    monkeypatch.setattr(introspection, "get_relations", lambda *_: {})
    assert ids(organization.check_organization_unchanged, databases=["default"]) == []


def test_fields_without_a_migration_are_named(settings, monkeypatch):
    """`migrate` says which fields the host has forgotten to make a migration for."""
    check = organization.check_organization_migrated
    assert ids(check) == ids(check, databases=["default"]) == []
    label, _, name = settings.USAGE_TRACKING_ORGANIZATION_MODEL.lower().partition(".")
    state = organization.MigrationLoader(None).project_state()
    del state.models[label, name].fields["usage_plan"]
    with monkeypatch.context() as patch:
        patch.setattr(organization.MigrationLoader, "project_state", lambda _: state)
        problem = found(check, "W009", databases=["default"])
        assert problem.msg == f"No migration of {label} gives Organization its usage fields: usage_plan."
        del state.models[label, name]
        assert "usage_plan, usage_features" in found(check, "W009", databases=["default"]).msg
        settings.MIGRATION_MODULES = {label: None}
        assert ids(check, databases=["default"]) == []
        settings.USAGE_TRACKING_ORGANIZATION_MODEL = "auth.Group"
        assert ids(check, databases=["default"]) == []


# -- requests ----------------------------------------------------------------------------------------------------------

SESSION = "django.contrib.sessions.middleware.SessionMiddleware"
USER = "django.contrib.auth.middleware.AuthenticationMiddleware"
LOGIN = "django.contrib.auth.middleware.LoginRequiredMiddleware"
CSRF = "django.middleware.csrf.CsrfViewMiddleware"
LATER = "django.middleware.clickjacking.XFrameOptionsMiddleware"
SUBCLASS = "tests.test_checks.Renamed"
FUNCTION = "tests.urls.ping"


@pytest.mark.parametrize(
    ("middleware", "expected"),
    [
        ([SESSION, USER, OURS], []),
        ([SESSION, CSRF, USER, LOGIN, SUBCLASS], []),
        ([SESSION, USER, OURS, LATER, FUNCTION], []),
        ([OURS], []),
        ([], ["E007"]),
        ([SESSION, USER, FUNCTION, "nowhere.Middleware"], ["E007"]),
        ([OURS, SESSION, USER], ["W005", "W005"]),
        ([SESSION, SUBCLASS, USER], ["W005"]),
        ([SESSION, USER, OURS, CSRF], ["W005"]),
        ([SESSION, USER, OURS, LOGIN], ["W005"]),
        ([SESSION, USER, OURS, LATER, OURS], ["E008"]),
        ([SESSION, OURS, USER, SUBCLASS], ["E008", "W005"]),
    ],
)
def test_the_middleware_must_be_there_once_and_late(middleware, expected, settings):
    """A subclass counts as ours; functions and what cannot be imported are somebody else's."""
    settings.MIDDLEWARE = middleware
    assert ids(requests.check_middleware) == expected
    settings.USAGE_TRACKING = {"PATHS": []}
    assert ids(requests.check_middleware) == []


def test_a_middleware_whose_module_fails_is_left_to_django(settings, monkeypatch):
    """Whatever somebody else's module raises, the check ends."""
    settings.MIDDLEWARE = ["broken.Middleware"]

    def fail(name):
        raise ImproperlyConfigured(name)

    monkeypatch.setattr(requests, "import_string", fail)
    assert ids(requests.check_middleware) == ["E007"]


def test_a_middleware_that_comes_too_early_is_named_with_what_it_must_follow(settings):
    """Both dotted paths are in the message."""
    settings.MIDDLEWARE = [SUBCLASS, LATER, USER]
    message = found(requests.check_middleware, "W005").msg
    assert SUBCLASS in message
    assert USER in message
    assert LATER not in message


LEAF = path("ping/", ping)


@pytest.mark.parametrize(
    ("patterns", "paths", "expected"),
    [
        ([path("api/ping/", ping)], ["/api/"], []),
        ([path("api/ping/", ping)], ["/"], []),
        ([path("api/ping/", ping)], ["/api/ping/"], []),
        ([path("api/ping/", ping)], ["/api/pong/"], ["W006"]),
        ([path("api/ping/", ping)], ["/api/ping/more/"], ["W006"]),
        ([path("", ping)], ["/api/"], ["W006"]),
        ([path("v1/", ping)], ["/api/", "/v1/", "/v2/"], ["W006", "W006"]),
        ([path("v1/", ping)], [], []),
        ([path("api/", include([LEAF]))], ["/api/"], []),
        ([path("api/", include([LEAF]))], ["/api/ping/"], []),
        ([path("api/", include([LEAF]))], ["/api/pong/"], ["W006"]),
        ([path("", include([path("api/", include([LEAF]))]))], ["/api/ping/"], []),
        ([path("", include([path("web/", include([LEAF]))]))], ["/api/"], ["W006"]),
        # A parameter may be anything.
        ([path("<slug:page>/", ping)], ["/api/"], []),
        ([path("web/<slug:page>/", ping)], ["/api/"], ["W006"]),
        ([path("api/<int:version>/", include([LEAF]))], ["/api/1/ping/"], []),
        # Regular expressions: their literal beginning is known, and no more.
        ([re_path(r"^api/ping/$", ping)], ["/api/"], []),
        ([re_path(r"^web/(?P<page>\d+)$", ping)], ["/api/"], ["W006"]),
        ([re_path(r"^(?P<page>.*)$", ping)], ["/api/"], []),
        ([re_path(r"^$", ping)], ["/api/"], ["W006"]),
        ([re_path(r"^\Z", ping)], ["/api/"], ["W006"]),
        ([re_path(r"^", ping)], ["/api/"], []),
        ([re_path(r"api/", ping)], ["/v1/api/"], []),
        ([re_path(r"^web/|^api/", ping)], ["/api/"], []),
        ([re_path(r"^webs?/", ping)], ["/web/"], []),
        ([re_path(r"^apix*/", ping)], ["/api/"], []),
        ([re_path(r"^apix{0}/", ping)], ["/api/"], []),
        ([re_path(r"^api\.v1/", ping)], ["/api.v1/"], []),
        ([re_path(r"^", include([LEAF]))], ["/api/"], ["W006"]),
        ([re_path(r"^", include([path("api/", ping)]))], ["/api/"], []),
        ([re_path(r"^api/", include([LEAF]))], ["/api/pong/"], ["W006"]),
        ([re_path(r"^(web|api)/", include([LEAF]))], ["/api/pong/"], []),
        # Languages: the prefix is another one for each caller.
        (i18n_patterns(path("api/", ping)), ["/de/api/"], []),
        ([path(lazystr("web/"), ping)], ["/api/"], []),
        ([re_path(lazystr("^web/"), ping)], ["/api/"], []),
    ],
)
def test_each_entry_of_paths_has_a_url(patterns, paths, expected, settings):
    """Only when no URL can begin with an entry of PATHS there is a warning."""
    settings.ROOT_URLCONF = urlconf(*patterns)
    settings.USAGE_TRACKING = {"PATHS": paths}
    assert ids(requests.check_paths) == expected


@pytest.mark.parametrize("check", [requests.check_paths, requests.check_view_meters])
def test_a_project_without_urls_is_left_alone(check, settings):
    """A worker that serves no requests needs no URLconf."""
    del settings.ROOT_URLCONF
    assert ids(check) == []


@usage_meter("tokenz")
def misspelt(request):
    """A view with a typo."""


class Reports(View):
    """A view whose methods count on meters of their own."""

    @usage_meter("tokens")
    def get(self, _request):
        """Known."""
        return HttpResponse()

    @usage_meter("tokenz")
    def post(self, _request):
        """Unknown."""
        return HttpResponse()


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([path("", ping)], []),
        ([path("", usage_meter("tokens")(lambda _: HttpResponse()))], []),
        ([path("", misspelt)], ["tests.test_checks.misspelt"]),
        ([path("", Reports.as_view())], ["tests.test_checks.Reports"]),
        ([path("1/", misspelt), path("2/", include([path("<int:n>/", misspelt)]))], ["tests.test_checks.misspelt"]),
    ],
)
def test_views_are_counted_on_meters_that_exist(patterns, expected, settings):
    """Every view and method under the URLconf is asked; one with many URLs is named once."""
    settings.ROOT_URLCONF = urlconf(*patterns)
    settings.USAGE_TRACKING = {"METERS": {"tokens": {}}}
    assert ids(requests.check_view_meters) == ["E009" for _ in expected]
    problems = requests.check_view_meters()
    assert [problem.obj for problem in problems] == expected
    for problem in problems:
        assert "'tokenz'" in problem.msg
        assert "Did you mean 'tokens'?" in str(problem.hint)


# -- databases ---------------------------------------------------------------------------------------------------------

ENTRY = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": "site",
    "HOST": "db",
    "PORT": 5432,
    "CONN_MAX_AGE": 0,
    "ATOMIC_REQUESTS": False,
    "OPTIONS": {},
}


@pytest.fixture
def project(monkeypatch, settings):
    """A host on a database server, with these entries for `default` and `charge`; neither is ever opened."""

    def configure(default=None, charge=None, vendor="postgresql", charge_database=None, counters=None):
        entries = {"default": ENTRY | (default or {}), "charge": ENTRY | (charge or {})}
        fakes = {alias: SimpleNamespace(vendor=vendor, settings_dict=entry) for alias, entry in entries.items()}
        monkeypatch.setattr(databases, "connections", fakes)
        settings.USAGE_TRACKING = {"CHARGE_DATABASE": charge_database, **(counters or {})}

    return configure


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"charge_database": "charge"}, []),
        ({"charge_database": "charge", "default": {"ATOMIC_REQUESTS": True}}, []),
        ({"charge_database": "charge", "charge": {"PORT": "5432"}}, []),
        ({"charge_database": "charge", "charge": {"ATOMIC_REQUESTS": True}}, ["E013"]),
        ({"charge_database": "charge", "charge": {"ENGINE": "django.contrib.gis.db.backends.postgis"}}, ["E012"]),
        ({"charge_database": "charge", "charge": {"NAME": "other"}}, ["E012"]),
        ({"charge_database": "charge", "charge": {"HOST": "replica"}}, ["E012"]),
        ({"charge_database": "charge", "charge": {"PORT": 6432, "ATOMIC_REQUESTS": True}}, ["E012", "E013"]),
        ({"charge_database": "default", "default": {"ATOMIC_REQUESTS": True}}, ["E013"]),
        ({"charge_database": "default"}, []),
        ({"charge_database": "nowhere"}, []),  # for `check_settings`
        ({"charge_database": "charge", "charge": {"NAME": "other", "ATOMIC_REQUESTS": True}, "vendor": "sqlite"}, []),
    ],
)
def test_charges_go_to_the_same_database_by_a_connection_of_their_own(given, expected, project):
    """On SQLite a charge always joins, so there is nothing to get wrong."""
    project(**given)
    assert ids(databases.check_charge_database) == expected


def test_the_message_names_what_differs(project):
    """Whoever has a typo in CHARGE_DATABASE's entry sees where."""
    project(charge_database="charge", charge={"NAME": "other", "HOST": "replica"})
    assert "they differ in NAME, HOST." in found(databases.check_charge_database, "E012").msg


@pytest.mark.parametrize(
    ("throttled", "given", "expected"),
    [
        (True, {"default": {"ATOMIC_REQUESTS": True}}, ["W007"]),
        (True, {"default": {"ATOMIC_REQUESTS": True}, "counters": {"COUNTER": "leased"}}, []),
        (
            True,
            {
                "default": {"ATOMIC_REQUESTS": True},
                "counters": {"COUNTER": "leased", "METERS": {"tokens": {"counter": "exact"}}},
            },
            ["W007"],
        ),
        (True, {}, []),
        (False, {"default": {"ATOMIC_REQUESTS": True}}, []),
        (True, {"default": {"ATOMIC_REQUESTS": True}, "charge_database": "charge"}, []),
        (True, {"default": {"ATOMIC_REQUESTS": True}, "vendor": "sqlite"}, []),
    ],
)
@pytest.mark.parametrize("where", ["class", "subclass", "action"])
def test_a_throttle_inside_the_transaction_of_the_view_is_pointed_out(
    where, throttled, given, expected, project, settings
):
    """DRF's throttle with ATOMIC_REQUESTS needs CHARGE_DATABASE, wherever the throttle is named."""
    pytest.importorskip("rest_framework")
    from rest_framework.throttling import AnonRateThrottle  # noqa: PLC0415 - an extra
    from rest_framework.viewsets import ViewSet  # noqa: PLC0415 - an extra

    from usage_tracking.api.throttling import UsageThrottle  # noqa: PLC0415 - an extra

    throttle = type("OwnThrottle", (UsageThrottle,), {}) if where == "subclass" else UsageThrottle
    chosen = [AnonRateThrottle, throttle] if throttled else [AnonRateThrottle]
    of_class, of_action = ([AnonRateThrottle], {"throttle_classes": chosen}) if where == "action" else (chosen, {})
    viewset: Any = type("Things", (ViewSet,), {"throttle_classes": of_class, "list": ping})
    view = viewset.as_view({"get": "list"}, **of_action)
    settings.ROOT_URLCONF = urlconf(path("web/", ping), path("api/", include([path("things/", view)])))
    project(**given)
    assert ids(databases.check_charge_database) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ["W008"]),
        ({"default": {"CONN_MAX_AGE": 60}}, []),
        ({"default": {"CONN_MAX_AGE": None}}, []),
        ({"default": {"OPTIONS": {"pool": True}}}, []),
        ({"default": {"OPTIONS": {"pool": {"max_size": 4}}}}, []),
        ({"default": {"OPTIONS": {"pool": False}}}, ["W008"]),
        ({"vendor": "mysql"}, ["W008"]),
        ({"vendor": "sqlite"}, []),
        ({"charge_database": "charge"}, ["W008", "W008"]),
        ({"charge_database": "charge", "default": {"CONN_MAX_AGE": 60}}, ["W008"]),
        ({"charge_database": "default"}, ["W008"]),
        ({"charge_database": "nowhere"}, []),  # for `check_settings`
    ],
)
def test_connections_outlive_their_requests(given, expected, project):
    """A new connection for each request costs more than all that we save; opening a SQLite file does not."""
    project(**given)
    assert ids(databases.check_connections) == expected


@pytest.mark.parametrize(
    ("vendor", "returning", "expected"), [("sqlite", False, ["E015"]), ("sqlite", True, []), ("mysql", False, [])]
)
def test_an_sqlite_that_is_too_old_is_found(monkeypatch, vendor, returning, expected):
    """The hot statement returns what it has counted; only MariaDB has another way."""
    features = SimpleNamespace(can_return_columns_from_insert=returning)
    home = SimpleNamespace(vendor=vendor, alias="default", features=features)
    monkeypatch.setattr(databases, "connections", {"default": home})
    assert ids(databases.check_sqlite) == expected


@pytest.mark.parametrize(
    ("given", "vendor", "expected"),
    [
        ({}, "postgresql", ["I001"]),
        ({"METERS": {"tokens": {}}}, "mysql", ["I001"]),
        ({"ENABLED": False}, "postgresql", []),
        ({"COUNTER": "exact"}, "postgresql", []),
        ({"METERS": {"tokens": {"counter": "exact"}}}, "postgresql", []),
        ({"METERS": {"tokens": {"counter": "leased"}}}, "postgresql", []),
        ({"COUNTER": "leased"}, "postgresql", []),
        ({"COUNTER": "lent"}, "postgresql", []),  # for `check_settings`
        ({}, "sqlite", []),
        ({"COUNTER": "leased"}, "sqlite", []),
    ],
)
def test_leases_are_advised_where_they_fit(given, vendor, expected, project, settings):
    """Whoever has not named a counter hears of the other one."""
    project(vendor=vendor)
    settings.USAGE_TRACKING = given
    databases.connections["default"].alias = "default"
    assert ids(databases.check_counter) == expected


@pytest.mark.parametrize(
    ("counter", "throttled", "entry", "expected"),
    [
        ("leased", True, {"ATOMIC_REQUESTS": True}, ["W012"]),
        ("leased", True, {}, []),
        ("leased", False, {"ATOMIC_REQUESTS": True}, []),
        ("exact", True, {"ATOMIC_REQUESTS": True}, []),
    ],
)
def test_a_throttle_that_cannot_lend_is_pointed_out(counter, throttled, entry, expected, project, settings):
    """On SQLite what is charged in the view's transaction belongs to it, so nothing is ever lent."""
    throttling = pytest.importorskip("usage_tracking.api.throttling")
    view = View.as_view()
    view.cls = SimpleNamespace(throttle_classes=[throttling.UsageThrottle] if throttled else [])
    settings.ROOT_URLCONF = urlconf(path("api/", view))
    project(default=entry, vendor="sqlite", counters={"COUNTER": counter})
    databases.connections["default"].alias = "default"
    assert ids(databases.check_counter) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, []),
        ({"LEASE": {}}, ["W011"]),
        ({"LEASE": {"SETTLE_SECONDS": 5}, "METERS": {"tokens": {}}}, ["W011"]),
        ({"LEASE": {"SETTLE_SECONDS": 5}, "METERS": {"tokens": {"counter": "leased"}}}, []),
        ({"LEASE": {}, "COUNTER": "leased"}, []),
        ({"LEASE": {}, "COUNTER": "lent"}, []),  # for `check_settings`
    ],
)
def test_lease_without_a_leased_meter_is_pointed_out(given, expected, settings):
    """Somebody has forgotten COUNTER, or LEASE."""
    settings.USAGE_TRACKING = given
    assert ids(settings_checks.check_lease) == expected


@pytest.mark.parametrize(
    ("counter", "home", "asked", "expected"),
    [
        ("leased", {"mysql_is_mariadb": True, "mysql_version": (10, 5, 27)}, ["default"], ["E017"]),
        ("leased", {"mysql_is_mariadb": True, "mysql_version": (10, 5, 27)}, ["other"], []),
        ("leased", {"mysql_is_mariadb": True, "mysql_version": (10, 5, 27)}, None, []),
        ("exact", {"mysql_is_mariadb": True, "mysql_version": (10, 5, 27)}, ["default"], []),
        ("leased", {"mysql_is_mariadb": True, "mysql_version": (10, 6, 0)}, ["default"], []),
        ("leased", {"mysql_is_mariadb": False, "mysql_version": (8, 0, 11)}, ["default"], []),
        ("leased", {"vendor": "postgresql"}, ["default"], []),
    ],
)
def test_a_mariadb_that_cannot_settle_leases_is_found(counter, home, asked, expected, monkeypatch, settings):
    """With `--database`, as the server has to be asked for its version."""
    settings.USAGE_TRACKING = {"COUNTER": counter}
    fake = SimpleNamespace(**{"vendor": "mysql", "alias": "default", **home})
    monkeypatch.setattr(databases, "connections", {"default": fake})
    assert ids(databases.check_leasing, databases=asked) == expected


# -- all of them -------------------------------------------------------------------------------------------------------


def test_a_sound_project_has_nothing_to_hear(configure):
    """The test project itself is clean, also for deployment, and no database was asked (or pytest would say so)."""
    configure(COUNTER="exact")
    assert run_checks(tags=["usage_tracking"], include_deployment_checks=True) == []


@pytest.mark.django_db
def test_a_sound_project_has_nothing_to_hear_from_its_database():
    """The same with `--database`, in the company of Django's own checks."""
    assert run_checks(databases=["default"]) == []


@pytest.mark.parametrize("given", [None, [], {key: object() for key in ("PATHS", "METERS", "PLANS", "EVENT_DISPATCH")}])
def test_broken_settings_are_reported_and_raise_nothing(given, settings):
    """Whatever USAGE_TRACKING is, every check ends, and only the settings' own has something to say."""
    settings.USAGE_TRACKING = given
    problems = run_checks(tags=["usage_tracking"], include_deployment_checks=True)
    assert problems == list(settings_checks.check_settings()) != []
    assert ids(settings_checks.check_asked_plans, databases=["default"]) == []


def test_every_check_is_registered():
    """A check that Django does not know of is no check; ours share a tag, unless they ask a database."""
    everyday: list[Any] = registry.get_checks()
    everything: list[Any] = registry.get_checks(include_deployment_checks=True)
    functions = {
        name for source in SOURCES for name in re.findall(r"^def (check_\w+)\(", source.read_text(), re.MULTILINE)
    }
    registered: dict[str, Any] = {
        function.__name__: function.tags for function in everything if function.__module__.startswith("usage_tracking.")
    }
    assert registered.keys() == functions
    asking = {name for name, tags in registered.items() if tags == ("database",)}
    assert asking == {
        "check_asked_plans",
        "check_leasing",
        "check_organization_migrated",
        "check_organization_unchanged",
    }
    assert all(registered[name] == ("usage_tracking",) for name in functions - asking)
    assert functions - {function.__name__ for function in everyday} == {"check_connections", "check_counter"}


def test_every_id_is_used_once_and_documented():
    """Code, manual and this file know the same ids, and one id is one mistake."""
    sources = [*SOURCES, ADMIN]
    used = re.findall(r'"usage_tracking\.([EIW]\d{3})"', "".join(source.read_text() for source in sources))
    documented = re.findall(r"^\| usage_tracking\.([EIW]\d{3}) \| [^|]+ \| [^|]+ \|$", PAGE.read_text(), re.MULTILINE)
    tests = Path(__file__).read_text() + ADMIN_TESTS.read_text()
    tested = set(re.findall(r'"(?:usage_tracking\.)?([EIW]\d{3})"', tests))
    assert len(used) == len(set(used))
    assert sorted(used) == sorted(documented)
    assert set(used) == tested
    for level in "EIW":
        numbers = sorted(int(number[1:]) for number in used if number.startswith(level))
        assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize(
    ("written", "reported"),
    [
        (
            # Without our own URLs, whose admin is about an organization that has members.
            (
                "USAGE_TRACKING_ORGANIZATION_MODEL = 'auth.Group'; INSTALLED_APPS.remove('tests.testapp'); "
                "ROOT_URLCONF = 'django.contrib.auth.urls'"
            ),
            "auth.Group: (usage_tracking.E004) Group does not inherit UsageTrackedOrganization.",
        ),
        ("USAGE_TRACKING = ['PATHS']", "(usage_tracking.E001) USAGE_TRACKING must be a dict, not ['PATHS']."),
        (
            "USAGE_TRACKING = {'CHARGE_DATABASE': 'charges'}",
            "(usage_tracking.E003) USAGE_TRACKING['CHARGE_DATABASE'] must be None or an alias of DATABASES",
        ),
    ],
)
def test_the_command_leads_whoever_forgot_something_to_it(written, reported, tmp_path):
    """The project still starts, so that `manage.py check` can tell; a connection is opened all the same."""
    (tmp_path / "forgetful.py").write_text(f"from tests.settings import *\n{written}\n")
    run = subprocess.run(
        [sys.executable, "-m", "django", "check", "--settings", "forgetful", "--pythonpath", tmp_path],
        cwd=CHECKOUT,
        # Django's own checks ask a server for its version; a file is always there.
        env={
            **os.environ,
            "DATABASE_URL": f"sqlite:///{tmp_path}/db.sqlite3",
            "USAGE_TRACKING_TEST_ORGANIZATION": "testapp.Organization",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert reported in run.stderr
    assert "Traceback" not in run.stderr
