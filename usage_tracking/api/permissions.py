"""DRF permissions."""

from functools import partial
from typing import Any

from rest_framework.exceptions import APIException, PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from usage_tracking import doors
from usage_tracking.decorators import denial
from usage_tracking.problems import Problem
from usage_tracking.resolvers import resolve_organization

__all__ = ["HasFeature"]


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
                doors.answer_with(request._request, problem)
                raise FeatureUnknown
            _explain_denial(view, problem)
            return False

    FeaturePermission.__name__ = FeaturePermission.__qualname__ = f"HasFeature({feature!r})"
    return FeaturePermission


def _explain_denial(view: Any, problem: Problem) -> None:
    """Have the caller read `problem` if the view denies the request.

    Only the view knows: another permission may still grant what this one does not.
    """
    deny = getattr(view, "permission_denied", None)

    def permission_denied(request: Request, message: Any = None, code: str | None = None) -> None:
        try:
            deny(request, message=message, code=code)  # type: ignore[misc]
        except PermissionDenied:  # and not NotAuthenticated
            doors.answer_with(request._request, problem)
            raise

    if deny is not None:
        view.permission_denied = permission_denied
