"""The same views for callers whom Django REST framework authenticates; import it only where that is installed."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse, JsonResponse
from rest_framework.authentication import BaseAuthentication, SessionAuthentication, TokenAuthentication
from rest_framework.decorators import action, api_view, authentication_classes, throttle_classes
from rest_framework.permissions import BasePermission, IsAdminUser
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from tests.doors import views
from tests.factories import Organization, UserFactory
from usage_tracking.api.permissions import HasFeature
from usage_tracking.api.throttling import UsageThrottle
from usage_tracking.decorators import usage_amount, usage_exempt, usage_meter


class OrganizationHeader(BaseAuthentication):
    """The caller is a member of the organization that the header names; needs no database."""

    def authenticate(self, request: Any) -> Any:
        key = request.headers.get("X-Organization")
        if key is None:
            return None
        request._request.organization = Organization(pk=Organization._meta.pk.to_python(key))
        return UserFactory.build(), None


class Counted(APIView):
    """What the views below have in common."""

    authentication_classes: tuple[type[BaseAuthentication], ...] = (
        TokenAuthentication,
        SessionAuthentication,
        OrganizationHeader,
    )
    throttle_classes = (UsageThrottle,)


class Ping(Counted):
    def get(self, request: Any) -> Response:
        return Response({"pong": True})


@usage_amount(3)
class Costly(Ping):
    pass


@usage_amount(views.amount_asked)
class Weighed(Ping):
    pass


class Exempt(Counted):
    @usage_exempt
    def get(self, request: Any) -> Response:
        return Response({})


@usage_meter("tokens")
class Tokens(Ping):
    pass


class Status(Counted):
    def get(self, request: Any) -> HttpResponse:
        return views.status(request)


class Raising(Counted):
    def get(self, request: Any) -> HttpResponse:
        return views.raising(request)


class Outcome(Counted):
    def get(self, request: Any) -> HttpResponse:
        return JsonResponse(views.outcome_seen(request))


class During(Counted):
    def get(self, request: Any) -> HttpResponse:
        return views.during(request)


@usage_amount(4)
@api_view(["GET"])
@authentication_classes([TokenAuthentication])
@throttle_classes([UsageThrottle])
def function(request: Any) -> Response:
    return Response({})


class Reports(ViewSet):
    """Its actions speak for themselves."""

    authentication_classes = Counted.authentication_classes
    throttle_classes = Counted.throttle_classes

    def list(self, request: Any) -> Response:
        return Response([])

    @usage_amount(5)
    def create(self, request: Any) -> Response:
        return Response({})

    @action(detail=False)
    @usage_exempt
    def latest(self, request: Any) -> Response:
        return Response({})


class Nobody(BasePermission):
    """Denies, for its own reasons."""

    def has_permission(self, request: Any, view: Any) -> bool:
        return False


class Gated(Counted):
    """What each view asks for is in the URLs."""

    def get(self, request: Any) -> HttpResponse:
        return HttpResponse(status=int(request.GET.get("status", 200)))


class GatedForSessions(Gated):
    """DRF answers 403, not 401, to the anonymous: a session has no scheme to ask for."""

    authentication_classes = (SessionAuthentication,)
    permission_classes = (HasFeature("export"),)


GATES: dict[str, Any] = {
    "gated": HasFeature("export"),
    "both": HasFeature("export") & HasFeature("audit"),
    "either": HasFeature("export") | HasFeature("audit"),
    "without": ~HasFeature("export"),
    "or-admin": HasFeature("export") | IsAdminUser,
    "and-nobody": HasFeature("export") & Nobody,
}
