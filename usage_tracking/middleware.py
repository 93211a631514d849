"""The middleware: charges session callers, and writes what every door has decided."""

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from usage_tracking import doors
from usage_tracking.doors import CountedRequest
from usage_tracking.events import deferred_delivery, dispatch

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
        doors.prepare()
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)
            # Django asks for a coroutine function here, and would wrap a plain one in a hop of its own.
            self.process_view = self.aprocess_view  # type: ignore[method-assign, assignment]

    def __call__(self, request: CountedRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Let the request pass, write its outcome, then deliver what happened."""
        # A view may ask for them whether it is counted or not.
        request.usage_outcome = request.usage_problem = None
        if self.is_async:
            return self.__acall__(request)
        with deferred_delivery() as outboxes:
            response = doors.finish(request, self.get_response(request))  # type: ignore[arg-type]
        if outboxes:
            dispatch(outboxes)
        return response

    async def __acall__(self, request: CountedRequest) -> HttpResponseBase:
        """Do the same on the event loop."""
        with deferred_delivery() as outboxes:
            response = await doors.afinish(request, await self.get_response(request))  # type: ignore[misc]
        if outboxes:
            await sync_to_async(dispatch)(outboxes)
        return response

    def process_view(
        self, request: CountedRequest, view: Callable[..., Any], _args: Any, _kwargs: Any
    ) -> HttpResponse | None:
        """Charge the request."""
        may_go_on = doors.charge(request, view)
        return None if may_go_on else HttpResponse(status=doors.TOO_MANY_REQUESTS)  # `finish` writes the refusal

    async def aprocess_view(
        self, request: CountedRequest, view: Callable[..., Any], _args: Any, _kwargs: Any
    ) -> HttpResponse | None:
        """Do the same on the event loop."""
        may_go_on = await doors.acharge(request, view)
        return None if may_go_on else HttpResponse(status=doors.TOO_MANY_REQUESTS)
