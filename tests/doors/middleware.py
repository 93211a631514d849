"""Other people's middleware."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

if TYPE_CHECKING:
    from collections.abc import Callable


def stamp(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Put a header and a cookie on every response."""

    def middleware(request: HttpRequest) -> Any:
        response = get_response(request)
        response.headers["X-Stamp"] = "stamped"
        response.set_cookie("stamp", "stamped")
        return response

    return middleware


def pad(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Make every response long enough to be worth compressing, and say what it is."""

    def middleware(request: HttpRequest) -> Any:
        response = get_response(request)
        response.content = b"x" * 1000
        response.headers["ETag"] = '"padded"'
        response.headers["Content-Length"] = "1000"
        return response

    return middleware


def stream(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Turn every response into a stream."""

    def middleware(request: HttpRequest) -> Any:
        response: HttpResponse = get_response(request)
        return StreamingHttpResponse([response.content], status=response.status_code, headers=response.headers)

    return middleware
