"""The test project's URLs: a counted view for sync and for async callers, and an uncounted one."""

from django.contrib import admin
from django.http import HttpRequest, JsonResponse
from django.urls import path

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
]
