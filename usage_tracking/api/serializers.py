"""What our endpoints take and return."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from usage_tracking.api.fields import (
    FEATURE_SCHEMA,
    LIMIT_SCHEMA,
    AnchorField,
    FeaturesField,
    InstantField,
    KeyField,
    LimitsField,
    MeterField,
    PlanField,
    StrictSerializer,
    TextField,
    TimeZoneField,
)
from usage_tracking.conf import usage_settings
from usage_tracking.entitlements import explain
from usage_tracking.metering import usages_of
from usage_tracking.models import UsageEvent, UsageTrackedOrganization
from usage_tracking.periods import ResetMode, ResetPeriod
from usage_tracking.plans import Explanation, Sourced
from usage_tracking.quotas import Enforcement, Usage

__all__ = [
    "EventSerializer",
    "LimitsChangeSerializer",
    "LimitsSerializer",
    "ResetExpiredSerializer",
    "ResetSerializer",
    "Statement",
    "UsageSerializer",
    "statements_of",
]

REASON_LENGTH = 1000

MODES = [mode.value for mode in ResetMode]
PERIODS = [period.value for period in ResetPeriod]
ENFORCEMENTS = [enforcement.value for enforcement in Enforcement]


# -- usage -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What an organization may use and has used."""

    organization: UsageTrackedOrganization
    terms: Explanation
    meters: Mapping[str, Usage]

    @property
    def features(self) -> dict[str, Any]:
        """The values alone; `limits` tells where they come from."""
        return {name: sourced.value for name, sourced in self.terms.features.items()}

    @property
    def warning_threshold(self) -> int | None:
        """The lowest percentage that is announced."""
        return min(usage_settings.THRESHOLDS, default=None)


def statements_of(organizations: Iterable[UsageTrackedOrganization], now: datetime) -> list[Statement]:
    """Return the statement of each organization, in one query."""
    members = list(organizations)
    usages = usages_of(members, now=now)
    return [
        Statement(organization=organization, terms=explain(organization), meters=usages[organization.pk])
        for organization in members
    ]


class MeterUsageSerializer(serializers.Serializer[Usage]):
    """What was used of one meter in its open period."""

    used = serializers.IntegerField(min_value=0)
    limit = serializers.IntegerField(min_value=0, allow_null=True, help_text=_("null = unlimited."))
    remaining = serializers.IntegerField(min_value=0, allow_null=True)
    overage = serializers.IntegerField(min_value=0)
    percentage = serializers.IntegerField(
        min_value=0, allow_null=True, help_text=_("Whole percent of the limit; goes on past 100; null when unlimited.")
    )
    period_start = InstantField(source="period.start")
    resets_at = InstantField(allow_null=True, help_text=_("null where only a person resets."))


class UsageSerializer(serializers.Serializer[Any]):
    """What an organization may use and has used."""

    organization = KeyField(source="organization.pk")
    plan = serializers.CharField(source="terms.plan.value")
    features = FeaturesField()
    reset_mode = serializers.ChoiceField(choices=MODES, source="terms.reset_mode.value")
    reset_period = serializers.ChoiceField(choices=PERIODS, source="terms.reset_period.value")
    enforcement = serializers.ChoiceField(choices=ENFORCEMENTS, source="terms.enforcement.value")
    warning_threshold = serializers.IntegerField(
        min_value=1, allow_null=True, help_text=_("The lowest percentage of the limit that is announced.")
    )
    meters = serializers.DictField(child=MeterUsageSerializer(), help_text=_("By the name of the meter."))


# -- history -----------------------------------------------------------------------------------------------------------


class HistoryPointSerializer(serializers.Serializer[Any]):
    """What was used and refused in [start, end)."""

    start = InstantField()
    end = InstantField()
    used = serializers.IntegerField(min_value=0)
    refused = serializers.IntegerField(min_value=0, help_text=_("Refused calls; approximate."))


class HistorySerializer(serializers.Serializer[Any]):
    """The history of one meter, oldest first."""

    meter = serializers.CharField()
    bucket = serializers.CharField()
    time_zone = serializers.CharField()
    points = HistoryPointSerializer(many=True)


class HistoriesSerializer(serializers.Serializer[Any]):
    """The history of several meters over the same points."""

    bucket = serializers.CharField()
    time_zone = serializers.CharField()
    meters = serializers.DictField(child=HistoryPointSerializer(many=True))


# -- events ------------------------------------------------------------------------------------------------------------


class EventSerializer(serializers.Serializer[Any]):
    """One line of the audit trail."""

    id = serializers.IntegerField(source="pk")
    kind = serializers.ChoiceField(choices=UsageEvent.Kind.choices)
    meter = serializers.CharField()
    threshold = serializers.IntegerField(allow_null=True, help_text=_("Percent of the limit that was reached."))
    limit = serializers.IntegerField(allow_null=True)
    actor = serializers.CharField(source="actor_label", help_text=_("Empty when nobody did it."))
    reason = serializers.CharField()
    data = serializers.DictField(  # type: ignore[assignment]
        help_text=_("The state after it; for limits_updated also “changes”, old and new.")
    )
    created_at = InstantField()


