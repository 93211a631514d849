"""Problem details for HTTP APIs (RFC 9457): what a refused caller reads."""

import json
import math
from datetime import datetime
from typing import Any, Final

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from usage_tracking.quotas import Decision

__all__ = ["CONTENT_TYPE", "counter_unavailable", "feature_missing", "quota_exceeded", "retry_after", "write"]

CONTENT_TYPE: Final = "application/problem+json"

QUOTA_EXCEEDED: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"
"""Registered by draft-ietf-httpapi-ratelimit-headers, which also defines `violated-policies`."""
TEMPORARY_REDUCED_CAPACITY: Final = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
FEATURE_MISSING: Final = "urn:usage-tracking:problem:feature-missing"

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


def counter_unavailable() -> Problem:
    """Return the 503 problem of a request whose usage could not be counted (ON_COUNTER_ERROR = "refuse")."""
    return {
        "type": TEMPORARY_REDUCED_CAPACITY,
        "title": _("Usage cannot be counted right now"),
        "status": 503,
        "detail": _("The request was not carried out. Please try again in a moment."),
    }


def retry_after(decision: Decision, now: datetime) -> int | None:
    """Return the seconds until the quota resets, rounded up; None when that instant is not known."""
    resets_at = decision.usage.resets_at
    return None if resets_at is None or resets_at <= now else math.ceil((resets_at - now).total_seconds())


def write(response: HttpResponseBase, problem: Problem) -> HttpResponseBase:
    """Turn `response` into the problem, keeping the headers and cookies that others have put on it.

    A streaming response is replaced.
    """
    if not isinstance(response, HttpResponse):
        response.close()
        response = HttpResponse()
    response.status_code = problem["status"]
    response.content = json.dumps(problem, ensure_ascii=False).encode()
    # These described the body that is gone.
    for header in ("Content-Encoding", "Content-Length", "ETag", "Last-Modified"):
        del response.headers[header]
    response.headers["Content-Type"] = CONTENT_TYPE
    response.headers["Cache-Control"] = "no-store"
    return response


def instant(moment: datetime) -> str:
    """Return an aware instant as RFC 3339 in UTC."""
    return moment.isoformat().replace("+00:00", "Z")
