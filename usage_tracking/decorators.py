"""What a view says about its own usage, and which feature it asks for.

`usage_exempt`, `usage_amount` and `usage_meter` go on function views (sync and async; above DRF's `@api_view`), on
classes (Django's or DRF's) and on single handlers: `get`, `post`, the actions of a DRF viewset. The handler's word
comes first, then the class's, then that of the view function. `require_feature` wraps a view function; on a class it
goes through `method_decorator(…, name="dispatch")`.
"""

import functools
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Final, TypeVar

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import HttpRequest

from usage_tracking import problems
from usage_tracking.entitlements import has_feature
from usage_tracking.exceptions import InvalidAmount
from usage_tracking.models import UsageTrackedOrganization
from usage_tracking.problems import Problem
from usage_tracking.quotas import DEFAULT_METER, validate_amount
from usage_tracking.resolvers import prepare_resolver, resolve_organization

__all__ = ["ViewUsage", "denial", "require_feature", "usage_amount", "usage_exempt", "usage_meter", "usage_of_view"]

logger = logging.getLogger(__name__)

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

    Raises InvalidAmount for an int out of range or an async callable. When a callable raises or returns anything
    else, that is logged and the request counts as 1.
    """
    if not callable(amount):
        validate_amount(amount)
    elif iscoroutinefunction(amount):
        message = f"amount must be a plain function, not the async {amount!r}: it is called beside the database."
        raise InvalidAmount(message, field="amount")
    return lambda view: _set(view, amount=amount)


def usage_meter(meter: str) -> Callable[[View], View]:
    """Count requests to this view on another meter than `api`. The system checks name one that METERS lacks.

    Raises TypeError for anything but a string: `@usage_meter` without its argument.
    """
    _named("usage_meter", meter)
    return lambda view: _set(view, meter=meter)


def require_feature(feature: str) -> Callable[[View], View]:
    """Answer 403 with a problem of its own type unless the caller's organization has `feature`.

    A caller without an organization has no feature. When nobody can tell, because the resolver or PLANS fails, the
    answer is 503, whatever ON_COUNTER_ERROR says: what is paid for is not given away. Raises TypeError on a class
    and for a feature that is no string. For DRF views use the permission `api.permissions.HasFeature`.
    """
    _named("require_feature", feature)

    def decorate(view: View) -> View:
        if inspect.isclass(view):
            message = f'Use @method_decorator(require_feature({feature!r}), name="dispatch") on {view.__qualname__}.'
            raise TypeError(message)

        async def agate(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            resolve = await prepare_resolver(request)
            problem = await sync_to_async(denial)(feature, resolve)
            return problems.response(problem) if problem else await view(request, *args, **kwargs)

        def gate(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            problem = denial(feature, partial(resolve_organization, request))
            return problems.response(problem) if problem else view(request, *args, **kwargs)

        return functools.wraps(view)(agate if _is_async(view) else gate)  # type: ignore[return-value]

    return decorate


def _named(decorator: str, name: object) -> None:
    if not isinstance(name, str):
        message = f'@{decorator} takes a name: @{decorator}("…"), not {name!r}.'
        raise TypeError(message)


def denial(feature: str, resolve: Callable[[], UsageTrackedOrganization | None]) -> Problem | None:
    """Return the problem that keeps the organization that `resolve` names from a feature; None if it has it.

    Never raises: when nobody can tell, the problem is a 503.
    """
    try:
        organization = resolve()
        granted = organization is not None and has_feature(organization, feature)
    except Exception:
        logger.exception("The feature %r could not be looked up.", feature)
        return problems.feature_unknown(feature)
    return None if granted else problems.feature_missing(feature)


@lru_cache(maxsize=4096)
def usage_of_view(view: Callable[..., Any], method: str) -> ViewUsage:
    """Return what a request with `method` to a resolved view function (or a view class) consumes."""
    cls = getattr(view, "view_class", None) or getattr(view, "cls", None) or view
    handler = _handler(cls, view, method.lower())
    if handler is None and method == "HEAD":
        handler = _handler(cls, view, "get")
    options: dict[str, Any] = {}
    for speaker in (view, cls, handler):
        options |= getattr(speaker, ATTRIBUTE, {})
    return ViewUsage(**options)


def _handler(cls: Any, view: Callable[..., Any], method: str) -> Any:
    # DRF's viewsets map methods to actions.
    actions = getattr(view, "actions", None) or {}
    return getattr(cls, actions.get(method, method), None)


def _set(view: View, **options: Any) -> View:
    # A copy: a subclass must not change what its base says.
    setattr(view, ATTRIBUTE, {**getattr(view, ATTRIBUTE, {}), **options})
    return view


def _is_async(view: Callable[..., Any]) -> bool:
    # An async class-based view has a plain `dispatch` that returns a coroutine; `method_decorator` hands us a partial.
    owner = getattr(getattr(view, "func", view), "__self__", None)
    return iscoroutinefunction(view) or getattr(owner, "view_is_async", False)
