"""The settings: `USAGE_TRACKING = {...}` and `USAGE_TRACKING_ORGANIZATION_MODEL`.

Nothing is frozen at import: every property reads the host's settings when it is asked, so `override_settings`
works. Every property checks what it returns; the system checks ask them all.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from usage_tracking.exceptions import InvalidInput
from usage_tracking.periods import DEFAULT_ANCHOR, Bucket, ResetMode, ResetPeriod, parse_anchor, parse_zone
from usage_tracking.quotas import DEFAULT_METER, Enforcement, validate_limit

__all__ = ["Meter", "SettingError", "nearest", "usage_settings"]

Choice = TypeVar("Choice", bound=StrEnum)

METER_NAME_LENGTH: Final = 64


class SettingError(ImproperlyConfigured):
    """A setting has a value it cannot have; `key` is its path, like `METERS['api']['unit']`."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"USAGE_TRACKING[{key!r}] {problem}")
        self.key = key


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """A named counted quantity, as the METERS setting describes it."""

    name: str
    label: str
    unit: str
    default_limit: int | None


def nearest(word: object, known: Sequence[str]) -> str:
    """Return a hint, ` Did you mean 'x'?` or the list of known words, to end an error message with."""
    close = difflib.get_close_matches(str(word), known, n=1)
    return f" Did you mean {close[0]!r}?" if close else f" Known: {', '.join(known)}."


