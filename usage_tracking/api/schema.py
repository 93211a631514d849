"""What drf-spectacular says about our endpoints, and about the host's own that are counted."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

from django.utils.translation import gettext_lazy as _
from drf_spectacular.extensions import (
    OpenApiAuthenticationExtension,
    OpenApiSerializerExtension,
    OpenApiSerializerFieldExtension,
)
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    PolymorphicProxySerializer,
    extend_schema,
)
from rest_framework import serializers

from usage_tracking import problems
from usage_tracking.api.fields import LIMIT_SCHEMA
from usage_tracking.api.history import HistoryQuery
from usage_tracking.api.pagination import UsagePagination
from usage_tracking.api.serializers import (
    EventSerializer,
    HistoriesSerializer,
    HistorySerializer,
    LimitsChangeSerializer,
    LimitsSerializer,
    ResetExpiredSerializer,
    ResetSerializer,
    UsageSerializer,
)
from usage_tracking.conf import usage_settings
from usage_tracking.decorators import usage_of_view
from usage_tracking.entitlements import INHERIT

__all__ = [
    "add_rate_limits",
    "change_limits",
    "current",
    "events",
    "history",
    "limits",
    "list_usage",
    "reset",
    "reset_expired",
    "usage",
]

Handler = TypeVar("Handler", bound=Callable[..., Any])

TAGS: Final = ("usage",)


# -- problems ----------------------------------------------------------------------------------------------------------


class ProblemSerializer(serializers.Serializer[Any]):
    """A problem (RFC 9457)."""

    type = serializers.CharField(help_text=_("A URI that names the kind of problem; for programs."))
    title = serializers.CharField(help_text=_("For people, in their language."))
    status = serializers.IntegerField()
    detail = serializers.CharField(help_text=_("For people, in their language."))


class InvalidProblemSerializer(ProblemSerializer):
    """What is wrong with the values of a request, by field."""

    errors = serializers.DictField(  # type: ignore[assignment]
        child=serializers.ListField(child=serializers.CharField()), required=False
    )


def _example(status: int, problem: Mapping[str, Any]) -> OpenApiExample:
    return OpenApiExample(
        str(problem["title"]), problem, response_only=True, media_type=problems.CONTENT_TYPE, status_codes=[status]
    )


INVALID: Final = {
    "type": problems.INVALID,
    "title": "Invalid values",
    "status": 400,
    "detail": "See “errors” for what is wrong with each value.",
    "errors": {"limits.api": ["Must be a whole number from 0 to 9007199254740991, null for unlimited, or “inherit”."]},
}
NOT_FOUND: Final = {"type": problems.BLANK, "title": "Not found", "status": 404, "detail": "Not found."}

MEANINGS: Final = {
    400: _("A parameter or the body cannot be used."),
    401: _("The caller is not known."),
    403: _("The caller may not do this, or its CSRF token is missing."),
    404: _("There is no such organization for the caller."),
    412: _("The limits are not those that If-Match names."),
    413: _("The body is too large."),
    415: _("The body is not application/json."),
    503: _("The caller's organization cannot be looked up."),
}


def _problems(*statuses: int) -> dict[Any, Any]:
    examples = {400: INVALID, 404: NOT_FOUND}
    return {
        (status, problems.CONTENT_TYPE): OpenApiResponse(
            InvalidProblemSerializer if status == 400 else ProblemSerializer,
            description=MEANINGS[status],
            examples=[_example(status, examples[status])] if status in examples else [],
        )
        for status in statuses
    }


BODY_PROBLEMS: Final = (400, 401, 403, 404, 413, 415)


# -- our endpoints -----------------------------------------------------------------------------------------------------


def _answer(name: str, value: Any) -> OpenApiExample:
    return OpenApiExample(name, value, response_only=True, status_codes=[200])


USAGE: Final = _answer(
    "Usage",
    {
        "organization": 7,
        "plan": "pro",
        "features": {"export": True, "seats": 25},
        "reset_mode": "lazy",
        "reset_period": "monthly",
        "enforcement": "hard",
        "warning_threshold": 80,
        "meters": {
            "api": {
                "used": 958,
                "limit": 1000,
                "remaining": 42,
                "overage": 0,
                "percentage": 95,
                "period_start": "2026-12-01T00:00:00Z",
                "resets_at": "2027-01-01T00:00:00Z",
            }
        },
    },
)
POINT: Final = {"start": "2026-12-01T00:00:00+01:00", "end": "2026-12-02T00:00:00+01:00", "used": 31, "refused": 0}
HISTORY: Final = _answer(
    "One meter", {"meter": "api", "bucket": "day", "time_zone": "Europe/Berlin", "points": [POINT]}
)
HISTORIES: Final = _answer(
    "Several meters", {"bucket": "day", "time_zone": "Europe/Berlin", "meters": {"api": [POINT], "tokens": [POINT]}}
)
EVENT: Final = _answer(
    "A change of limits",
    {
        "id": 215,
        "kind": "limits_updated",
        "meter": "api",
        "threshold": None,
        "limit": 5000,
        "actor": "ann",
        "reason": "Contract of 1 December",
        "data": {
            "plan": "pro",
            "used": 958,
            "period_start": "2026-12-01T00:00:00Z",
            "period_end": "2027-01-01T00:00:00Z",
            "changes": {"limits": {"old": {}, "new": {"api": 5000}}},
        },
        "created_at": "2026-12-01T09:30:00Z",
    },
)
LIMITS: Final = _answer(
    "Limits",
    {
        "organization": 7,
        "plan": "pro",
        "limits": {"api": 5000},
        "features": {},
        "reset_mode": "",
        "reset_period": "",
        "anchor": "",
        "time_zone": "",
        "enforcement": "",
        "explain": {
            "plan": {"value": "pro", "source": "override"},
            "limits": {"api": {"value": 5000, "source": "override"}},
            "features": {"export": {"value": True, "source": "plan"}},
            "reset_mode": {"value": "lazy", "source": "default"},
            "reset_period": {"value": "monthly", "source": "default"},
            "anchor": {"value": "2001-01-01T00:00:00", "source": "default"},
            "time_zone": {"value": "UTC", "source": "default"},
            "enforcement": {"value": "hard", "source": "default"},
        },
    },
)
CLOSED: Final = _answer("Done", {"closed": 12, "organizations": 9, "more": False})
ETAG: Final = OpenApiParameter(
    "ETag", OpenApiTypes.STR, OpenApiParameter.HEADER, description=_("Names this state."), response=[200]
)
PAGES: Final = [
    # spectacular tells a list by the name of its action.
    OpenApiParameter(parameter["name"], parameter["schema"], description=parameter["description"])
    for parameter in UsagePagination().get_schema_operation_parameters(view=None)
]
IF_MATCH: Final = OpenApiParameter(
    "If-Match",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description=_("The ETag of the state that you have seen; any other state is left alone, with a 412."),
)
CHANGE: Final = OpenApiExample(
    "An upgrade",
    {"plan": "pro", "limits": {"api": 5000, "tokens": "inherit"}, "reason": "Contract of 1 December"},
    request_only=True,
)


def describe(name: str, responses: Mapping[Any, Any], **details: Any) -> Callable[[Handler], Handler]:
    """Decorate a handler with what the schema says about it."""
    extend = extend_schema(operation_id=f"usage_{name}", tags=TAGS, responses=dict(responses), **details)

    def decorate(handler: Handler) -> Handler:
        # Extended would otherwise be DEFAULT_SCHEMA_CLASS, which may be None.
        handler.kwargs = {"schema": AutoSchema, **getattr(handler, "kwargs", {})}  # type: ignore[attr-defined]
        return extend(handler)

    return decorate


list_usage = describe("list", {200: UsageSerializer(many=True), **_problems(400, 401, 404)}, examples=[USAGE])
usage = describe("retrieve", {200: UsageSerializer, **_problems(400, 401, 404)}, examples=[USAGE])
history = describe(
    "history",
    {
        200: PolymorphicProxySerializer(
            component_name="UsageHistory",
            serializers=[HistorySerializer, HistoriesSerializer],
            resource_type_field_name=None,
        ),
        **_problems(400, 401, 404),
    },
    parameters=[HistoryQuery],
    examples=[HISTORY, HISTORIES],
)
events = describe(
    "events",
    {200: EventSerializer(many=True), **_problems(400, 401, 403, 404)},
    parameters=PAGES,
    examples=[EVENT],
)
reset = describe(
    "reset", {200: UsageSerializer, **_problems(*BODY_PROBLEMS)}, request=ResetSerializer, examples=[USAGE]
)
limits = describe(
    "limits", {200: LimitsSerializer, **_problems(400, 401, 403, 404)}, parameters=[ETAG], examples=[LIMITS]
)
change_limits = describe(
    "change_limits",
    {200: LimitsSerializer, **_problems(*BODY_PROBLEMS, 412)},
    parameters=[ETAG, IF_MATCH],
    request=LimitsChangeSerializer,
    examples=[CHANGE, LIMITS],
)
current = describe("current", {200: UsageSerializer, **_problems(400, 401, 503)}, examples=[USAGE])
reset_expired = describe(
    "reset_expired",
    {200: ResetExpiredSerializer, **_problems(400, 401, 413, 415)},
    request=None,
    examples=[CLOSED],
)


class APIKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How a machine presents one of API_KEYS."""

    target_class = "usage_tracking.api.authentication.APIKeyAuthentication"
    name = "usageAPIKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:  # noqa: ARG002 - spectacular's signature
        """Return the security scheme."""
        return {"type": "http", "scheme": "bearer", "description": "One of API_KEYS."}


