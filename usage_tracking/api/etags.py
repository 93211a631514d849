"""Optimistic concurrency: who changes limits names the state it has seen (RFC 9110, section 13.1.1)."""

import json
from collections.abc import Callable
from hashlib import sha256

from django.utils.http import parse_etags
from django.utils.translation import gettext_lazy as _
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.utils.encoders import JSONEncoder

from usage_tracking.api.exceptions import LimitsChanged
from usage_tracking.api.serializers import LimitsSerializer
from usage_tracking.models import UsageTrackedOrganization

__all__ = ["etag_of", "precondition_of"]


def etag_of(organization: UsageTrackedOrganization) -> str:
    """Return the strong entity tag of an organization's limits: another one whenever anything in them differs."""
    state = json.dumps(LimitsSerializer(organization).data, cls=JSONEncoder, sort_keys=True)
    return f'"{sha256(state.encode()).hexdigest()[:32]}"'


def precondition_of(request: Request) -> Callable[[UsageTrackedOrganization], None] | None:
    """Return what raises LimitsChanged for an organization whose limits are not those that If-Match names.

    None without If-Match. A weak tag never matches; `*` matches any state. Raises ValidationError for a header
    without any tag: its sender has forgotten the quotes, or has seen no state at all.
    """
    header = request.headers.get("If-Match")
    if header is None:
        return None
    tags = parse_etags(header)
    if not tags:
        message = _("Must be an entity tag in its quotes, as ETag has it, several separated by commas, or *.")
        raise ValidationError({"If-Match": [message]})

    def check(organization: UsageTrackedOrganization) -> None:
        if tags != ["*"] and etag_of(organization) not in tags:
            raise LimitsChanged

    return check
