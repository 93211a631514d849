"""The arithmetic of limits: pure, whole numbers only."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from usage_tracking.exceptions import InvalidAmount, InvalidChange
from usage_tracking.periods import Period

__all__ = [
    "DEFAULT_METER",
    "MAX_AMOUNT",
    "Charge",
    "Decision",
    "Enforcement",
    "Usage",
    "amount_at",
    "ceiling_of",
    "crossed",
    "next_announcement",
    "next_checkpoint",
    "overage",
    "percentage",
    "remaining",
    "validate_amount",
    "validate_count",
    "validate_limit",
]

DEFAULT_METER: Final = "api"
"""The meter that every project has: API requests."""

MAX_AMOUNT: Final = 2**53 - 1
"""The largest amount, limit and `used`: what a JSON number carries exactly (RFC 8259, section 6)."""


class Enforcement(StrEnum):
    """What happens at the limit."""

    HARD = "hard"
    """Refuse what does not fit."""
    SOFT = "soft"
    """Let it pass and count the overage."""
    SHADOW = "shadow"
    """Let it pass like soft, and log what hard would have refused."""


def validate_amount(amount: object, *, field: str = "amount") -> int:
    """Return `amount` if one call can consume it: an int from 1 to MAX_AMOUNT.

    Raises InvalidAmount naming `field`. A bool is no number here, nor is a float, even a whole one.
    """
    if type(amount) is not int or not 1 <= amount <= MAX_AMOUNT:
        message = f"{field} must be a whole number from 1 to {MAX_AMOUNT}, not {amount!r}."
        raise InvalidAmount(message, field=field)
    return amount


def validate_count(count: object, *, field: str = "used") -> int:
    """Return `count` if it can be a total: an int from 0 to MAX_AMOUNT. Raises InvalidAmount naming `field`."""
    if type(count) is not int or not 0 <= count <= MAX_AMOUNT:
        message = f"{field} must be a whole number from 0 to {MAX_AMOUNT}, not {count!r}."
        raise InvalidAmount(message, field=field)
    return count


def validate_limit(limit: object, *, field: str = "limit") -> int | None:
    """Return `limit` if it can be one: None (unlimited) or an int from 0 to MAX_AMOUNT.

    Raises InvalidChange naming `field`.
    """
    if limit is not None and (type(limit) is not int or not 0 <= limit <= MAX_AMOUNT):
        message = f"{field} must be None (unlimited) or a whole number from 0 to {MAX_AMOUNT}, not {limit!r}."
        raise InvalidChange(message, field=field)
    return limit


def remaining(used: int, limit: int | None) -> int | None:
    """Return what is left of `limit`, never below 0; None when unlimited."""
    return None if limit is None else max(limit - used, 0)


def overage(used: int, limit: int | None) -> int:
    """Return what was used past `limit`; 0 when unlimited."""
    return 0 if limit is None else max(used - limit, 0)


def percentage(used: int, limit: int | None) -> int | None:
    """Return the whole percent of `limit` that is used, rounded down.

    None when unlimited, 100 at limit 0. Past the limit it goes on past 100.
    """
    if limit is None:
        return None
    return used * 100 // limit if limit else 100


def amount_at(limit: int, percent: int) -> int:
    """Return the smallest `used`, at least 1, that is `percent` of `limit`."""
    return max(-(-limit * percent // 100), 1)


def crossed(used: int, limit: int | None, percents: Iterable[int]) -> list[int]:
    """Return those of `percents` that `used` has reached, lowest first."""
    if limit is None:
        return []
    return sorted(percent for percent in set(percents) if used >= amount_at(limit, percent))


def ceiling_of(limit: int | None, enforcement: Enforcement) -> int:
    """Return the highest `used` that a period may reach: the limit if it is held hard, else MAX_AMOUNT."""
    return limit if limit is not None and enforcement == Enforcement.HARD else MAX_AMOUNT


def next_announcement(used: int, limit: int | None, thresholds: Iterable[int]) -> int:
    """Return the lowest amount above `used` that is announced: a threshold or the limit; past MAX_AMOUNT if none."""
    if limit is None:
        return MAX_AMOUNT + 1
    amounts = [amount for percent in (*thresholds, 100) if (amount := amount_at(limit, percent)) > used]
    return min(amounts, default=MAX_AMOUNT + 1)


def next_checkpoint(
    used: int, limit: int | None, enforcement: Enforcement, thresholds: Iterable[int], *, on_lease: int = 0
) -> int:
    """Return the rail of an open period: the lowest `used` that a request must not reach unnoticed.

    That is the next threshold or the limit itself (both are announced), and the first unit past the limit, which hard
    enforcement refuses, or past MAX_AMOUNT: less what is on lease, for that is as good as used.
    """
    # Also when `used` is past it already, after the limit was lowered: nothing may pass unnoticed then.
    return min(ceiling_of(limit, enforcement) + 1 - on_lease, next_announcement(used, limit, thresholds))


# Each request makes one Usage and one Decision: they are not frozen, which would treble what that takes, and may be
# made by position, which halves it.


@dataclass(slots=True)
class Usage:
    """What an organization has used of a meter in its open period."""

    meter: str
    used: int
    limit: int | None
    period: Period
    enforcement: Enforcement
    expired: bool = False
    """Whether the period has ended and waits for the scheduled reset to close it."""

    @property
    def remaining(self) -> int | None:
        """What is left of the limit, never below 0; None when unlimited."""
        return remaining(self.used, self.limit)

    @property
    def overage(self) -> int:
        """What was used past the limit; 0 when unlimited."""
        return overage(self.used, self.limit)

    @property
    def percentage(self) -> int | None:
        """The whole percent of the limit that is used; None when unlimited, 100 at limit 0."""
        return percentage(self.used, self.limit)

    @property
    def resets_at(self) -> datetime | None:
        """When the period ends (aware, UTC); None under manual reset."""
        return self.period.end


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What was taken, and from where: all that a refund needs to know."""

    database: str
    organization_id: object
    meter: str
    amount: int
    period_id: int
    bucket_start: datetime
    joined: bool = False
    """Whether it belongs to the transaction that was open then: rolled back, it never was."""


@dataclass(slots=True)
class Decision:
    """The answer to one call of `consume()`; truthy when allowed."""

    allowed: bool
    amount: int
    usage: Usage
    """The state after the call: with the amount in it if it was taken."""
    charge: Charge | None = None
    """None when nothing was taken: refused, only asked, or counting is switched off."""

    def __bool__(self) -> bool:
        return self.allowed
