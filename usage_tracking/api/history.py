"""What a request for history asks for."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.request import Request

from usage_tracking.api.fields import MeterField, MomentField
from usage_tracking.api.serializers import HistoriesSerializer, HistorySerializer
from usage_tracking.entitlements import explain
from usage_tracking.history import HISTORY_STEPS, MAX_POINTS
from usage_tracking.metering import histories_of
from usage_tracking.models import UsageTrackedOrganization
from usage_tracking.periods import parse_anchor
from usage_tracking.quotas import DEFAULT_METER

__all__ = ["HistoryQuery", "history_answer"]


class HistoryQuery(serializers.Serializer[Any]):
    """`?meter=api,tokens&since=2026-03-01&until=2026-04-01&bucket=day`, or `?last=30`."""

    meter = serializers.ListField(
        child=MeterField(),
        allow_empty=False,
        default=[DEFAULT_METER],
        help_text=_("Repeated, or separated by commas, for several. Default: api."),
    )
    since = MomentField(required=False, help_text=_("A date is its midnight in the organization's time zone."))
    until = MomentField(required=False, help_text=_("Not part of the range. Default: now."))
    bucket = serializers.ChoiceField(choices=list(HISTORY_STEPS), default="day")
    last = serializers.IntegerField(
        min_value=1,
        max_value=MAX_POINTS,
        required=False,
        help_text=_("Instead of since: how many points there are to be. Default: 30."),
    )

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
    """Return the history that the query asks for. Raises InvalidInput."""
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
    moment = parse_anchor(query[name])
    return moment if moment.utcoffset() is not None else moment.replace(tzinfo=zone)
