"""The tables: what may be stored on an organization, and what goes with it."""

import pytest
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import IntegrityError, transaction
from django.test import override_settings

from tests.factories import Organization, OrganizationFactory, UserFactory
from usage_tracking.entitlements import update_limits
from usage_tracking.metering import consume
from usage_tracking.models import (
    UsageEvent,
    UsageHistory,
    UsagePeriod,
    UsageTrackedOrganization,
    get_organization_model,
)
from usage_tracking.resets import reset

TABLES = (UsageEvent, UsageHistory, UsagePeriod)


def with_usage(**fields):
    """Return an organization with rows in each of our tables."""
    organization = OrganizationFactory(**fields)
    consume(organization, 5)
    reset(organization)
    update_limits(organization, limits={"api": 2})
    assert all(model.objects.filter(organization=organization).exists() for model in TABLES)
    return organization


# -- what may be stored ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("usage_plan", ["", "free", "pro"]),
        ("usage_features", [{}, {"export": True, "seats": 5, "price": 0.5, "support": "email"}]),
        ("usage_limits", [{}, {"api": 0}, {"api": None}, {"api": 2**53 - 1}]),
        ("usage_reset_mode", ["", "lazy", "scheduled", "manual"]),
        ("usage_reset_period", ["", "hourly", "daily", "weekly", "monthly", "quarterly", "yearly"]),
        ("usage_anchor", ["", "2001-01-31", "2001-01-31T09:00", "2001-01-31T09:00:00.123456+05:30"]),
        ("usage_time_zone", ["", "UTC", "America/Argentina/ComodRivadavia"]),
        ("usage_enforcement", ["", "hard", "soft", "shadow"]),
    ],
)
def test_what_is_valid_can_be_saved(db, configure, field, values):
    """`full_clean()`, as the admin calls it, takes it and the row gives it back."""
    configure(PLANS={"pro": {}})
    for value in values:
        organization = OrganizationFactory.build(**{field: value})
        organization.full_clean()
        organization.save()
        organization.refresh_from_db()
        assert getattr(organization, field) == value


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("usage_plan", ["pro", "Free"]),
        ("usage_features", [["export"], {"": True}, {"x" * 65: True}, {"export": None}, {"export": [1]}, {"a": "\0"}]),
        ("usage_limits", [[1], {"calls": 1}, {"api": -1}, {"api": 1.5}, {"api": True}, {"api": 2**53}, {"api": "9"}]),
        ("usage_reset_mode", ["sometimes"]),
        ("usage_reset_period", ["fortnightly"]),
        ("usage_anchor", ["31 January", "2001-02-30", "1001-01-01", "2001-W01-1"]),
        ("usage_time_zone", ["Mars/Olympus", "+02:00", "localtime", "../etc/passwd"]),
        ("usage_enforcement", ["firm"]),
    ],
)
def test_what_is_not_is_an_error_of_its_field(db, field, values):
    """`full_clean()` names the field."""
    for value in values:
        with pytest.raises(ValidationError) as caught:
            OrganizationFactory.build(**{field: value}).full_clean()
        assert caught.value.message_dict.keys() == {field}


def test_nobody_sees_or_manages_anything_by_default():
    """A host that overrides neither hook shows usage to nobody."""
    organization = OrganizationFactory.build()
    assert UsageTrackedOrganization.usage_managed_by(organization, UserFactory.build()) is False
    assert UsageTrackedOrganization.usage_visible_to.__func__(Organization, None).query.is_empty()


@pytest.mark.parametrize("emptied", [None, "", []])
@pytest.mark.parametrize("field", ["usage_limits", "usage_features"])
def test_an_emptied_form_field_drops_the_overrides(organization, field, emptied):
    """The text of a JSON field can be deleted in a form: that says "nothing of its own"."""
    setattr(organization, field, emptied)
    organization.full_clean()
    organization.save()
    organization.refresh_from_db()
    assert getattr(organization, field) == {}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("usage_limits", {"apy": 9}, "limits has an unknown meter 'apy'. Did you mean 'api'?"),
        ("usage_features", {"export": None}, "features.export must be true, false, a string or a number, not None."),
        ("usage_plan", "fre", "plan cannot be 'fre'. Did you mean 'free'?"),
    ],
)
def test_the_form_says_what_is_wrong(organization, field, value, message):
    """The message of the check reaches the person who filled in the form."""
    setattr(organization, field, value)
    with pytest.raises(ValidationError) as caught:
        organization.full_clean()
    assert caught.value.message_dict == {field: [message]}


