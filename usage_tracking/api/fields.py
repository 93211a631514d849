"""Serializer fields that take exactly what they say, and how our values look in JSON."""

from datetime import datetime
from typing import Any

from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from usage_tracking import problems
from usage_tracking.conf import METER_NAME_LENGTH, usage_settings
from usage_tracking.entitlements import INHERIT
from usage_tracking.exceptions import InvalidInput
from usage_tracking.models import check_features, check_plan
from usage_tracking.periods import parse_anchor, parse_zone
from usage_tracking.quotas import MAX_AMOUNT, validate_limit

__all__ = [
    "AnchorField",
    "FeaturesField",
    "InstantField",
    "KeyField",
    "LimitsField",
    "MeterField",
    "MomentField",
    "PlanField",
    "StrictSerializer",
    "TextField",
    "TimeZoneField",
]

LIMIT_SCHEMA = {"type": ["integer", "null"], "minimum": 0, "maximum": MAX_AMOUNT}
FEATURE_SCHEMA = {"type": ["boolean", "string", "number"]}
MOMENT_SCHEMA = {"oneOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}]}


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses names that it does not know: a misspelt one must not be silently ignored."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the validated values. Raises ValidationError."""
        if isinstance(data, dict) and (unknown := data.keys() - self.fields.keys()):
            raise ValidationError({name: [_("There is no such field.")] for name in sorted(unknown)})
        return super().to_internal_value(data)


class TextField(serializers.CharField):
    """A string. DRF's own also takes numbers, and measures what is left of a string without its white space."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        """Return it as it is. Raises ValidationError."""
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class MeterField(TextField):
    """One of METERS."""

    def to_internal_value(self, data: Any) -> str:
        """Return its name. Raises ValidationError."""
        name = super().to_internal_value(data)
        if name not in usage_settings.METERS:
            raise ValidationError(_("There is no meter “%(name)s”.") % {"name": name})
        return name


class PlanField(TextField):
    """One of PLANS."""

    def to_internal_value(self, data: Any) -> str:
        """Return its name. Raises ValidationError."""
        name = super().to_internal_value(data)
        try:
            check_plan(name)
        except InvalidInput as error:
            raise ValidationError(_("There is no plan “%(name)s”.") % {"name": name}) from error
        return name


@extend_schema_field(MOMENT_SCHEMA)
class MomentField(TextField):
    """A date, a wall time or an instant, in ISO 8601."""

    def to_internal_value(self, data: Any) -> str:
        """Return it as it is. Raises ValidationError."""
        moment = super().to_internal_value(data)
        try:
            parse_anchor(moment)
        except ValueError as error:
            message = _("Must be a date or time in ISO 8601 from 1900 to 2200, such as 2026-01-31 or 2026-01-31T09:00.")
            raise ValidationError(message) from error
        return moment


@extend_schema_field({"oneOf": [*MOMENT_SCHEMA["oneOf"], {"type": "string", "const": ""}]})
class AnchorField(MomentField):
    """Where periods are stepped from; blank for what the settings say."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_blank=True, **kwargs)


class TimeZoneField(TextField):
    """The IANA name of a time zone."""

    def to_internal_value(self, data: Any) -> str:
        """Return it as it is. Raises ValidationError."""
        name = super().to_internal_value(data)
        try:
            parse_zone(name)
        except ValueError as error:
            message = _("“%(name)s” is not the IANA name of a time zone, such as Europe/Berlin.") % {"name": name}
            raise ValidationError(message) from error
        return name


class LimitsField(serializers.Field[Any, Any, Any, Any]):
    """Limits by meter: a whole number, null (unlimited) or "inherit" (drop the override)."""

    def to_internal_value(self, data: Any) -> dict[str, int | str | None]:
        """Return them. Raises ValidationError, nested by meter."""
        if not isinstance(data, dict):
            raise ValidationError(_("Must be an object of limits by meter."))
        if unknown := [name for name in data if name not in usage_settings.METERS]:
            raise ValidationError([_("There is no meter “%(name)s”.") % {"name": name} for name in unknown])
        errors = {}
        for meter, limit in data.items():
            try:
                if limit != INHERIT:
                    validate_limit(limit)
            except InvalidInput:
                message = _("Must be a whole number from 0 to %(maximum)s, null for unlimited, or “inherit”.")
                errors[meter] = [message % {"maximum": MAX_AMOUNT}]
        if errors:
            raise ValidationError(errors)
        return data

    def to_representation(self, value: Any) -> Any:
        """Return them as they are stored."""
        return value


@extend_schema_field(
    {
        "type": "object",
        "propertyNames": {"minLength": 1, "maxLength": METER_NAME_LENGTH},
        "additionalProperties": FEATURE_SCHEMA,
    }
)
class FeaturesField(serializers.Field[Any, Any, Any, Any]):
    """Features by name: true, false, a string, a number, or "inherit" (drop the override)."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Return them. Raises ValidationError, nested by name."""
        if not isinstance(data, dict):
            raise ValidationError(_("Must be an object of features by name."))
        for name, value in data.items():
            try:
                check_features({name: True})
            except InvalidInput as error:
                message = _("A name must have 1 to %(length)s characters.") % {"length": METER_NAME_LENGTH}
                raise ValidationError(message) from error
            try:
                check_features({name: value})
            except InvalidInput as error:
                raise ValidationError({name: [_("Must be true, false, a string or a finite number.")]}) from error
        return data

    def to_representation(self, value: Any) -> Any:
        """Return them as they are."""
        return value


@extend_schema_field({"type": ["integer", "string"]})
class KeyField(serializers.Field[Any, Any, Any, Any]):
    """The key of an organization: a number, or the text of any other key."""

    def to_representation(self, value: Any) -> int | str:
        """Return it as JSON can carry it."""
        return value if isinstance(value, int) else str(value)


class InstantField(serializers.DateTimeField):
    """An aware datetime in RFC 3339, in its own zone; whatever DATETIME_FORMAT and TIME_ZONE the host has."""

    def to_representation(self, value: datetime) -> str:
        """Return the text."""
        return problems.instant(value)
