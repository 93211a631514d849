"""Test data, for whichever organization model the settings name."""

import factory
from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from factory.django import DjangoModelFactory

Organization = apps.get_model(settings.USAGE_TRACKING_ORGANIZATION_MODEL)
Membership = Organization._meta.get_field("memberships").related_model


class UserFactory(DjangoModelFactory):
    """A user who can log in with the password `password`."""

    class Meta:
        model = get_user_model()
        skip_postgeneration_save = True

    username = factory.Sequence("user{}".format)
    password = factory.django.Password("password")


class OrganizationFactory(DjangoModelFactory):
    """An organization under the settings' defaults."""

    class Meta:
        model = Organization

    name = factory.Sequence("Organization {}".format)


class MembershipFactory(DjangoModelFactory):
    """A member; `role="manager"` makes a manager."""

    class Meta:
        model = Membership

    user = factory.SubFactory(UserFactory)
    organization = factory.SubFactory(OrganizationFactory)
