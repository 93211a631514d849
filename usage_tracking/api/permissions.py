"""DRF permissions."""

from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from usage_tracking import doors
from usage_tracking.entitlements import has_feature
from usage_tracking.resolvers import resolve_organization

__all__ = ["HasFeature"]


def HasFeature(feature: str) -> type[BasePermission]:  # noqa: N802 - reads as a class in permission_classes
    """Return a permission class that asks for a feature: `permission_classes = [HasFeature("export")]`.

    It composes with `&`, `|` and `~`. A caller without it reads a 403 problem of its own type.
    """

    class FeaturePermission(BasePermission):
        code = "feature_missing"

        def has_permission(self, request: Request, view: Any) -> bool:  # noqa: ARG002 - DRF's signature
            organization = resolve_organization(request)
            granted = organization is not None and has_feature(organization, feature)
            doors.lacks_feature(request._request, None if granted else feature)
            return granted

    FeaturePermission.__name__ = FeaturePermission.__qualname__ = f"HasFeature({feature!r})"
    return FeaturePermission
