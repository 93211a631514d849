"""What a request for history asks for."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from django.utils.translation import gettext_lazy as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from usage_tracking.api.fields import MeterField, TextField
from usage_tracking.api.serializers import HistoriesSerializer, HistorySerializer
from usage_tracking.entitlements import explain
from usage_tracking.history import HISTORY_STEPS, MAX_POINTS
from usage_tracking.metering import histories_of
from usage_tracking.models import UsageTrackedOrganization
from usage_tracking.periods import parse_anchor
from usage_tracking.quotas import DEFAULT_METER

__all__ = ["HISTORY_PARAMETERS", "HistoryQuery", "history_answer"]


class HistoryQuery(serializers.Serializer[Any]):
    """`?meter=api,tokens&since=2026-03-01&until=2026-04-01&bucket=day`, or `?last=30`."""

    meter = serializers.ListField(child=MeterField(), allow_empty=False, default=[DEFAULT_METER])
    since = TextField(required=False)
    until = TextField(required=False)
    bucket = serializers.ChoiceField(choices=list(HISTORY_STEPS), default="day")
    last = serializers.IntegerField(min_value=1, max_value=MAX_POINTS, required=False)

    @classmethod
    def of(cls, request: Request) -> dict[str, Any]:
        """Return the validated parameters of a request. Raises ValidationError."""
        given: dict[str, Any] = request.query_params.dict()
        if "meter" in given:
            meters = [name for text in request.query_params.getlist("meter") for name in text.split(",")]
            given["meter"] = list(dict.fromkeys(meters))
        query = cls(data=given)
        query.is_valid(raise_exception=True)
        return dict(query.validated_data)


def history_answer(organization: UsageTrackedOrganization, query: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Return the history that the query asks for. Raises ValidationError or InvalidInput."""
    zone = explain(organization).time_zone.value
    meters = query["meter"]
    points = histories_of(
        organization,
        meters,
        since=_instant(query, "since", zone),
        until=_instant(query, "until", zone),
        last=query.get("last"),
        bucket=query["bucket"],
        now=now,
    )
    head = {"bucket": query["bucket"], "time_zone": zone.key}
    if len(meters) == 1:
        return dict(HistorySerializer({**head, "meter": meters[0], "points": points[meters[0]]}).data)
    return dict(HistoriesSerializer({**head, "meters": points}).data)


def _instant(query: dict[str, Any], name: str, zone: ZoneInfo) -> datetime | None:
    """Return a date's midnight, a wall time or an instant; the first two in the organization's zone."""
    if name not in query:
        return None
    try:
        moment = parse_anchor(query[name])
    except ValueError as error:
        message = _("Must be a date or time in ISO 8601 from 1900 to 2200, such as 2026-03-01 or 2026-03-01T09:00Z.")
        raise ValidationError({name: [message]}) from error
    return moment if moment.utcoffset() is not None else moment.replace(tzinfo=zone)


def _parameter(name: str, kind: Any, description: str, **details: Any) -> OpenApiParameter:
    return OpenApiParameter(name, kind, description=description, **details)


MOMENT = {"oneOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}]}

HISTORY_PARAMETERS: Iterable[OpenApiParameter] = [
    _parameter("meter", OpenApiTypes.STR, "Default: api. Repeat it, or separate names by commas, for several."),
    _parameter("since", MOMENT, "Date or instant; a date is its midnight in the organization's time zone."),
    _parameter("until", MOMENT, "The same; not part of the range. Default: now."),
    _parameter("bucket", OpenApiTypes.STR, "What one point covers.", enum=list(HISTORY_STEPS), default="day"),
    _parameter(
        "last",
        {"type": "integer", "minimum": 1, "maximum": MAX_POINTS, "default": 30},
        "Instead of since: how many points there are to be.",
    ),
]
