"""Who may call."""

from rest_framework_api_key.permissions import BaseHasAPIKey

from accounts.models import OrganizationAPIKey


class HasOrganizationAPIKey(BaseHasAPIKey):
    """Asks for the API key of an organization."""

    model = OrganizationAPIKey
