"""Whose request it is."""

from typing import Any

from rest_framework_api_key.permissions import KeyParser

from accounts.models import OrganizationAPIKey
from usage_tracking.models import UsageTrackedOrganization
from usage_tracking.resolvers import default_resolver


def organization_of(request: Any) -> UsageTrackedOrganization | None:
    """Return the organization that the request's API key belongs to; without a key, ask about the user.

    The key is in a header, so the middleware knows these callers. A token's user it does not know: there the answer
    is None until DRF has authenticated the request and `UsageThrottle` asks again.
    """
    key = KeyParser().get(request)
    if key is None:
        return default_resolver(request)
    try:
        api_key = OrganizationAPIKey.objects.get_from_key(key)
    except OrganizationAPIKey.DoesNotExist:
        return None
    return None if api_key.has_expired else api_key.organization
