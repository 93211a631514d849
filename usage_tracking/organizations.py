"""The organizations whose usage is counted: where they live, by which key, and their rows under lock."""

from collections.abc import Iterable
from typing import Any

from django.db import router
from django.db.models import QuerySet
from django.utils.translation import gettext

from usage_tracking.databases import locking
from usage_tracking.exceptions import InvalidInput, OrganizationGone
from usage_tracking.models import UsagePeriod, UsageTrackedOrganization, get_organization_model, key_attribute

__all__ = [
    "database_of",
    "home_database",
    "key_of",
    "lock_organization",
    "lock_organizations",
    "stored_organization",
]


def database_of(organization: UsageTrackedOrganization) -> str:
    """Return the alias that holds the organization's usage: always one that is written to, never a replica.

    Raises InvalidInput unless `organization` is a saved instance of the organization model.
    """
    key_of(organization)
    return home_database(organization)


def home_database(organization: UsageTrackedOrganization) -> str:
    """Do the same for what is known to be a saved organization."""
    return router.db_for_write(UsagePeriod, instance=organization)


def key_of(organization: UsageTrackedOrganization) -> Any:
    """Return the organization's key. Raises InvalidInput unless it is a saved instance of the organization model."""
    model = get_organization_model()
    key = getattr(organization, key_attribute()) if isinstance(organization, model) else None
    if key is None:
        message = f"organization must be a saved instance of {model.__name__}, not {organization!r}."
        raise InvalidInput(message, field="organization")
    return key


def lock_organization(key: object, using: str) -> UsageTrackedOrganization:
    """Lock the organization's row until the transaction ends and return it as it is now.

    Raises OrganizationGone if it has been deleted.
    """
    return _found(locking(_organizations(using).filter(pk=key)).first(), key)


def stored_organization(key: object, using: str) -> UsageTrackedOrganization:
    """Return the organization as it is stored now, unlocked. Raises OrganizationGone if it has been deleted."""
    return _found(_organizations(using).filter(pk=key).first(), key)


def _found(organization: UsageTrackedOrganization | None, key: object) -> UsageTrackedOrganization:
    if organization is None:
        message = gettext("%(model)s %(key)s was deleted; its usage is gone with it.")
        message %= {"model": get_organization_model()._meta.verbose_name, "key": key}
        raise OrganizationGone(message)
    return organization


def lock_organizations(keys: Iterable[object], using: str) -> list[UsageTrackedOrganization]:
    """Lock the rows of many organizations, in the order of their keys, but for those that somebody else has locked.

    Where the database cannot skip these, they are waited for.
    """
    rows = _organizations(using).filter(pk__in=list(keys)).order_by("pk")
    return list(locking(rows, skip_locked=True))


def _organizations(using: str) -> QuerySet[UsageTrackedOrganization]:
    return get_organization_model()._base_manager.using(using)