# -- limits ------------------------------------------------------------------------------------------------------------


class ExplanationSerializer(serializers.Serializer[UsageTrackedOrganization]):
    """What holds, and where it comes from: {"value": …, "source": "override", "plan" or "default"}."""

    def to_representation(self, instance: UsageTrackedOrganization) -> dict[str, Any]:
        """Return it; what is not a limit is the same for all meters."""
        explained = {meter: explain(instance, meter) for meter in usage_settings.METERS}
        terms = explain(instance)
        return {
            "plan": _sourced(terms.plan),
            "limits": {meter: _sourced(explanation.limit) for meter, explanation in explained.items()},
            "features": {name: _sourced(feature) for name, feature in terms.features.items()},
            "reset_mode": _sourced(terms.reset_mode),
            "reset_period": _sourced(terms.reset_period),
            "anchor": {"value": terms.anchor.value.isoformat(), "source": terms.anchor.source},
            "time_zone": {"value": terms.time_zone.value.key, "source": terms.time_zone.source},
            "enforcement": _sourced(terms.enforcement),
        }


def _sourced(sourced: Sourced[Any]) -> dict[str, Any]:
    return {"value": sourced.value, "source": sourced.source}


def _sourced_schema(value: dict[str, Any]) -> dict[str, Any]:
    source = {"type": "string", "enum": ["override", "plan", "default"]}
    return {"type": "object", "properties": {"value": value, "source": source}, "required": ["value", "source"]}


EXPLANATION_SCHEMA = {
    "type": "object",
    "properties": {
        "plan": _sourced_schema({"type": "string"}),
        "limits": {"type": "object", "additionalProperties": _sourced_schema(LIMIT_SCHEMA)},
        "features": {"type": "object", "additionalProperties": _sourced_schema(FEATURE_SCHEMA)},
        "reset_mode": _sourced_schema({"type": "string", "enum": MODES}),
        "reset_period": _sourced_schema({"type": "string", "enum": PERIODS}),
        "anchor": _sourced_schema({"type": "string"}),
        "time_zone": _sourced_schema({"type": "string"}),
        "enforcement": _sourced_schema({"type": "string", "enum": ENFORCEMENTS}),
    },
    "required": [
        "plan",
        "limits",
        "features",
        "reset_mode",
        "reset_period",
        "anchor",
        "time_zone",
        "enforcement",
    ],
}

extend_schema_field(EXPLANATION_SCHEMA)(ExplanationSerializer)


class LimitsSerializer(serializers.Serializer[UsageTrackedOrganization]):
    """The organization's own overrides, blank where it has none, and what holds all in all."""

    organization = KeyField(source="pk")
    plan = serializers.CharField(source="usage_plan")
    limits = LimitsField(source="usage_limits")
    features = FeaturesField(source="usage_features")
    reset_mode = serializers.CharField(source="usage_reset_mode")
    reset_period = serializers.CharField(source="usage_reset_period")
    anchor = serializers.CharField(source="usage_anchor")
    time_zone = serializers.CharField(source="usage_time_zone")
    enforcement = serializers.CharField(source="usage_enforcement")
    explain = ExplanationSerializer(source="*")


class LimitsChangeSerializer(StrictSerializer):
    """What to change. What is left out stays; "" says: as the plan, else the settings, say."""

    limits = LimitsField(required=False)
    plan = PlanField(required=False, allow_blank=True)
    features = FeaturesField(required=False)
    reset_mode = serializers.ChoiceField(choices=MODES, required=False, allow_blank=True)
    reset_period = serializers.ChoiceField(choices=PERIODS, required=False, allow_blank=True)
    anchor = AnchorField(required=False)
    time_zone = TimeZoneField(required=False, allow_blank=True)
    enforcement = serializers.ChoiceField(choices=ENFORCEMENTS, required=False, allow_blank=True)
    reason = TextField(required=False, allow_blank=True, max_length=REASON_LENGTH)


# -- resets ------------------------------------------------------------------------------------------------------------


class ResetSerializer(StrictSerializer):
    """Which meter to reset, and why."""

    meter = MeterField(required=False)
    reason = TextField(required=False, allow_blank=True, max_length=REASON_LENGTH)


class ResetExpiredSerializer(serializers.Serializer[Any]):
    """What one run did."""

    closed = serializers.IntegerField(min_value=0, help_text=_("Periods closed."))
    organizations = serializers.IntegerField(min_value=0, help_text=_("Organizations they belonged to."))
    more = serializers.BooleanField(help_text=_("Whether expired periods are left: call again."))
