"""Problem details for HTTP APIs (RFC 9457): what a refused caller reads."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from usage_tracking.quotas import Decision

__all__ = [
    "CONTENT_TYPE",
    "Problem",
    "counter_unavailable",
    "feature_missing",
    "feature_unknown",
    "general",
    "invalid",
    "quota_exceeded",
    "response",
    "write",
]

CONTENT_TYPE: Final = "application/problem+json"

QUOTA_EXCEEDED: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"
"""Registered by draft-ietf-httpapi-ratelimit-headers, which also defines `violated-policies`."""
TEMPORARY_REDUCED_CAPACITY: Final = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
FEATURE_MISSING: Final = "urn:usage-tracking:problem:feature-missing"
INVALID: Final = "urn:usage-tracking:problem:invalid"
NO_ACTIVE_ORGANIZATION: Final = "urn:usage-tracking:problem:no-active-organization"
LIMITS_CHANGED: Final = "urn:usage-tracking:problem:limits-changed"
BLANK: Final = "about:blank"
"""A problem that its status says all about (RFC 9457, section 4.2.1)."""

TITLES: Final[Mapping[int, Promise]] = {
    400: gettext_lazy("Bad request"),
    401: gettext_lazy("Authentication required"),
    403: gettext_lazy("Not allowed"),
    404: gettext_lazy("Not found"),
    405: gettext_lazy("Method not allowed"),
    406: gettext_lazy("Not acceptable"),
    412: gettext_lazy("Precondition failed"),
    413: gettext_lazy("Content too large"),
    415: gettext_lazy("Unsupported media type"),
    503: gettext_lazy("Not available right now"),
}

Problem = dict[str, Any]


def quota_exceeded(decision: Decision, now: datetime) -> Problem:
    """Return the 429 problem of a refused decision: what was asked, what is left, when it resets."""
    usage = decision.usage
    left, limit = usage.remaining or 0, usage.limit or 0
    detail = ngettext(
        "This request needs %(amount)s of the quota “%(meter)s”; %(left)s of %(limit)s is left.",
        "This request needs %(amount)s of the quota “%(meter)s”; %(left)s of %(limit)s are left.",
        left,
    ) % {"amount": decision.amount, "meter": usage.meter, "left": left, "limit": limit}
    if usage.resets_at is not None and usage.resets_at > now:
        detail += " " + _("It resets at %(instant)s.") % {"instant": instant(usage.resets_at)}
    return {
        "type": QUOTA_EXCEEDED,
        "title": _("Quota exceeded"),
        "status": 429,
        "detail": detail,
        "violated-policies": [usage.meter],
        "meter": usage.meter,
        "used": usage.used,
        "limit": usage.limit,
        "remaining": usage.remaining,
        "resets_at": None if usage.resets_at is None else instant(usage.resets_at),
    }


def feature_missing(feature: str) -> Problem:
    """Return the 403 problem of a plan that lacks a feature."""
    return {
        "type": FEATURE_MISSING,
        "title": _("Feature not available"),
        "status": 403,
        "detail": _("The feature “%(feature)s” is not part of your plan.") % {"feature": feature},
        "feature": feature,
    }


def feature_unknown(feature: str) -> Problem:
    """Return the 503 problem of a request whose features could not be looked up."""
    return {
        "type": TEMPORARY_REDUCED_CAPACITY,
        "title": _("Features cannot be looked up right now"),
        "status": 503,
        "detail": _("The request was not carried out. Please try again in a moment."),
        "feature": feature,
    }


def counter_unavailable() -> Problem:
    """Return the 503 problem of a request whose usage could not be counted (ON_COUNTER_ERROR = "refuse")."""
    return {
        "type": TEMPORARY_REDUCED_CAPACITY,
        "title": _("Usage cannot be counted right now"),
        "status": 503,
        "detail": _("The request was not carried out. Please try again in a moment."),
    }


def invalid(errors: Mapping[str, Sequence[str]]) -> Problem:
    """Return the 400 problem of values that cannot be used: `errors` says which and why, by field."""
    return {
        "type": INVALID,
        "title": _("Invalid values"),
        "status": 400,
        "detail": _("See “errors” for what is wrong with each value."),
        "errors": {field: list(messages) for field, messages in errors.items()},
    }


def general(status: int, detail: str, *, type: str = BLANK) -> Problem:  # noqa: A002 - as RFC 9457 calls it
    """Return the problem of any other refusal."""
    return {"type": type, "title": str(TITLES.get(status, status)), "status": status, "detail": detail}


def response(problem: Problem) -> HttpResponse:
    """Return the problem as a response of its own."""
    return write(HttpResponse(), problem)


def write(response: HttpResponseBase, problem: Problem, *, retry_after: int | None = None) -> HttpResponse:
    """Turn `response` into the problem, keeping the headers and cookies that others have put on it.

    `retry_after` is in seconds. A streaming response is replaced by one that keeps these.
    """
    if not isinstance(response, HttpResponse):
        response = _without_stream(response)
    response.status_code = problem["status"]
    response.content = json.dumps(problem, ensure_ascii=False).encode()
    # These described the answer that is gone.
    for header in ("Content-Disposition", "Content-Encoding", "Content-Length", "ETag", "Last-Modified", "Retry-After"):
        response.headers.pop(header, None)
    response.headers["Content-Type"] = CONTENT_TYPE
    response.headers["Cache-Control"] = "no-store"
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    return response


def instant(moment: datetime) -> str:
    """Return an aware instant as RFC 3339 in UTC."""
    return moment.isoformat().replace("+00:00", "Z")


def _without_stream(response: HttpResponseBase) -> HttpResponse:
    replacement = HttpResponse(headers=response.headers)
    replacement.cookies = response.cookies
    # What the stream opened is closed with its replacement. Closing it here would end the request for Django.
    replacement._resource_closers = response._resource_closers  # type: ignore[attr-defined]  # noqa: SLF001
    return replacement
