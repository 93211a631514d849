"""`{% load usage_tracking %}`."""

from django import template

from usage_tracking.decorators import denial
from usage_tracking.models import UsageTrackedOrganization

register = template.Library()


@register.filter
def has_feature(organization: UsageTrackedOrganization | None, feature: str) -> bool:
    """`{% if organization|has_feature:"export" %}`: whether the organization has it.

    Nobody has nothing, nor has anybody what cannot be looked up (that is logged): a page is shown without the feature.
    """
    return isinstance(organization, UsageTrackedOrganization) and denial(feature, lambda: organization) is None
