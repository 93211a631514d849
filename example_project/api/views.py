"""A weather API. None of its views counts anything: the middleware and the throttle do."""

import asyncio
from typing import Final

from django.http import HttpRequest, HttpResponse, JsonResponse
from rest_framework import serializers
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from api.permissions import HasOrganizationAPIKey
from usage_tracking.api.permissions import HasFeature
from usage_tracking.decorators import require_feature, usage_amount, usage_exempt
from usage_tracking.metering import record
from usage_tracking.resolvers import resolve_organization

WEATHER: Final = [{"day": "Monday", "celsius": 21}, {"day": "Tuesday", "celsius": 17}]


# -- plain Django: callers with a session, counted by the middleware ---------------------------------------------------


def forecast(request: HttpRequest) -> JsonResponse:
    """Answer a member's browser."""
    if not request.user.is_authenticated:
        return JsonResponse({"detail": "Log in first."}, status=401)
    return JsonResponse({"forecast": WEATHER})


async def radar(request: HttpRequest) -> JsonResponse:
    """Answer from the event loop."""
    user = await request.auser()
    if not user.is_authenticated:
        return JsonResponse({"detail": "Log in first."}, status=401)
    await asyncio.sleep(0)  # the radar would be asked here
    return JsonResponse({"rain": [0, 0, 3, 1]})


@require_feature("export")
def export_csv(request: HttpRequest) -> HttpResponse:  # noqa: ARG001 - a view takes a request
    """Answer organizations whose plan has the feature; others get a 403."""
    lines = "".join(f"{row['day']},{row['celsius']}\n" for row in WEATHER)
    return HttpResponse("day,celsius\n" + lines, content_type="text/csv")


@usage_exempt
def health(request: HttpRequest) -> JsonResponse:  # noqa: ARG001 - a view takes a request
    """Answer a load balancer; that counts for nobody."""
    return JsonResponse({"status": "ok"})


# -- Django REST framework: callers with a token, counted by UsageThrottle ---------------------------------------------


@usage_amount(25)
class ClimateReport(APIView):
    """Costs as much as 25 other requests."""

    def get(self, request: Request) -> Response:  # noqa: ARG002 - a handler takes a request
        """Return thirty years in two lines."""
        return Response({"years": 30, "warming": 1.1})


class TextSerializer(serializers.Serializer):
    """What there is to summarize."""

    text = serializers.CharField(max_length=10_000)


class Summary(APIView):
    """Takes one request of `api`, and as many `tokens` as the summary turns out to need."""

    def post(self, request: Request) -> Response:
        """Summarize `text`, then record what that took: nobody knew it before."""
        asked = TextSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        words = asked.validated_data["text"].split()
        organization = resolve_organization(request)
        if organization is not None:
            record(organization, len(words), meter="tokens")
        return Response({"summary": " ".join(words[:5]), "tokens": len(words)})


class Export(APIView):
    """For plans with the feature `export`."""

    permission_classes = [IsAuthenticated, HasFeature("export")]

    def get(self, request: Request) -> Response:  # noqa: ARG002 - a handler takes a request
        """Return everything there is."""
        return Response({"forecast": WEATHER})


# -- Django REST framework: callers with an API key, whom our resolver knows from the header ---------------------------


class Observations(APIView):
    """For machines."""

    permission_classes = [HasOrganizationAPIKey]

    def get(self, request: Request) -> Response:  # noqa: ARG002 - a handler takes a request
        """Return what the stations have measured."""
        return Response({"observations": [{"station": "Zugspitze", "celsius": -4}]})
