"""`{% load usage_tracking %}`."""

from django import template

from usage_tracking import entitlements
from usage_tracking.models import UsageTrackedOrganization

register = template.Library()


@register.filter
def has_feature(organization: UsageTrackedOrganization | None, feature: str) -> bool:
    """`{% if organization|has_feature:"export" %}`: whether the organization has it; nobody has nothing."""
    return isinstance(organization, UsageTrackedOrganization) and entitlements.has_feature(organization, feature)
