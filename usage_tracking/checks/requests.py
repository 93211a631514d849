"""How requests meet the package: the middleware, the URLs, the views."""

from collections.abc import Iterator
from typing import Any, Final

from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware, LoginRequiredMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's name for it
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.module_loading import import_string
from django.views import View

from usage_tracking.checks.settings import unless_settings_are_broken
from usage_tracking.checks.urls import may_reach, url_patterns, views
from usage_tracking.conf import nearest, usage_settings
from usage_tracking.decorators import usage_of_view
from usage_tracking.middleware import UsageTrackingMiddleware

# They know the caller, or refuse the request.
FIRST: Final = (SessionMiddleware, AuthenticationMiddleware, LoginRequiredMiddleware, CsrfViewMiddleware)


@unless_settings_are_broken
def check_middleware(**_: Any) -> Iterator[CheckMessage]:
    """The middleware is there, once, and late enough."""
    if not usage_settings.PATHS:
        return
    stack = [(path, _middleware(path)) for path in settings.MIDDLEWARE]
    ours = [index for index, (_, middleware) in enumerate(stack) if issubclass(middleware, UsageTrackingMiddleware)]
    if not ours:
        yield Error(
            "'usage_tracking.middleware.UsageTrackingMiddleware' is not in MIDDLEWARE: no request is counted.",
            hint="Add it to the end of MIDDLEWARE. Where only calls of `consume()` are to count, set PATHS to [].",
            id="usage_tracking.E007",
        )
        return
    if len(ours) > 1:
        yield Error(
            f"The middleware is in MIDDLEWARE more than once: {', '.join(repr(stack[index][0]) for index in ours)}.",
            hint="Leave one: a failed request would be given back once for each.",
            id="usage_tracking.E008",
        )
    path = stack[ours[0]][0]
    for later, middleware in stack[ours[0] + 1 :]:
        if issubclass(middleware, FIRST):
            yield Warning(
                f"{path!r} comes before {later!r} in MIDDLEWARE.",
                hint="Move it to the end: a request is to be charged once its caller is known and it may pass.",
                id="usage_tracking.W005",
            )


def _middleware(path: str) -> type[Any]:
    try:
        middleware = import_string(path)
    except Exception:  # noqa: BLE001 - a module may raise anything while it is imported; Django says so when it serves
        return object
    return middleware if isinstance(middleware, type) else object


@unless_settings_are_broken
def check_paths(**_: Any) -> Iterator[CheckMessage]:
    """Every entry of PATHS has a URL."""
    patterns = url_patterns()
    for path in usage_settings.PATHS:
        if patterns and not may_reach(path, patterns):
            yield Warning(
                f"PATHS has {path!r}, but no URL of {settings.ROOT_URLCONF} begins so.",
                hint="Set PATHS to what the paths of your API's URLs begin with, like '/api/'.",
                id="usage_tracking.W006",
            )


@unless_settings_are_broken
def check_view_meters(**_: Any) -> Iterator[CheckMessage]:
    """Every view is counted on a meter that exists."""
    meters = usage_settings.METERS
    # A view may have several URLs, and a meter for each method.
    asked = {
        (pattern.lookup_str, usage_of_view(pattern.callback, method.upper()).meter): None
        for pattern in views()
        for method in View.http_method_names
    }
    for view, meter in asked:
        if meter not in meters:
            yield Error(
                f"The view is counted on the meter {meter!r}, which is not in METERS.",
                hint=f"Correct its usage_meter(…), or describe the meter in METERS.{nearest(meter, list(meters))}",
                obj=view,
                id="usage_tracking.E009",
            )
