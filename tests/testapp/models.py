"""The usual host: organizations with integer keys."""

from tests.organizations import BaseMembership, BaseOrganization


class Organization(BaseOrganization):
    """An organization with the project's default key."""


class Membership(BaseMembership):
    """A user's part in an organization."""