# -- what the database holds together ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"used": -1},
        {"used_before_bucket": 6},
        {"used_before_bucket": -1},
        {"end": "start"},
    ],
)
def test_a_period_that_cannot_be_is_refused(db, changes):
    """Less used than history has, or no time between start and end: the database says no, whoever asks."""
    consume(OrganizationFactory(), 5)
    row = UsagePeriod.objects.get()
    changes = {name: getattr(row, value) if isinstance(value, str) else value for name, value in changes.items()}
    with pytest.raises(IntegrityError), transaction.atomic():
        UsagePeriod.objects.update(**changes)


def test_a_second_open_period_is_refused(db):
    """At most one row per organization and meter is open, on databases without conditional constraints too."""
    organization = with_usage()
    closed = UsagePeriod.objects.get(is_open=None)
    with pytest.raises(IntegrityError), transaction.atomic():
        UsagePeriod.objects.filter(pk=closed.pk).update(is_open=True)
    UsagePeriod.objects.filter(organization=organization).update(is_open=None)


def test_rows_say_what_they_are(db):
    """In the admin and in a shell each row has a name."""
    organization = with_usage()
    for model in TABLES:
        assert "api" in str(model.objects.filter(organization=organization).first())


# -- what goes with it -------------------------------------------------------------------------------------------------


@pytest.fixture
def proxy():
    """A proxy of the organization, as a host's admin may have one; it lasts as long as the test."""
    meta = type("Meta", (), {"proxy": True, "app_label": Organization._meta.app_label})
    model = type("Proxied", (Organization,), {"Meta": meta, "__module__": __name__})
    app = apps.get_app_config("usage_tracking")
    app.ready()
    yield model
    del apps.all_models[Organization._meta.app_label]["proxied"]
    apps.clear_cache()


@pytest.mark.parametrize("how", ["instance", "queryset", "proxy", "proxies"])
def test_usage_is_deleted_with_its_organization(db, how, proxy):
    """However it is deleted, and only its own."""
    organization, other = with_usage(), with_usage()
    before = [model.objects.filter(organization=other).count() for model in TABLES]
    match how:
        case "instance":
            organization.delete()
        case "queryset":
            Organization.objects.filter(pk=organization.pk).delete()
        case "proxy":
            proxy.objects.get(pk=organization.pk).delete()
        case "proxies":
            proxy.objects.filter(pk=organization.pk).delete()
    assert [model.objects.count() for model in TABLES] == before
    assert Organization.objects.get() == other


def test_events_outlive_their_actor(db):
    """A user who is deleted is still named in the audit trail."""
    organization, actor = OrganizationFactory(), UserFactory(username="Ada")
    update_limits(organization, limits={"api": 2}, actor=actor)
    actor.delete()
    event = UsageEvent.objects.get(kind="limits_updated")
    assert (event.actor, event.actor_label) == (None, "Ada")


# -- whose model it is -------------------------------------------------------------------------------------------------


def test_the_setting_names_the_model():
    """`get_organization_model()` returns the host's."""
    assert get_organization_model() is Organization


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (None, "must name the model whose usage is counted"),
        ("", "must name the model whose usage is counted"),
        ("Organization", "'app_label.ModelName'"),
        ("a.b.C", "'app_label.ModelName'"),
        (Organization, "'app_label.ModelName'"),
        ("nowhere.Organization", "'nowhere.Organization', which is not installed"),
        ("auth.Organization", "'auth.Organization', which is not installed"),
    ],
)
def test_a_setting_that_names_none_says_so(label, message):
    """Unset, misspelt or not installed: the error says what to write."""
    with (
        override_settings(USAGE_TRACKING_ORGANIZATION_MODEL=label),
        pytest.raises(ImproperlyConfigured, match="USAGE_TRACKING_ORGANIZATION_MODEL") as caught,
    ):
        get_organization_model()
    assert message in str(caught.value)
