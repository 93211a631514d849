"""What a view says about its own usage.

Each decorator works on function views (sync and async), on `View.dispatch` through `method_decorator`, on a class
(Django's or DRF's) and on single handlers: `get`, `post`, the actions of a DRF viewset. The handler's word comes
first, then the class's, then that of the view function.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeVar

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse

from usage_tracking import problems
from usage_tracking.entitlements import has_feature
from usage_tracking.quotas import DEFAULT_METER, validate_amount
from usage_tracking.resolvers import resolve_organization

__all__ = ["ViewUsage", "require_feature", "usage_amount", "usage_exempt", "usage_meter", "usage_of_view"]

View = TypeVar("View", bound=Callable[..., Any])
Amount = int | Callable[[HttpRequest], int]

ATTRIBUTE: Final = "usage_tracking_options"


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewUsage:
    """What a request to a view consumes."""

    exempt: bool = False
    amount: Amount = 1
    meter: str = DEFAULT_METER

    def amount_for(self, request: HttpRequest) -> int:
        """Return the amount of one request. Raises InvalidAmount, or what the view's own callable raises."""
        return validate_amount(self.amount(request)) if callable(self.amount) else self.amount


def usage_exempt(view: View) -> View:
    """Do not count requests to this view."""
    return _set(view, exempt=True)


def usage_amount(amount: Amount) -> Callable[[View], View]:
    """Let a request consume `amount`: an int from 1, or a callable that gets the HttpRequest and returns one.

    Raises InvalidAmount for an int out of range. A callable that raises or returns none of these counts as a counter
    error: ON_COUNTER_ERROR decides about the request.
    """
    if not callable(amount):
        validate_amount(amount)
    return lambda view: _set(view, amount=amount)


def usage_meter(meter: str) -> Callable[[View], View]:
    """Count requests to this view on another meter than `api`; the system checks know unknown ones."""
    return lambda view: _set(view, meter=meter)


def require_feature(feature: str) -> Callable[[View], View]:
    """Answer 403 with a problem of its own type unless the caller's organization has `feature`.

    A caller without an organization has no feature. For DRF views use the permission `api.permissions.HasFeature`.
    """

    def lacks(request: HttpRequest) -> HttpResponse | None:
        organization = resolve_organization(request)
        if organization is not None and has_feature(organization, feature):
            return None
        return problems.write(HttpResponse(), problems.feature_missing(feature))  # type: ignore[return-value]

    def decorate(view: View) -> View:
        if iscoroutinefunction(view):

            @functools.wraps(view)
            async def gate(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                return await sync_to_async(lacks)(request) or await view(request, *args, **kwargs)
        else:

            @functools.wraps(view)
            def gate(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                return lacks(request) or view(request, *args, **kwargs)

        return gate  # type: ignore[return-value]

    return decorate


@lru_cache(maxsize=4096)
def usage_of_view(view: Callable[..., Any], method: str) -> ViewUsage:
    """Return what a request with `method` to a resolved view function consumes."""
    cls = getattr(view, "view_class", None) or getattr(view, "cls", None)
    name = method.lower()
    # DRF's viewsets map methods to actions.
    handler = getattr(cls, (getattr(view, "actions", None) or {}).get(name, name), None)
    options: dict[str, Any] = {}
    for speaker in (view, cls, handler):
        options |= getattr(speaker, ATTRIBUTE, {})
    return ViewUsage(**options)


def _set(view: View, **options: Any) -> View:
    # A copy: a subclass must not change what its base says.
    setattr(view, ATTRIBUTE, {**getattr(view, ATTRIBUTE, {}), **options})
    return view
