"""What a counted response tells its caller about what is left."""

import math
from datetime import datetime
from functools import lru_cache
from typing import Final

from django.http.response import ResponseHeaders

from usage_tracking.conf import HeaderStyle, usage_settings
from usage_tracking.periods import Period
from usage_tracking.quotas import Usage, remaining

__all__ = ["seconds_left", "write"]

Fields = ResponseHeaders | dict[str, str]

MAX_INTEGER: Final = 999_999_999_999_999
"""The largest whole number a structured field can hold (RFC 9651, section 3.3.1); limits can be larger."""


def write(fields: Fields, usage: Usage, timestamp: float) -> None:
    """Add the header fields that HEADERS asks for; none when the meter is unlimited.

    `timestamp` is in seconds since the epoch.
    """
    limit = usage.limit
    if limit is not None:
        left, seconds = remaining(usage.used, limit) or 0, seconds_left(usage, timestamp)
        for style in usage_settings.HEADERS:
            WRITERS[style](fields, usage, limit, left, seconds)


def seconds_left(usage: Usage, timestamp: float) -> int | None:
    """Return the seconds until the quota resets, rounded up; None when that instant is not known."""
    resets_at = usage.period.end
    if resets_at is None:
        return None
    left = _seconds(resets_at) - timestamp
    return math.ceil(left) if left > 0 else None


_seconds = lru_cache(maxsize=1024)(datetime.timestamp)


def _write_ietf(fields: Fields, usage: Usage, limit: int, left: int, seconds: int | None) -> None:
    """Write RateLimit-Policy and RateLimit as draft-ietf-httpapi-ratelimit-headers-10 has them.

    `q` quota and `w` window in seconds, `r` remaining and `t` seconds until the reset. The draft still moves; this is
    the one place that follows it. A meter's name needs no escaping in a structured field (RFC 9651, section 3.3.3).
    """
    rate = f'"{usage.meter}";r={min(left, MAX_INTEGER)}'
    fields["RateLimit-Policy"] = _policy(usage.meter, limit, usage.period.start, usage.period.end)
    fields["RateLimit"] = rate if seconds is None else f"{rate};t={seconds}"


@lru_cache(maxsize=1024)  # one for each plan, say; by what hashes faster than a Period
def _policy(meter: str, limit: int, start: datetime, end: datetime | None) -> str:
    quota, window = f'"{meter}";q={min(limit, MAX_INTEGER)}', Period(start, end).seconds
    return quota if window is None else f"{quota};w={window}"


def _write_x_ratelimit(fields: Fields, usage: Usage, limit: int, left: int, seconds: int | None) -> None:
    """Write the fields many clients know from GitHub's API; the reset is in seconds since the Unix epoch."""
    fields["X-RateLimit-Limit"], fields["X-RateLimit-Remaining"] = str(limit), str(left)
    if seconds is not None and usage.resets_at is not None:
        fields["X-RateLimit-Reset"] = str(math.ceil(_seconds(usage.resets_at)))


WRITERS: Final = {HeaderStyle.IETF: _write_ietf, HeaderStyle.X_RATELIMIT: _write_x_ratelimit}