class UsageSettings:
    """One typed property per key of `USAGE_TRACKING`, with its default.

    Reading a property raises SettingError when the host's value has the wrong type or is out of range.
    """

    # -- what is counted ------------------------------------------------------------------------------------------

    @property
    def ENABLED(self) -> bool:
        """Whether anything is counted or refused at all (default True)."""
        return self._bool("ENABLED", default=True)

    @property
    def METERS(self) -> Mapping[str, Meter]:
        """The counted quantities by name: {"api": {"label", "unit", "default_limit"}, …}. `api` is always there.

        `default_limit` is what holds where a plan is silent; None (the default, but for `api`) is unlimited.
        """
        given = self._mapping("METERS")
        described: dict[str, Mapping[str, Any]] = {DEFAULT_METER: {}, **given}
        return {name: self._meter(name, description) for name, description in described.items()}

    @property
    def PATHS(self) -> Sequence[str]:
        """Requests whose path begins with one of these are counted (default ["/api/"])."""
        return self._strings("PATHS", ["/api/"])

    @property
    def EXEMPT_PATHS(self) -> Sequence[str]:
        """Requests whose path begins with one of these are not, whatever PATHS says (default [])."""
        return self._strings("EXEMPT_PATHS", [])

    @property
    def EXEMPT_METHODS(self) -> Sequence[str]:
        """HTTP methods that are not counted, in upper case (default ["OPTIONS"], for CORS preflights)."""
        return self._strings("EXEMPT_METHODS", ["OPTIONS"])

    @property
    def ORGANIZATION_RESOLVER(self) -> Callable[[Any], Any]:
        """The function `request → organization | None`, or its dotted path; may be async.

        Default: `usage_tracking.resolvers.default_resolver`.
        """
        return self._callable("ORGANIZATION_RESOLVER", "usage_tracking.resolvers.default_resolver")

    # -- quotas ---------------------------------------------------------------------------------------------------

    @property
    def DEFAULT_LIMIT(self) -> int | None:
        """The limit of the meter `api` where a plan is silent (default 1000; None = unlimited)."""
        return self._limit("DEFAULT_LIMIT", self._get("DEFAULT_LIMIT", 1000))

    @property
    def DEFAULT_PLAN(self) -> str:
        """The plan of an organization that names none (default "free"); it need not be in PLANS."""
        return self._string("DEFAULT_PLAN", "free")

    @property
    def PLANS(self) -> Mapping[str, Any]:
        """{name: {"limits": {meter: n}, "features": {…}, "enforcement": …, "reset_period": …}}, or a dotted path
        to a callable that returns it (default {}). One plan is validated when it is read, all by the system checks.
        """
        value = self._get("PLANS", {})
        if isinstance(value, str) or callable(value):
            value = self._callable("PLANS", value)()
        return self._as_mapping("PLANS", value)

    @property
    def ENFORCEMENT(self) -> Enforcement:
        """What happens at the limit: "hard" (default), "soft" or "shadow"."""
        return self._choice("ENFORCEMENT", Enforcement.HARD)

    @property
    def THRESHOLDS(self) -> Sequence[int]:
        """Whole percents of the limit that are announced by `usage_warning`, lowest first (default [80]).

        From 1 to 1000, without 100: reaching the limit is always announced, by `limit_exceeded`.
        """
        value = self._sequence("THRESHOLDS", [80])
        for percent in value:
            if type(percent) is not int or not 1 <= percent <= 1000 or percent == 100:
                raise SettingError(
                    "THRESHOLDS",
                    f"must list whole percents from 1 to 1000 other than 100 (reaching the limit is always announced), "
                    f"not {percent!r}.",
                )
        return sorted(set(value))

    # -- periods --------------------------------------------------------------------------------------------------

    @property
    def RESET_MODE(self) -> ResetMode:
        """Who closes a period that has ended: "lazy" (the next request, default), "scheduled" or "manual"."""
        return self._choice("RESET_MODE", ResetMode.LAZY)

    @property
    def RESET_PERIOD(self) -> ResetPeriod:
        """ "hourly", "daily", "weekly", "monthly" (default), "quarterly" or "yearly"."""
        return self._choice("RESET_PERIOD", ResetPeriod.MONTHLY)

    @property
    def ANCHOR(self) -> datetime:
        """Where periods are stepped from, ISO 8601 or datetime: an instant, or without offset a wall time in the
        zone (default 2001-01-01T00:00, which makes calendar periods).
        """
        value = self._get("ANCHOR", DEFAULT_ANCHOR)
        if not isinstance(value, str | date):
            raise SettingError("ANCHOR", f"must be an ISO 8601 string or a datetime, not {value!r}.")
        try:
            return parse_anchor(value)
        except ValueError as error:
            raise SettingError("ANCHOR", f"is not a usable anchor: {error}") from error

    @property
    def TIME_ZONE(self) -> ZoneInfo:
        """The IANA zone of organizations that name none (default "UTC")."""
        try:
            return parse_zone(self._string("TIME_ZONE", "UTC"))
        except ValueError as error:
            raise SettingError("TIME_ZONE", f"is not a known time zone: {error}") from error

    @property
    def HISTORY_BUCKET(self) -> Bucket:
        """How long one row of history covers: "day" (default) or "hour"."""
        return self._choice("HISTORY_BUCKET", Bucket.DAY)

    # -- requests -------------------------------------------------------------------------------------------------

    @property
    def REFUND_SERVER_ERRORS(self) -> bool:
        """Whether a request that ends in a 5xx is given back (default True)."""
        return self._bool("REFUND_SERVER_ERRORS", default=True)

    @property
    def ON_COUNTER_ERROR(self) -> CounterError:
        """What a door does when a request cannot be counted: "allow" it (default) or "refuse" it with a 503."""
        return self._choice("ON_COUNTER_ERROR", CounterError.ALLOW)

    @property
    def HEADERS(self) -> Sequence[HeaderStyle]:
        """The fields of counted responses: ["ietf"] (default), "x-ratelimit", both, or []."""
        return [self._member("HEADERS", HeaderStyle, value) for value in self._sequence("HEADERS", ["ietf"])]

    @property
    def CHARGE_DATABASE(self) -> str | None:
        """The alias on which a charge inside a view's own transaction is taken (default None: it joins)."""
        value = self._get("CHARGE_DATABASE", None)
        if value is not None and value not in settings.DATABASES:
            raise SettingError("CHARGE_DATABASE", f"must be an alias of DATABASES or None, not {value!r}.")
        return value if value is None else str(value)

    @property
    def EVENT_DISPATCH(self) -> EventDispatch:
        """Who sends the signals: "inline" (default, this process after the commit) or "celery"."""
        return self._choice("EVENT_DISPATCH", EventDispatch.INLINE)

    # -- reading and checking -------------------------------------------------------------------------------------

    @classmethod
    def keys(cls) -> list[str]:
        """Return the name of every key, in alphabetical order."""
        return sorted(name for name, value in vars(cls).items() if isinstance(value, property))

    @property
    def _given(self) -> Mapping[str, Any]:
        given = getattr(settings, "USAGE_TRACKING", {})
        if not isinstance(given, Mapping):
            message = f"USAGE_TRACKING must be a dict, not {given!r}."
            raise ImproperlyConfigured(message)
        return given

    def _get(self, key: str, default: Any) -> Any:
        return self._given.get(key, default)

    def _bool(self, key: str, *, default: bool) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise SettingError(key, f"must be True or False, not {value!r}.")
        return value

    def _string(self, key: str, default: str) -> str:
        value = self._get(key, default)
        if not isinstance(value, str) or not value:
            raise SettingError(key, f"must be a string that is not empty, not {value!r}.")
        return value

    def _sequence(self, key: str, default: Sequence[Any]) -> Sequence[Any]:
        value = self._get(key, default)
        if isinstance(value, str) or not isinstance(value, Sequence | set | frozenset):
            raise SettingError(key, f"must be a list, not {value!r}.")
        return list(value)

    def _strings(self, key: str, default: Sequence[str]) -> Sequence[str]:
        value = self._sequence(key, default)
        for item in value:
            if not isinstance(item, str) or not item:
                raise SettingError(key, f"must list strings that are not empty, not {item!r}.")
        return value

    def _mapping(self, key: str) -> Mapping[str, Any]:
        return self._as_mapping(key, self._get(key, {}))

    def _as_mapping(self, key: str, value: object) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise SettingError(key, f"must be a dict, not {value!r}.")
        return value

    def _member(self, key: str, kind: type[Choice], value: object) -> Choice:
        try:
            return kind(value)
        except ValueError as error:
            hint = nearest(value, [member.value for member in kind])
            raise SettingError(key, f"cannot be {value!r}.{hint}") from error

    def _choice(self, key: str, default: Choice) -> Choice:
        return self._member(key, type(default), self._get(key, default))

    def _limit(self, key: str, value: object) -> int | None:
        try:
            return validate_limit(value)
        except InvalidInput as error:
            raise SettingError(key, f"cannot be a limit: {error}") from error

    def _callable(self, key: str, default: str | Callable[..., Any]) -> Callable[..., Any]:
        value = self._get(key, default)
        if isinstance(value, str):
            try:
                value = import_string(value)
            except ImportError as error:
                raise SettingError(key, f"cannot be imported: {error}") from error
        if not callable(value):
            raise SettingError(key, f"must be a callable or the dotted path of one, not {value!r}.")
        return value  # type: ignore[no-any-return]

    def _meter(self, name: object, description: object) -> Meter:
        key = f"METERS[{name!r}]"
        if not isinstance(name, str) or not _is_meter_name(name):
            raise SettingError(
                key,
                f"is no meter name: up to {METER_NAME_LENGTH} lower-case ASCII letters, digits, '_' and '-', "
                "beginning with a letter.",
            )
        described = self._as_mapping(key, description)
        known = ["label", "unit", "default_limit"]
        for unknown in described.keys() - set(known):
            raise SettingError(key, f"has an unknown key {unknown!r}.{nearest(unknown, known)}")
        default = self.DEFAULT_LIMIT if name == DEFAULT_METER else None
        return Meter(
            name=name,
            label=described.get("label", name),
            unit=described.get("unit", "requests" if name == DEFAULT_METER else ""),
            default_limit=self._limit(f"{key}['default_limit']", described.get("default_limit", default)),
        )


def _is_meter_name(name: str) -> bool:
    # It appears in header fields (RFC 9651 strings), URLs and JSON keys: nothing to escape anywhere.
    return (
        name.isascii()
        and len(name) <= METER_NAME_LENGTH
        and name[:1].islower()
        and name.replace("_", "").replace("-", "").isalnum()
        and name == name.lower()
    )


usage_settings = UsageSettings()
