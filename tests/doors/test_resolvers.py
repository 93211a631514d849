"""From a request to its organization."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.utils.functional import SimpleLazyObject

from tests.factories import MembershipFactory, Organization, OrganizationFactory, UserFactory
from usage_tracking import resolvers
from usage_tracking.exceptions import InvalidInput
from usage_tracking.resolvers import SESSION_KEY, default_resolver, resolve_organization, set_active_organization

pytestmark = pytest.mark.django_db


def request_of(user=None, **attributes):
    """Return as much of a request as a resolver looks at."""
    return SimpleNamespace(user=user or AnonymousUser(), session={}, **attributes)


@pytest.fixture
def member(organization):
    """A user with one organization."""
    return MembershipFactory(organization=organization).user


# -- the default -------------------------------------------------------------------------------------------------------


def test_the_hosts_own_attribute_comes_first(organization, member):
    """`request.organization` counts, whoever the user is."""
    other = OrganizationFactory()
    assert default_resolver(request_of(member, organization=other)) == other
    assert default_resolver(request_of(member, organization=SimpleLazyObject(lambda: other))) == other


@pytest.mark.parametrize("nothing", [None, SimpleLazyObject(lambda: None)])
def test_an_empty_attribute_is_as_good_as_none(organization, member, nothing):
    """A host that sets None has not decided: the session and the membership are asked."""
    assert default_resolver(request_of(member, organization=nothing)) == organization


def test_the_only_visible_organization_is_it(organization, member):
    """Who belongs to one organization need not choose."""
    assert default_resolver(request_of(member)) == organization


def test_of_several_none_is_it_until_one_is_chosen(organization, member, caplog):
    """Who belongs to several has none, until the session says which."""
    other = MembershipFactory(user=member).organization
    request = request_of(member)
    assert default_resolver(request) is None
    assert "sees several organizations" in caplog.text
    set_active_organization(request, other)
    assert default_resolver(request) == other
    set_active_organization(request, organization)
    assert default_resolver(request) == organization


def test_a_choice_is_void_once_the_membership_is(organization, member):
    """The session's word holds only as long as the user may see the organization."""
    left = MembershipFactory(user=member)
    request = request_of(member)
    set_active_organization(request, left.organization)
    left.delete()
    assert default_resolver(request) == organization


@pytest.mark.parametrize("stored", ["no key", "", -1, {}, "9" * 40])
def test_a_session_with_nonsense_is_no_error(organization, member, stored):
    """A session from before the keys changed, or made up, chooses nothing."""
    request = request_of(member)
    request.session[SESSION_KEY] = stored
    assert default_resolver(request) == organization


def test_two_memberships_in_one_organization_are_one(organization, member):
    """A join that returns it twice does not make two of it."""
    MembershipFactory(user=member, organization=organization)
    assert default_resolver(request_of(member)) == organization


def test_the_anonymous_have_none(organization):
    """Neither has a request that has met no session or authentication middleware."""
    assert default_resolver(request_of()) is None
    assert default_resolver(SimpleNamespace()) is None


def test_a_user_without_a_session_has_their_only_organization(organization, member):
    """An API behind tokens may do without sessions."""
    assert default_resolver(SimpleNamespace(user=member)) == organization


# -- choosing ----------------------------------------------------------------------------------------------------------


def test_a_stranger_cannot_choose_an_organization(organization):
    """Raises PermissionDenied and leaves the session alone."""
    request = request_of(UserFactory())
    with pytest.raises(PermissionDenied):
        set_active_organization(request, organization)
    assert not request.session


def test_an_async_view_chooses_with_the_twin(organization, member):
    """`await aset_active_organization(request, organization)` does the same."""
    request = request_of(member)
    async_to_sync(resolvers.aset_active_organization)(request, organization)
    assert request.session == {SESSION_KEY: str(organization.pk)}


# -- the host's own ----------------------------------------------------------------------------------------------------


def test_the_setting_takes_functions_paths_and_coroutines(organization, configure):
    """A function, its dotted path, or an async function."""

    async def aresolver(request):
        return organization

    request = request_of(organization=organization)
    for resolver in (lambda _: organization, "usage_tracking.resolvers.default_resolver", aresolver):
        configure(ORGANIZATION_RESOLVER=resolver)
        assert resolve_organization(request) == organization


@pytest.mark.parametrize("answer", ["acme", 7, True, object(), Organization, lambda: None])
def test_an_answer_that_is_no_organization_is_an_error(configure, answer):
    """The error names the setting and shows the answer."""
    configure(ORGANIZATION_RESOLVER=lambda _: answer)
    with pytest.raises(InvalidInput, match="ORGANIZATION_RESOLVER must return a saved") as caught:
        resolve_organization(request_of())
    assert caught.value.field == "ORGANIZATION_RESOLVER"


def test_an_answer_of_another_model_is_an_error(configure):
    """A user is no organization, saved or not."""
    user = UserFactory()
    configure(ORGANIZATION_RESOLVER=lambda _: user)
    with pytest.raises(InvalidInput):
        resolve_organization(request_of())


def test_an_organization_without_a_key_is_an_error(configure):
    """It has no usage to count."""
    unsaved = Organization()
    unsaved.pk = None
    configure(ORGANIZATION_RESOLVER=lambda _: unsaved)
    with pytest.raises(InvalidInput):
        resolve_organization(request_of())


def test_a_prepared_resolver_answers_and_raises_when_it_is_called(organization, configure):
    """Preparing never raises: neither a missing function nor a failing one does, until a thread asks."""

    async def aresolver(request):
        return SimpleLazyObject(lambda: Organization.objects.get(pk=organization.pk))

    async def afail(request):
        raise RuntimeError("no")

    prepare = async_to_sync(resolvers.prepare_resolver)
    configure(ORGANIZATION_RESOLVER=aresolver)
    assert prepare(request_of())() == organization
    configure(ORGANIZATION_RESOLVER=afail)
    failing = prepare(request_of())
    with pytest.raises(RuntimeError):
        failing()
    configure(ORGANIZATION_RESOLVER="not.a.resolver")
    missing = prepare(request_of())
    with pytest.raises(Exception, match="cannot be imported"):
        missing()
