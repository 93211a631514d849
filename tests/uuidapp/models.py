"""A host whose organizations have UUID keys."""

import uuid

from django.db import models

from tests.organizations import BaseMembership, BaseOrganization


class Organization(BaseOrganization):
    """An organization with a UUID key."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)


class Membership(BaseMembership):
    """A user's part in an organization."""
