"""DRF permissions: who may do what to an organization's usage, and which plan may use a view.

An organization that a caller cannot reach does not exist for it. Members reach theirs (`usage_visible_to`), and so
does who manages them (`usage_managed_by`): seeing comes first. A Django permission reaches every organization, and
grants what it is named after; superusers have them all.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar, Final, cast

from django.db.models import QuerySet
from rest_framework.exceptions import APIException, PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from usage_tracking import doors
from usage_tracking.api.authentication import API_KEY
from usage_tracking.decorators import denial
from usage_tracking.models import UsageTrackedOrganization, get_organization_model
from usage_tracking.problems import Problem
from usage_tracking.resolvers import resolve_organization

__all__ = ["HasAPIKey", "HasFeature", "IsManager", "IsMember", "MayChangeLimits", "MayReadLimits", "MayReset"]

VIEW_USAGE: Final = "usage_tracking.view_usage"
RESET_USAGE: Final = "usage_tracking.reset_usage"
CHANGE_LIMITS: Final = "usage_tracking.change_limits"


class IsMember(BasePermission):
    """Sees the organization: one of its members, or a holder of `view_usage`."""

    grants: ClassVar[tuple[str, ...]] = (VIEW_USAGE,)
    """Django permissions that grant this for every organization."""

    def has_permission(self, request: Request, view: Any) -> bool:  # noqa: ARG002 - DRF's signature
        """Return whether the caller is known."""
        return is_known(request.user)

    def reach(self, user: Any) -> QuerySet[Any]:
        """Return the organizations that exist for `user`: all others are answered with a 404."""
        model = get_organization_model()
        if _has_any(user, {VIEW_USAGE, *self.grants}):
            return model._default_manager.all()
        return model.usage_visible_to(user)


class IsManager(IsMember):
    """Manages the organization: `usage_managed_by` says so; `view_usage` reads what managers read."""

    def has_object_permission(self, request: Request, view: Any, obj: UsageTrackedOrganization) -> bool:  # noqa: ARG002
        """Return whether the caller may do this to an organization that it reaches."""
        return _has_any(request.user, self.grants) or obj.usage_managed_by(request.user)


class MayReadLimits(IsManager):
    """Reads limits and where they come from: a manager, or a holder of `view_usage` or `change_limits`."""

    grants = (VIEW_USAGE, CHANGE_LIMITS)


class MayChangeLimits(IsManager):
    """Changes limits: a manager, or a holder of `change_limits`."""

    grants = (CHANGE_LIMITS,)


class MayReset(IsManager):
    """Resets usage: a manager, or a holder of `reset_usage`."""

    grants = (RESET_USAGE,)


class HasAPIKey(BasePermission):
    """A machine with one of API_KEYS; for views with `APIKeyAuthentication`."""

    def has_permission(self, request: Request, view: Any) -> bool:  # noqa: ARG002 - DRF's signature
        """Return whether the request came with a key."""
        return request.auth == API_KEY


def is_known(user: Any) -> bool:
    """Return whether somebody has logged in; UNAUTHENTICATED_USER may be None."""
    return user is not None and bool(user.is_authenticated)


def _has_any(user: Any, permissions: Iterable[str]) -> bool:
    # Users of stateless tokens may know nothing of permissions.
    has_perm = getattr(user, "has_perm", None)
    return has_perm is not None and any(has_perm(permission) for permission in permissions)


class FeatureUnknown(APIException):
    """Nobody can tell whether the caller has the feature, so neither this permission nor its opposite is granted."""

    status_code = 503
    default_detail = "Features cannot be looked up right now."
    default_code = "feature_unknown"


def HasFeature(feature: str) -> type[BasePermission]:  # noqa: N802 - reads as a class in permission_classes
    """Return a permission class that asks for a feature: `permission_classes = [HasFeature("export")]`.

    It composes with `&`, `|` and `~`. A caller who is denied for want of it reads a 403 problem of its own type; when
    nobody can tell, because the resolver or PLANS fails, a 503 (see `decorators.require_feature`).
    """

    class FeaturePermission(BasePermission):
        def has_permission(self, request: Request, view: Any) -> bool:
            problem = denial(feature, partial(resolve_organization, request))
            if problem is None:
                return True
            if problem["status"] == FeatureUnknown.status_code:
                _answer(request, problem)
                raise FeatureUnknown
            _explain_denial(view, problem)
            return False

    FeaturePermission.__name__ = FeaturePermission.__qualname__ = f"HasFeature({feature!r})"
    return FeaturePermission


def _answer(request: Request, problem: Problem) -> None:
    doors.answer_with(cast("doors.CountedRequest", request._request), problem)


def _explain_denial(view: Any, problem: Problem) -> None:
    """Have the caller read `problem` if the view denies the request.

    Only the view knows: another permission may still grant what this one does not.
    """
    deny = getattr(view, "permission_denied", None)

    def permission_denied(request: Request, message: Any = None, code: str | None = None) -> None:
        try:
            deny(request, message=message, code=code)  # type: ignore[misc]
        except PermissionDenied:  # and not NotAuthenticated
            _answer(request, problem)
            raise

    if deny is not None:
        view.permission_denied = permission_denied
