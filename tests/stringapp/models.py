"""A host whose organizations have string keys."""

import secrets

from django.db import models

from tests.organizations import BaseMembership, BaseOrganization


class Organization(BaseOrganization):
    """An organization whose key is a string and is not called `id`."""

    slug = models.CharField(max_length=64, primary_key=True, default=secrets.token_hex)


class Membership(BaseMembership):
    """A user's part in an organization."""
