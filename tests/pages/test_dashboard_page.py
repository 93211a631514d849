"""The dashboard page."""

import pytest
from django.test import Client
from django.urls import reverse

from tests.factories import MembershipFactory, OrganizationFactory, UserFactory
from usage_tracking.metering import record, usage_of
from usage_tracking.resolvers import SESSION_KEY

PAGE, SWITCH = "/dashboard/", "/dashboard/switch/"


@pytest.fixture
def member(organization, client):
    """Somebody who is logged in and belongs to the organization."""
    user = MembershipFactory(organization=organization).user
    client.force_login(user)
    return user


def test_it_shows_the_active_organization(organization, member, client):
    """Its cards, its plan and a chart of each meter."""
    record(organization, 842)
    response = client.get(PAGE)
    html = response.content.decode()
    assert response.status_code == 200
    assert f"<h1>{organization}</h1>" in html
    assert "842" in html
    assert html.count("ut-chart") == 1


def test_strangers_to_the_site_log_in_first(db, client):
    """And come back to the page."""
    assert client.get(PAGE).headers["Location"] == f"/accounts/login/?next={PAGE}"
    assert client.post(SWITCH).status_code == 302


def test_it_is_not_cached_and_takes_only_gets(member, client):
    """Numbers of yesterday are no numbers."""
    assert "no-store" in client.get(PAGE).headers["Cache-Control"]
    assert client.head(PAGE).status_code == 200
    assert client.post(PAGE).status_code == 405
    assert client.get(SWITCH).status_code == 405


def test_looking_is_not_counted(organization, member, client, configure):
    """Even where every path is."""
    configure(PATHS=["/"])
    client.get(PAGE)
    assert usage_of(organization).used == 0


@pytest.mark.parametrize("time_range", ["7d", "30d", "90d", "1y", "all"])
@pytest.mark.parametrize("chart_type", ["line", "bar", "area"])
def test_range_and_type_are_links(organization, member, client, time_range, chart_type):
    """Each choice is an address, is marked as the current one, and keeps the other choice."""
    record(organization, 5)
    html = client.get(PAGE, {"range": time_range, "type": chart_type}).content.decode()
    assert f'data-type="{chart_type}"' in html
    assert f'<a href="?range={time_range}&amp;type={chart_type}" aria-current="true">' in html
    assert html.count("aria-current") == 2
    assert f"?range=7d&amp;type={chart_type}" in html
    assert f"?range={time_range}&amp;type=area" in html


@pytest.mark.parametrize("query", [{"range": "31d"}, {"type": "pie"}, {"range": "<b>", "type": "\0"}])
def test_a_wrong_choice_is_named(organization, member, client, query):
    """400, with the name of the parameter, and the page as usual."""
    response = client.get(PAGE, query)
    html = response.content.decode()
    assert response.status_code == 400
    for name in query:
        assert f'role="alert">{name}: ' in html
    assert "ut-chart" in html
    assert "<b>" not in html


def test_who_belongs_to_nobody_is_told(client, db):
    """No error, no switcher."""
    client.force_login(UserFactory())
    html = client.get(PAGE).content.decode()
    assert "You are not a member of an organization." in html
    assert "<select" not in html


def test_who_has_several_chooses(organization, member, client):
    """Nothing is active before; afterwards the chosen one is, and what was looked at is kept."""
    other = MembershipFactory(user=member).organization
    assert "Choose an organization" in client.get(PAGE).content.decode()
    response = client.post(SWITCH, {"organization": str(other.pk), "range": "7d", "type": "area"})
    assert response.headers["Location"] == f"{PAGE}?range=7d&type=area"
    html = client.get(response.headers["Location"]).content.decode()
    assert f"<h1>{other}</h1>" in html
    assert f'<option value="{other.pk}" selected>' in html
    assert reverse("usage_tracking_pages:switch") in html


@pytest.mark.parametrize("wrong", ["", "0", "-1", "x", "\0", "9" * 40])
def test_nobody_switches_to_what_is_not_theirs(organization, member, client, wrong):
    """404 for another's organization, one that does not exist, and nonsense; the session stays."""
    stranger = OrganizationFactory()
    for key in (str(stranger.pk), wrong):
        assert client.post(SWITCH, {"organization": key}).status_code == 404
    assert SESSION_KEY not in client.session


def test_switching_takes_a_csrf_token(organization, member):
    """It changes what requests count for."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(member)
    assert client.post(SWITCH, {"organization": str(organization.pk)}).status_code == 403


def test_an_organization_that_the_user_may_not_see_is_not_shown(member, client, configure):
    """Whatever the resolver says about who pays."""
    stranger = OrganizationFactory(name="Strangers Inc")
    configure(ORGANIZATION_RESOLVER=lambda request: stranger)
    html = client.get(PAGE).content.decode()
    assert "Strangers Inc" not in html


def test_a_resolver_that_fails_is_no_500(member, client, configure, caplog):
    """503, said and logged."""

    def fail(request):
        raise RuntimeError

    configure(ORGANIZATION_RESOLVER=fail)
    response = client.get(PAGE)
    assert response.status_code == 503
    assert "Usage cannot be shown right now." in response.content.decode()
    assert "ORGANIZATION_RESOLVER failed" in caplog.text


@pytest.mark.parametrize(("language", "direction"), [("en", "ltr"), ("ar", "rtl"), ("de", "ltr")])
def test_the_page_has_language_and_direction(member, client, settings, language, direction):
    """As Django says."""
    settings.LANGUAGE_CODE = language
    assert f'lang="{language}" dir="{direction}"' in client.get(PAGE).content.decode()


def test_the_number_of_queries_is_fixed(organization, member, client, django_assert_max_num_queries, configure):
    """With one and with hundreds of organizations, of which the switcher has the first hundred, and of meters."""
    with django_assert_max_num_queries(12):
        client.get(PAGE)
    configure(METERS={f"meter{number}": {} for number in range(20)})
    for _ in range(105):
        MembershipFactory(user=member)
    client.post(SWITCH, {"organization": str(organization.pk)})
    with django_assert_max_num_queries(12):
        html = client.get(PAGE).content.decode()
    assert html.count("<option") == 100
