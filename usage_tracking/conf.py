"""The settings: one typed property per key of `USAGE_TRACKING = {...}`.

Nothing is read at import. A request asks for about ten settings, so a property checks the host's value when it is
first asked and keeps it until Django says that a setting has changed (`override_settings` does). The system checks
ask them all.
"""

import os
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from functools import cached_property, partial
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo

from django.conf import settings
from django.core.signals import setting_changed

from usage_tracking import setting_values as values
from usage_tracking.periods import DEFAULT_ANCHOR, UTC_ZONE, Bucket, ResetMode, ResetPeriod
from usage_tracking.quotas import Enforcement
from usage_tracking.setting_values import (
    METER_NAME_LENGTH,
    SETTING,
    CounterKind,
    Lease,
    LostLease,
    Meter,
    SettingError,
    nearest,
    suggestion,
)

__all__ = [
    "API_KEY_VARIABLE",
    "METER_NAME_LENGTH",
    "SETTING",
    "CounterError",
    "CounterKind",
    "EventDispatch",
    "HeaderStyle",
    "Lease",
    "LostLease",
    "Meter",
    "SettingError",
    "UsageSettings",
    "given",
    "label_of",
    "nearest",
    "suggestion",
    "usage_settings",
]

Value = TypeVar("Value")

API_KEY_VARIABLE: Final = "USAGE_TRACKING_API_KEY"


class CounterError(StrEnum):
    """What a door does with a request whose usage could not be counted."""

    ALLOW = "allow"
    REFUSE = "refuse"


class EventDispatch(StrEnum):
    """Who delivers the events of the outbox once they are committed."""

    INLINE = "inline"
    CELERY = "celery"


class HeaderStyle(StrEnum):
    """Which fields tell the caller of a counted response what is left."""

    IETF = "ietf"
    X_RATELIMIT = "x-ratelimit"


