"""Organizations, their members and API keys, and what they have been told about their usage."""

from typing import Any, Self

from django.conf import settings
from django.db import models
from rest_framework_api_key.models import AbstractAPIKey, APIKeyManager

from usage_tracking.models import UsageTrackedOrganization


class Organization(UsageTrackedOrganization):
    """A customer: whose usage is counted."""

    name = models.CharField(max_length=100)
    slug = models.SlugField(unique=True)
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, through="Membership", related_name="organizations")

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @classmethod
    def usage_visible_to(cls, user: Any) -> models.QuerySet[Self]:
        """Members see the usage of their organizations."""
        return cls.objects.filter(members=user)

    def usage_managed_by(self, user: Any) -> bool:
        """Our own people change limits; customers do not."""
        return bool(user.is_staff)


class Membership(models.Model):
    """A user's place in an organization."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="memberships")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "organization"], name="membership_once")]

    def __str__(self) -> str:
        return f"{self.user} in {self.organization}"


class OrganizationAPIKeyManager(APIKeyManager):
    """Finds a key and its organization in one query."""

    def get_usable_keys(self) -> models.QuerySet["OrganizationAPIKey"]:
        """Return the keys that are not revoked."""
        return super().get_usable_keys().select_related("organization")


class OrganizationAPIKey(AbstractAPIKey):
    """A key with which an organization's machines call the API (djangorestframework-api-key)."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="api_keys")

    objects = OrganizationAPIKeyManager()

    class Meta(AbstractAPIKey.Meta):
        verbose_name = "API key"
        verbose_name_plural = "API keys"


class Notice(models.Model):
    """What an organization was told about its usage; a real service would send an e-mail."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="notices")
    # A signal is sent at least once; the key of its event tells a repetition.
    event_id = models.BigIntegerField(unique=True)
    kind = models.CharField(max_length=32)
    text = models.CharField(max_length=200)
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.text
