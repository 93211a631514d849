"""What a counted response tells its caller about what is left."""

import math
from datetime import datetime
from functools import lru_cache
from typing import Final

from usage_tracking.conf import HeaderStyle, usage_settings
from usage_tracking.periods import Period
from usage_tracking.quotas import Usage

__all__ = ["fields", "seconds_left"]

MAX_INTEGER: Final = 999_999_999_999_999
"""The largest whole number a structured field can hold (RFC 9651, section 3.3.1); limits can be larger."""


def fields(usage: Usage, now: datetime) -> dict[str, str]:
    """Return the header fields that HEADERS asks for; none when the meter is unlimited."""
    if usage.limit is None:
        return {}
    styles = usage_settings.HEADERS
    found = _ietf(usage, now) if HeaderStyle.IETF in styles else {}
    return {**found, **_x_ratelimit(usage, now)} if HeaderStyle.X_RATELIMIT in styles else found


def seconds_left(usage: Usage, now: datetime) -> int | None:
    """Return the seconds until the quota resets, rounded up; None when that instant is not known."""
    resets_at = usage.resets_at
    return None if resets_at is None or resets_at <= now else math.ceil((resets_at - now).total_seconds())


def _ietf(usage: Usage, now: datetime) -> dict[str, str]:
    """Return RateLimit-Policy and RateLimit as draft-ietf-httpapi-ratelimit-headers-10 has them.

    `q` quota and `w` window in seconds, `r` remaining and `t` seconds until the reset. The draft still moves; this is
    the one place that follows it. A meter's name needs no escaping in a structured field (RFC 9651, section 3.3.3).
    """
    left = f'"{usage.meter}";r={min(usage.remaining or 0, MAX_INTEGER)}'
    if (seconds := seconds_left(usage, now)) is not None:
        left += f";t={seconds}"
    return {"RateLimit-Policy": _policy(usage.meter, usage.limit or 0, usage.period), "RateLimit": left}


@lru_cache(maxsize=1024)  # one for each plan, say
def _policy(meter: str, limit: int, period: Period) -> str:
    quota = f'"{meter}";q={min(limit, MAX_INTEGER)}'
    window = period.seconds
    return quota if window is None else f"{quota};w={window}"


def _x_ratelimit(usage: Usage, now: datetime) -> dict[str, str]:
    """Return the fields many clients know from GitHub's API; the reset is in seconds since the Unix epoch."""
    found = {"X-RateLimit-Limit": str(usage.limit), "X-RateLimit-Remaining": str(usage.remaining)}
    if usage.resets_at is not None and usage.resets_at > now:
        found["X-RateLimit-Reset"] = str(math.ceil(usage.resets_at.timestamp()))
    return found