class UsageSettings:
    """One property per key, named like it; the last line of its docstring is the default.

    PLANS may be a callable, which is asked each time.

    Reading one raises SettingError when the host's value has the wrong type or is out of range.
    """

    @classmethod
    def keys(cls) -> list[str]:
        """Return the name of every key, in the order of this class."""
        return [name for name in vars(cls) if name.isupper()]

    # -- what is counted -----------------------------------------------------------------------------------------------

    @cached_property
    def ENABLED(self) -> bool:
        """Whether anything is counted or refused at all.

        Default: `True`
        """
        return _read("ENABLED", values.boolean, default=True)

    @cached_property
    def METERS(self) -> Mapping[str, Meter]:
        """The counted quantities by name: `{"tokens": {"label": "Tokens", "unit": "tokens", "default_limit": 50000}}`.

        The meter `api` is always there, described or not. `default_limit` is what holds where a plan is silent: left
        out, DEFAULT_LIMIT for `api` and unlimited for any other. Names are up to 64 lower-case ASCII letters, digits,
        `_` and `-`, and begin with a letter. `counter` is COUNTER for one meter.

        Default: `{}`
        """
        return values.meters(self.DEFAULT_LIMIT, "METERS", given().get("METERS", {}))

    @cached_property
    def PATHS(self) -> tuple[str, ...]:
        """Requests whose path begins with one of these are counted.

        With an empty list none are: only what you give to `consume()` and `record()` counts.

        Default: `["/api/"]`
        """
        return _read("PATHS", partial(values.list_of, values.path), default=("/api/",))

    @cached_property
    def EXEMPT_PATHS(self) -> tuple[str, ...]:
        """Requests whose path begins with one of these are not counted, whatever PATHS says.

        Default: `[]`
        """
        return _read("EXEMPT_PATHS", partial(values.list_of, values.path), default=())

    @cached_property
    def EXEMPT_METHODS(self) -> tuple[str, ...]:
        """HTTP methods that are not counted, in upper case. CORS preflights are OPTIONS.

        A view that answers them with its payload gives it away: restrict its methods (`require_safe`, say).

        Default: `["OPTIONS"]`
        """
        return _read("EXEMPT_METHODS", partial(values.list_of, values.method), default=("OPTIONS",))

    @cached_property
    def ORGANIZATION_RESOLVER(self) -> Callable[[Any], Any]:
        """The function `request → organization | None`, or its dotted path; it may be async.

        Default: `"usage_tracking.resolvers.default_resolver"`
        """
        default = "usage_tracking.resolvers.default_resolver"
        return values.function("ORGANIZATION_RESOLVER", given().get("ORGANIZATION_RESOLVER", default))

    # -- quotas --------------------------------------------------------------------------------------------------------

    @cached_property
    def DEFAULT_LIMIT(self) -> int | None:
        """The limit of the meter `api` where a plan is silent; `None` = unlimited, `0` = nothing allowed.

        Default: `1000`
        """
        default: int | None = 1000
        return _read("DEFAULT_LIMIT", values.limit, default=default)

    @cached_property
    def DEFAULT_PLAN(self) -> str:
        """The plan of an organization that names none; it need not be in PLANS.

        Default: `"free"`
        """
        return _read("DEFAULT_PLAN", values.string, default="free")

    @property
    def PLANS(self) -> Mapping[str, Any]:
        """`{name: {"limits": {meter: n}, "features": {…}, "enforcement": …, "reset_period": …}}`.

        Or a callable that returns it, or its dotted path. Everything in a plan may be left out. A plan is validated
        when it is read, and all of them by the system checks.

        Default: `{}`
        """
        ask = self.plans_callable
        return _read("PLANS", values.mapping, default={}) if ask is None else values.mapping("PLANS", ask())

    @cached_property
    def plans_callable(self) -> Callable[[], Any] | None:
        """What PLANS names instead of a dict; None when it is one."""
        plans = given().get("PLANS")
        return values.function("PLANS", plans) if isinstance(plans, str) or callable(plans) else None

    @cached_property
    def ENFORCEMENT(self) -> Enforcement:
        """What happens at the limit: `"hard"` refuses, `"soft"` counts the overage, `"shadow"` also logs it.

        Default: `"hard"`
        """
        return _read("ENFORCEMENT", partial(values.choice, Enforcement), default=Enforcement.HARD)

    @cached_property
    def THRESHOLDS(self) -> tuple[int, ...]:
        """Whole percents of the limit that are announced by `usage_warning`, lowest first.

        From 1 to 1000, without 100: reaching the limit is always announced, by `limit_exceeded`.

        Default: `[80]`
        """
        default: tuple[int, ...] = (80,)
        return tuple(sorted(set(_read("THRESHOLDS", partial(values.list_of, values.threshold), default=default))))

    # -- periods -------------------------------------------------------------------------------------------------------

    @cached_property
    def RESET_MODE(self) -> ResetMode:
        """Who closes a period: the next use after its end (`"lazy"`), a job (`"scheduled"`) or a person (`"manual"`).

        Default: `"lazy"`
        """
        return _read("RESET_MODE", partial(values.choice, ResetMode), default=ResetMode.LAZY)

    @cached_property
    def RESET_PERIOD(self) -> ResetPeriod:
        """How long a period is: `"hourly"`, `"daily"`, `"weekly"`, `"monthly"`, `"quarterly"` or `"yearly"`.

        Default: `"monthly"`
        """
        return _read("RESET_PERIOD", partial(values.choice, ResetPeriod), default=ResetPeriod.MONTHLY)

    @cached_property
    def ANCHOR(self) -> datetime:
        """Where periods are stepped from, ISO 8601 or a datetime; the default makes calendar periods.

        With an offset it is an instant, without one a wall time in the zone.

        Default: `"2001-01-01T00:00"`
        """
        return _read("ANCHOR", values.anchor, default=DEFAULT_ANCHOR)

    @cached_property
    def TIME_ZONE(self) -> ZoneInfo:
        """The IANA zone of organizations that name none.

        Default: `"UTC"`
        """
        return _read("TIME_ZONE", values.zone, default=UTC_ZONE)

    @cached_property
    def HISTORY_BUCKET(self) -> Bucket:
        """How long one row of history covers: `"day"` or `"hour"`.

        Default: `"day"`
        """
        return _read("HISTORY_BUCKET", partial(values.choice, Bucket), default=Bucket.DAY)

    @property
    def HISTORY_RETENTION_DAYS(self) -> int | None:
        """After how many days `prune_history()` deletes the history of closed periods; `None`: it keeps all.

        From 1 to 36,500. The periods themselves, with what they have used, stay.

        Default: `None`
        """
        return _read("HISTORY_RETENTION_DAYS", values.days, default=None)

    # -- how it is counted ---------------------------------------------------------------------------------------------

    @cached_property
    def COUNTER(self) -> CounterKind:
        """How amounts are taken: `"exact"`, one statement for each, or `"leased"`, from what a process has borrowed.

        Default: `"exact"`
        """
        return _read("COUNTER", partial(values.choice, CounterKind), default=CounterKind.EXACT)

    @cached_property
    def LEASE(self) -> Lease:
        """How the leased counter borrows: `{"SETTLE_SECONDS": 1, "EXPIRE_SECONDS": 30, "LOST": "charge"}`.

        Each process writes what it has spent every SETTLE_SECONDS (0.05 to 60). One that has not been heard of for
        EXPIRE_SECONDS (at least four times as long, at most 3600) is dead: what it had on lease counts as used
        (`"charge"`) or is given back (`"forgive"`, which may let more pass than the limit).

        Default: `{}`
        """
        return _read("LEASE", values.lease, default=Lease())

    @cached_property
    def leased_meters(self) -> frozenset[str]:
        """The meters that the leased counter counts."""
        return frozenset(
            name for name, meter in self.METERS.items() if (meter.counter or self.COUNTER) == CounterKind.LEASED
        )

    # -- requests ------------------------------------------------------------------------------------------------------

    @cached_property
    def REFUND_SERVER_ERRORS(self) -> bool:
        """Whether a request that ends in a 5xx, or that another throttle refuses with a 429, is given back.

        Default: `True`
        """
        return _read("REFUND_SERVER_ERRORS", values.boolean, default=True)

    @cached_property
    def ON_COUNTER_ERROR(self) -> CounterError:
        """What happens to a request that cannot be counted: `"allow"`, or `"refuse"` with a 503.

        Default: `"allow"`
        """
        return _read("ON_COUNTER_ERROR", partial(values.choice, CounterError), default=CounterError.ALLOW)

    @cached_property
    def HEADERS(self) -> tuple[HeaderStyle, ...]:
        """The fields of counted responses: `"ietf"` (RateLimit), `"x-ratelimit"`, both or none.

        Default: `["ietf"]`
        """
        return _read(
            "HEADERS", partial(values.list_of, partial(values.choice, HeaderStyle)), default=(HeaderStyle.IETF,)
        )

    @cached_property
    def CHARGE_DATABASE(self) -> str | None:
        """The alias on which a charge inside a view's own transaction (ATOMIC_REQUESTS) is taken; `None`: it joins.

        Another entry of DATABASES for the same database, with `ATOMIC_REQUESTS` False.

        Default: `None`
        """
        return _read("CHARGE_DATABASE", values.alias, default=None)

    @cached_property
    def EVENT_DISPATCH(self) -> EventDispatch:
        """Who sends the signals: `"inline"`, this process after the commit, or `"celery"`.

        Default: `"inline"`
        """
        return _read("EVENT_DISPATCH", partial(values.choice, EventDispatch), default=EventDispatch.INLINE)

    # -- machines ------------------------------------------------------------------------------------------------------

    @property
    def API_KEYS(self) -> tuple[str, ...]:
        """Each of these keys may start the scheduled reset by HTTP; without one nobody may.

        Left out, the environment variable `USAGE_TRACKING_API_KEY` is the only key. List the old and the new one while
        you replace a key. Keys are visible ASCII characters without spaces; keep them out of your repository.

        Default: `[]`
        """
        # Not kept: that the environment has changed nobody would tell.
        key = os.environ.get(API_KEY_VARIABLE, "").strip()
        return values.api_keys("API_KEYS", given().get("API_KEYS", [key] if key else []))


usage_settings = UsageSettings()


def given() -> Mapping[str, Any]:
    """Return what the host has set, unchecked. Raises SettingError when it is no dict."""
    return values.mapping("", getattr(settings, SETTING, {}))


def label_of(meter: str) -> str:
    """Return what METERS calls the meter; its name, if they no longer have it."""
    known = usage_settings.METERS.get(meter)
    return meter if known is None else str(known.label)


def _read(key: str, check: Callable[[str, Any], Value], *, default: Value) -> Value:
    host = given()
    return check(key, host[key]) if key in host else default


def _forget(**_: Any) -> None:
    """Receiver of `setting_changed`. Any setting will do: what is valid may depend on DATABASES, say."""
    vars(usage_settings).clear()


setting_changed.connect(_forget, dispatch_uid="usage_tracking.conf")
