"""The OpenAPI schema says what the API does: drf-spectacular has nothing to warn of, and schemathesis finds no lie."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.management import call_command
from django.test import override_settings
from django.urls import include, path
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema
from rest_framework.response import Response
from rest_framework.views import APIView

from usage_tracking.api.views import OrganizationViewSet
from usage_tracking.decorators import usage_exempt

METHODS = {"get", "post", "put", "patch", "delete"}


class Forecast(APIView):
    """A host's view that is counted."""

    def get(self, request: Any) -> Response:
        """Answer."""
        return Response({})

    @usage_exempt
    def post(self, request: Any) -> Response:
        """Answer, without being counted."""
        return Response({})


class Host:
    """A host's URLs."""

    urlpatterns = [
        path("api/forecast/<int:pk>/", Forecast.as_view()),
        path("elsewhere/forecast/", Forecast.as_view()),
        path("api/usage/", include("usage_tracking.api.urls")),
    ]


def schema_of(urlconf: Any = None) -> dict[str, Any]:
    """Return the schema of a URLconf, by default the tests' own."""
    schema: dict[str, Any] = SchemaGenerator(urlconf=urlconf).get_schema(request=None, public=True)
    return schema


def operations(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return {operation id: operation}."""
    return {
        operation["operationId"]: operation
        for item in schema["paths"].values()
        for method, operation in item.items()
        if method in METHODS
    }


def test_there_is_nothing_to_warn_of():
    """`spectacular --validate --fail-on-warn` is content, and the schema is OpenAPI 3.1."""
    output = io.StringIO()
    call_command("spectacular", validate=True, fail_on_warn=True, stdout=output)
    assert output.getvalue().startswith("openapi: 3.1")


def test_every_operation_is_described():
    """Each has a text, and says with which problems it may answer; each problem is one of RFC 9457."""
    found = operations(schema_of())
    assert set(found) == {
        f"usage_{name}"
        for name in (
            "list", "retrieve", "history", "events", "reset", "limits", "change_limits", "current", "reset_expired",
        )
    }  # fmt: skip
    for name, operation in found.items():
        assert operation["description"], name
        assert {"200", "400", "401"} <= operation["responses"].keys(), name
        for status, response in operation["responses"].items():
            expected = {"application/json"} if status == "200" else {"application/problem+json"}
            assert response["content"].keys() == expected, (name, status)
    assert {"403", "404", "412", "413", "415"} <= found["usage_change_limits"]["responses"].keys()
    assert "ETag" in found["usage_limits"]["responses"]["200"]["headers"]
    assert "If-Match" in {parameter["name"] for parameter in found["usage_change_limits"]["parameters"]}
    assert found["usage_reset_expired"]["security"] == [{"usageAPIKey": []}]
    for name, operation in found.items():
        assert operation["responses"]["200"]["content"]["application/json"]["examples"], name
    assert found["usage_change_limits"]["requestBody"]["content"]["application/json"]["examples"]


def test_every_parameter_is_described():
    """What a query string may have is what the schema says: nothing that works is kept from who generates a client."""
    described = {
        name.removeprefix("usage_"): {parameter["name"] for parameter in operation.get("parameters", ())} - {"id"}
        for name, operation in operations(schema_of()).items()
    }
    for action in ("list", "retrieve", "history", "events"):
        assert described[action] == set(OrganizationViewSet(action=action).parameters), action


def test_counted_operations_of_the_host_have_the_fields(configure):
    """The hook adds RateLimit fields and the 429 to what the doors count, and to nothing else."""
    configure(PATHS=["/api/"])
    schema = schema_of(Host)
    validate_schema(schema)
    counted = schema["paths"]["/api/forecast/{id}/"]["get"]["responses"]
    assert counted["200"]["headers"]["RateLimit"] == {"$ref": "#/components/headers/RateLimit"}
    assert counted["429"]["content"].keys() == {"application/problem+json"}
    assert schema["components"]["headers"].keys() >= {"RateLimit", "RateLimitPolicy", "RetryAfter"}
    uncounted = [
        schema["paths"]["/api/forecast/{id}/"]["post"],
        schema["paths"]["/elsewhere/forecast/"]["get"],
        schema["paths"]["/api/usage/current/"]["get"],
    ]
    for operation in uncounted:
        assert "429" not in operation["responses"]
        assert "headers" not in operation["responses"]["200"]


@pytest.mark.parametrize("default", [None, "rest_framework.schemas.openapi.AutoSchema"])
def test_our_views_have_a_schema_class_of_their_own(default):
    """Whatever DEFAULT_SCHEMA_CLASS says: a host without schemas imports our views all the same."""
    with override_settings(REST_FRAMEWORK={"DEFAULT_SCHEMA_CLASS": default}):
        schema = schema_of(type("Ours", (), {"urlpatterns": [path("usage/", include("usage_tracking.api.urls"))]}))
    assert len(operations(schema)) == 9
