"""What guards of the REST framework's views are compared with: the same view, and one that always refuses."""

from rest_framework.authentication import BaseAuthentication
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from tests.benchmarks.guards.base import Guard


class Known(BaseAuthentication):
    """Trusts the middleware."""

    def authenticate(self, request):
        return request._request.caller.user, None


class Bare(APIView):
    """Answers at once."""

    authentication_classes = [Known]
    renderer_classes = [JSONRenderer]

    def get(self, request, who):
        return Response("ok")


class Never(BaseThrottle):
    """Refuses."""

    def allow_request(self, request, view):
        return False


class RestGuard(Guard):
    """Before a view of the REST framework."""

    bare = staticmethod(Bare.as_view())
    refusal = staticmethod(Bare.as_view(throttle_classes=[Never]))
