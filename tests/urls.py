"""The test project's URLs: a counted view for sync and for async callers, and an uncounted one."""

from importlib.util import find_spec

from django.contrib import admin
from django.http import HttpRequest, JsonResponse
from django.urls import include, path

from tests import host_admin  # noqa: F401 - importing it registers the organization


def ping(request: HttpRequest) -> JsonResponse:
    """Answer at once."""
    return JsonResponse({"pong": True})


async def aping(request: HttpRequest) -> JsonResponse:
    """Answer at once, without a thread."""
    return JsonResponse({"pong": True})


urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/ping/", ping, name="ping"),
    path("api/aping/", aping, name="aping"),
    path("ping/", ping, name="uncounted"),
    path("dashboard/", include("usage_tracking.urls")),
]

if find_spec("rest_framework"):
    urlpatterns.append(path("usage/", include("usage_tracking.api.urls")))