def _blank(field: Any) -> list[str]:
    return [""] if field.allow_blank else []


class StrictSchema(OpenApiSerializerExtension):  # type: ignore[no-untyped-call]
    """What refuses fields that it does not know says so."""

    target_class = "usage_tracking.api.fields.StrictSerializer"
    match_subclasses = True

    def map_serializer(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        """Return the schema as it is, and no more."""
        schema = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)  # noqa: SLF001 - documented
        return {**schema, "additionalProperties": False}


class MeterSchema(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    """Meters are those of METERS when the schema is made."""

    target_class = "usage_tracking.api.fields.MeterField"

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:  # noqa: ARG002 - its signature
        """Return the schema of a meter's name."""
        return {"type": "string", "enum": [*usage_settings.METERS, *_blank(self.target)]}


class PlanSchema(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    """Plans are those of PLANS when the schema is made."""

    target_class = "usage_tracking.api.fields.PlanField"

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:  # noqa: ARG002 - its signature
        """Return the schema of a plan's name."""
        plans = dict.fromkeys([*usage_settings.PLANS, usage_settings.DEFAULT_PLAN])
        return {"type": "string", "enum": [*plans, *_blank(self.target)]}


class LimitsSchema(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    """The same of limits by meter."""

    target_class = "usage_tracking.api.fields.LimitsField"

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:  # noqa: ARG002 - its signature
        """Return the schema of what is stored, or of what may be changed."""
        inherit = {"type": "string", "const": INHERIT, "description": "Drop the override."}
        limit = {"oneOf": [LIMIT_SCHEMA, inherit]} if direction == "request" else LIMIT_SCHEMA
        return {
            "type": "object",
            "properties": dict.fromkeys(usage_settings.METERS, limit),
            "additionalProperties": False,
        }


# -- the host's endpoints ----------------------------------------------------------------------------------------------

RATE_LIMIT_HEADERS: Final[dict[str, Any]] = {
    "RateLimitPolicy": {
        "description": "The quota: q = limit, w = length of the period in seconds.",
        "schema": {"type": "string"},
        "example": '"api";q=1000;w=2678400',
    },
    "RateLimit": {
        "description": "What is left of it: r = remaining, t = seconds until the reset.",
        "schema": {"type": "string"},
        "example": '"api";r=42;t=86400',
    },
    "RetryAfter": {
        "description": "Seconds until the quota resets.",
        "schema": {"type": "integer", "minimum": 0},
    },
}
QUOTA_EXCEEDED: Final[dict[str, Any]] = {
    "type": "object",
    "description": "The quota is exceeded.",
    "properties": {
        "type": {"type": "string", "const": problems.QUOTA_EXCEEDED},
        "title": {"type": "string"},
        "status": {"type": "integer", "const": 429},
        "detail": {"type": "string"},
        "violated-policies": {"type": "array", "items": {"type": "string"}},
        "meter": {"type": "string"},
        "used": {"type": "integer"},
        "limit": {"type": ["integer", "null"]},
        "remaining": {"type": ["integer", "null"]},
        "resets_at": {"type": ["string", "null"], "format": "date-time"},
    },
    "required": ["type", "title", "status", "detail", "violated-policies", "meter", "used", "limit", "remaining"],
}


def add_rate_limits(result: dict[str, Any], generator: Any, **_: Any) -> dict[str, Any]:
    """Add the RateLimit fields and the 429 to each operation that is counted; for POSTPROCESSING_HOOKS."""
    fields = {
        "RateLimit-Policy": {"$ref": "#/components/headers/RateLimitPolicy"},
        "RateLimit": {"$ref": "#/components/headers/RateLimit"},
    }
    refused = {
        "description": "The quota is exceeded.",
        "headers": {**fields, "Retry-After": {"$ref": "#/components/headers/RetryAfter"}},
        "content": {problems.CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/QuotaExceeded"}}},
    }
    for path, method in _counted(generator):
        operation = result["paths"].get(path, {}).get(method.lower())
        if operation is None:
            continue
        for response in operation["responses"].values():
            response.setdefault("headers", {}).update(fields)
        operation["responses"]["429"] = refused
    components = result.setdefault("components", {})
    components.setdefault("headers", {}).update(RATE_LIMIT_HEADERS)
    components.setdefault("schemas", {})["QuotaExceeded"] = QUOTA_EXCEEDED
    return result


def _counted(generator: Any) -> Iterator[tuple[str, str]]:
    """Yield path, as the schema spells it, and method of what the doors count."""
    counted, exempt = usage_settings.PATHS, usage_settings.EXEMPT_PATHS
    for path, _regex, method, callback in generator.endpoints:
        if not path.startswith(counted) or path.startswith(exempt) or method in usage_settings.EXEMPT_METHODS:
            continue
        if not usage_of_view(callback, method).exempt:
            yield generator.coerce_path(path, method, generator.create_view(callback, method)), method
