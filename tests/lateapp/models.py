"""A host whose app is older than its organizations: they arrive in its migration 0002."""

from django.db import models

from tests.organizations import BaseMembership, BaseOrganization


class Region(models.Model):
    """What the app began with."""

    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name


class Organization(BaseOrganization):
    """An organization that its app's first migration does not know."""


class Membership(BaseMembership):
    """A user's part in an organization."""
