"""From a request to the organization whose usage it is."""

import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache, partial
from types import NoneType
from typing import Any, Final

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest

from usage_tracking.conf import usage_settings
from usage_tracking.exceptions import InvalidInput
from usage_tracking.models import UsageTrackedOrganization, get_organization_model, key_attribute

__all__ = [
    "SESSION_KEY",
    "PreparedResolver",
    "aset_active_organization",
    "default_resolver",
    "may_see",
    "prepare_resolver",
    "resolve_organization",
    "set_active_organization",
]

logger = logging.getLogger(__name__)

SESSION_KEY: Final = "active_organization_id"
"""Where a session keeps the key of the organization that was chosen."""


def default_resolver(request: Any) -> UsageTrackedOrganization | None:
    """Return `request.organization` if the host set it, else the caller's active or only organization.

    The active one is the session's `active_organization_id`, if `usage_visible_to(user)` has it. A caller who sees
    several organizations and has chosen none has none.
    """
    organization = getattr(request, "organization", None)
    if not isinstance(organization, NoneType):  # a lazy object that holds None says so by its __class__
        return organization  # type: ignore[no-any-return]  # `resolve_organization` looks at what it is
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return None
    visible = get_organization_model().usage_visible_to(user)
    session = getattr(request, "session", None)
    active = None if session is None else session.get(SESSION_KEY)
    if active is not None:
        try:
            if (chosen := visible.filter(pk=active).first()) is not None:
                return chosen  # type: ignore[no-any-return]
        except (TypeError, ValueError, ValidationError):
            pass  # an old session, from before the keys changed their type
    seen = list(visible.distinct()[:2])
    if len(seen) > 1:
        logger.warning("User %s sees several organizations and has chosen none: not counted.", user.pk)
    return seen[0] if len(seen) == 1 else None


def may_see(user: Any, organization: UsageTrackedOrganization) -> bool:
    """Return whether a user is shown the usage of an organization: a member, or staff with `view_usage`."""
    if user is None or not user.is_authenticated:
        return False
    visible = get_organization_model().usage_visible_to(user)
    return user.has_perm("usage_tracking.view_usage") or visible.filter(pk=organization.pk).exists()


def set_active_organization(request: HttpRequest, organization: UsageTrackedOrganization) -> None:
    """Make `organization` the one that this session's requests count for.

    Raises PermissionDenied if the user may not see it.
    """
    if not get_organization_model().usage_visible_to(request.user).filter(pk=organization.pk).exists():
        message = "You are not a member of this organization."
        raise PermissionDenied(message)
    request.session[SESSION_KEY] = str(organization.pk)


def resolve_organization(request: Any) -> UsageTrackedOrganization | None:
    """Return what ORGANIZATION_RESOLVER says about the request.

    Raises InvalidInput when it is neither a saved organization nor None, and whatever the resolver raises.
    """
    resolver = usage_settings.ORGANIZATION_RESOLVER
    return _checked(async_to_sync(resolver)(request) if _is_async(resolver) else resolver(request))


@dataclass(frozen=True, slots=True)
class PreparedResolver:
    """What a thread calls for the organization, so that it shares the thread's visit with the counter."""

    resolve: Callable[[], UsageTrackedOrganization | None]
    known: UsageTrackedOrganization | None = None
    """The organization, where no thread is needed to tell."""

    def __call__(self) -> UsageTrackedOrganization | None:
        """Return the organization, or raise what the resolver raised."""
        return self.resolve()


async def prepare_resolver(request: Any) -> PreparedResolver:
    """Return the resolver, ready to be called in a thread.

    An async resolver is awaited here, on the event loop; what it raises, the call raises.
    """
    answered: Future[Any] = Future()
    answer = None
    try:
        resolver = usage_settings.ORGANIZATION_RESOLVER
        if not _is_async(resolver):
            # What the host has set on the request the default resolver returns.
            given = vars(request).get("organization") if resolver is default_resolver else None
            return PreparedResolver(partial(resolve_organization, request), _plain(given))
        answer = await resolver(request)
        answered.set_result(answer)
    except Exception as error:  # noqa: BLE001 - raised by the call
        answered.set_exception(error)
    return PreparedResolver(lambda: _checked(answered.result()), _plain(answer))


aset_active_organization = sync_to_async(set_active_organization)

_is_async = lru_cache(maxsize=16)(iscoroutinefunction)  # a look at the function's code costs more than the rest


def _plain(answer: Any) -> UsageTrackedOrganization | None:
    # By its type: a lazy object, which only a thread may look at, answers `isinstance` for what it stands for.
    is_one = issubclass(type(answer), get_organization_model())
    return answer if is_one and getattr(answer, key_attribute()) is not None else None


def _checked(answer: Any) -> UsageTrackedOrganization | None:
    model = get_organization_model()
    if isinstance(answer, model) and getattr(answer, key_attribute()) is not None:
        return answer
    if isinstance(answer, NoneType):
        return None
    message = f"ORGANIZATION_RESOLVER must return a saved {model.__name__} or None, not {answer!r}."
    raise InvalidInput(message, field="ORGANIZATION_RESOLVER")
