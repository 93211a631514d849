"""What the test projects' organizations have in common: members, some of whom are managers.

Each of the apps beside this file (`testapp`, `uuidapp`, `stringapp`, `lateapp`) is a host project of
its own kind; `settings.USAGE_TRACKING_ORGANIZATION_MODEL` selects one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from django.conf import settings
from django.db import models

from usage_tracking.models import UsageTrackedOrganization

if TYPE_CHECKING:
    from django.db.models.fields.related_descriptors import RelatedManager


class BaseOrganization(UsageTrackedOrganization):
    """An organization whose members see its usage and whose managers change its limits."""

    name = models.CharField(max_length=100)

    if TYPE_CHECKING:
        memberships: RelatedManager[BaseMembership]

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.name

    @classmethod
    def usage_visible_to(cls, user: Any) -> models.QuerySet[Self]:
        """The organizations the user is a member of."""
        return cls._default_manager.filter(memberships__user=user)

    def usage_managed_by(self, user: Any) -> bool:
        """Whether the user is a manager here."""
        return self.memberships.filter(user=user, role=BaseMembership.Role.MANAGER).exists()


class BaseMembership(models.Model):
    """A user's part in an organization."""

    class Role(models.TextChoices):
        MEMBER = "member"
        MANAGER = "manager"

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    organization = models.ForeignKey(
        settings.USAGE_TRACKING_ORGANIZATION_MODEL,
        on_delete=models.CASCADE,
        related_name="memberships",
    )
    role = models.CharField(max_length=10, choices=Role, default=Role.MEMBER)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.user} is {self.role} of {self.organization}"
