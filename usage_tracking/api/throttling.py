"""The door for callers whom DRF authenticates: token, JWT, API key."""

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from usage_tracking import doors
from usage_tracking.resolvers import resolve_organization

if TYPE_CHECKING:
    # It imports us: rest_framework.views reads DEFAULT_THROTTLE_CLASSES as it is imported.
    from rest_framework.views import APIView

__all__ = ["UsageThrottle"]


class UsageThrottle(BaseThrottle):
    """Charges a request once DRF knows its caller; put it into `DEFAULT_THROTTLE_CLASSES`.

    A request that the middleware has charged already is not charged again. The throttle only decides: the middleware,
    which must be installed, writes the refusal.
    """

    def allow_request(self, request: Request, view: "APIView") -> bool:
        """Return whether the request may go on."""
        http_request = cast("doors.CountedRequest", request._request)
        match = http_request.resolver_match
        # Without URL resolution (a view called directly, in a test) the class still speaks for itself.
        function: Any = type(view) if match is None else match.func
        return doors.charge(http_request, function, partial(resolve_organization, request))

    def wait(self) -> None:
        """Leave Retry-After to the middleware."""
        return
