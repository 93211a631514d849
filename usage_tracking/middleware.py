"""The middleware: charges session callers, and writes what every door has decided."""

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from usage_tracking import doors
from usage_tracking.events import deferred_delivery, dispatch
from usage_tracking.resolvers import prepare_resolver, resolve_organization

__all__ = ["UsageTrackingMiddleware"]


class UsageTrackingMiddleware:
    """Counts the requests of organizations and refuses those past the limit.

    Place it after the session and authentication middleware. It charges once the view is known, so that views speak
    for themselves and unknown URLs cost nothing; a caller who is anonymous until DRF authenticates is charged by
    `api.throttling.UsageThrottle` instead. Sync and async.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)
            # Django asks for a coroutine function here, and would wrap a plain one in a hop of its own.
            self.process_view = self.aprocess_view  # type: ignore[method-assign, assignment]

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Let the request pass, write its outcome, then deliver what happened."""
        if self.is_async:
            return self.__acall__(request)
        with deferred_delivery() as outboxes:
            response = doors.finish(request, self.get_response(request))  # type: ignore[arg-type]
        dispatch(outboxes)
        return response

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        """Do the same without leaving the event loop, unless the database is needed."""
        with deferred_delivery() as outboxes:
            response: HttpResponseBase = await self.get_response(request)  # type: ignore[misc]
            if doors.may_give_back(request, response):
                response = await sync_to_async(doors.finish)(request, response)
            else:
                response = doors.finish(request, response)
        if outboxes:
            await sync_to_async(dispatch)(outboxes)
        return response

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], _args: Any, _kwargs: Any
    ) -> HttpResponse | None:
        """Charge the request. An empty response stands for a refusal until `finish` writes it."""
        return _stop(doors.charge(request, view, lambda: resolve_organization(request)))

    async def aprocess_view(
        self, request: HttpRequest, view: Callable[..., Any], _args: Any, _kwargs: Any
    ) -> HttpResponse | None:
        """Do the same, with one hop to a thread for resolver and counter together."""
        try:
            if doors.view_usage_of(request, view) is None:
                return None
            resolve = await prepare_resolver(request)
        except Exception:  # noqa: BLE001 - `failed` logs it
            return _stop(doors.failed(request))
        return _stop(await sync_to_async(doors.charge)(request, view, resolve))


def _stop(outcome: doors.Outcome | None) -> HttpResponse | None:
    return None if outcome is None or outcome.allowed else HttpResponse(status=429)
