"""What the value of a setting may be.

Each function takes the path of a value in `USAGE_TRACKING`, as SettingError wants it, and the value; it returns what
the property hands out, or raises SettingError.
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import Promise
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _

from usage_tracking.exceptions import UsageTrackingError
from usage_tracking.periods import parse_anchor, parse_zone
from usage_tracking.quotas import DEFAULT_METER, validate_limit

Value = TypeVar("Value")
Choice = TypeVar("Choice", bound=StrEnum)

SETTING: Final = "USAGE_TRACKING"

MAX_DAYS: Final = 36_500
"""A hundred years: so far back that no calendar overflows."""

METER_NAME_LENGTH: Final = 64
METER_NAME: Final = re.compile(rf"[a-z][a-z0-9_-]{{0,{METER_NAME_LENGTH - 1}}}")
"""It appears in header fields (RFC 9651 strings), URLs and JSON keys: nothing to escape anywhere."""
API_KEY: Final = re.compile(r"[!-~]+")
"""What a header field carries unchanged."""
METER_KEYS: Final = ("label", "unit", "default_limit", "counter")


class CounterKind(StrEnum):
    """Where an amount is taken."""

    EXACT = "exact"
    LEASED = "leased"


class LostLease(StrEnum):
    """What becomes of a lease whose holder has died."""

    CHARGE = "charge"
    FORGIVE = "forgive"


class SettingError(UsageTrackingError, ImproperlyConfigured):
    """A setting has a value that it cannot have.

    `key` is its path, like `METERS['api']['unit']`; it is empty when USAGE_TRACKING itself is none.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(key, problem)
        self.key = key
        self.problem = problem

    def __str__(self) -> str:
        name, bracket, rest = self.key.partition("[")
        path = f"{SETTING}[{name!r}]{bracket}{rest}" if name else SETTING
        return f"{path} {self.problem}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """A named counted quantity, as the METERS setting describes it."""

    name: str
    label: str | Promise
    """A string, or a lazy translation of one: in the language of whoever asks."""
    unit: str | Promise
    """As `label`."""
    default_limit: int | None
    counter: CounterKind | None = None
    """None = as COUNTER says."""


LEASE_KEYS: Final = ("SETTLE_SECONDS", "EXPIRE_SECONDS", "LOST")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """How the leased counter borrows, as the LEASE setting describes it."""

    settle_seconds: float = 1
    expire_seconds: float = 30
    lost: LostLease = LostLease.CHARGE


def nearest(word: object, known: Sequence[str]) -> str:
    """Return a hint, ` Did you mean 'x'?` or the list of known words, to end an error message with.

    In English, as all that is said of settings; `suggestion` is for what people ask for.
    """
    close = difflib.get_close_matches(str(word), known, n=1)
    return f" Did you mean {close[0]!r}?" if close else f" Known: {', '.join(known)}."


def suggestion(word: object, known: Sequence[str]) -> str:
    """Return the hint that `nearest` gives, in the language of whoever asks."""
    close = difflib.get_close_matches(str(word), known, n=1)
    if close:
        return " " + _("Did you mean %(word)r?") % {"word": close[0]}
    return " " + _("Known: %(words)s.") % {"words": ", ".join(known)}


def boolean(key: str, value: object) -> bool:
    """True or False, and nothing that merely counts as one."""
    if not isinstance(value, bool):
        raise SettingError(key, f"must be True or False, not {value!r}.")
    return value


def string(key: str, value: object) -> str:
    """A string with something in it."""
    if not isinstance(value, str) or not value:
        raise SettingError(key, f"must be a string that is not empty, not {value!r}.")
    return value


def mapping(key: str, value: object) -> Mapping[str, Any]:
    """A dict, whatever is in it."""
    if not isinstance(value, Mapping):
        raise SettingError(key, f"must be a dict, not {value!r}.")
    return value


def list_of(check: Callable[[str, Any], Value], key: str, value: object) -> tuple[Value, ...]:
    """A list, tuple or set of what `check` accepts."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence | set | frozenset):
        raise SettingError(key, f"must be a list, not {value!r}.")
    return tuple(check(key, item) for item in value)


def choice(kind: type[Choice], key: str, value: Any) -> Choice:
    """A member of `kind`, or its value."""
    try:
        return kind(value)
    except ValueError as error:
        hint = nearest(value, [member.value for member in kind])
        raise SettingError(key, f"cannot be {value!r}.{hint}") from error


def function(key: str, value: object) -> Callable[..., Any]:
    """A callable, or the dotted path of one."""
    if isinstance(value, str):
        try:
            value = import_string(value)
        except ImportError as error:
            raise SettingError(key, f"cannot be imported: {error}.") from error
    if not callable(value):
        raise SettingError(key, f"must be a callable or the dotted path of one, not {value!r}.")
    return value


def path(key: str, value: object) -> str:
    """What the path of a request may begin with."""
    if not isinstance(value, str) or not value.startswith("/"):
        raise SettingError(key, f"must list paths, which begin with '/', not {value!r}.")
    return value


def method(key: str, value: object) -> str:
    """An HTTP method as requests carry it: in upper case."""
    if not isinstance(value, str) or not value.isupper():
        raise SettingError(key, f"must list HTTP methods in upper case, not {value!r}.")
    return value


def limit(key: str, value: object) -> int | None:
    """A limit: None or a whole number."""
    try:
        return validate_limit(value)
    except ValueError as error:
        raise SettingError(key, f"cannot be used: {error}") from error


def days(key: str, value: object) -> int | None:
    """A number of days that a calendar can go back, or None."""
    if value is not None and (type(value) is not int or not 1 <= value <= MAX_DAYS):
        raise SettingError(key, f"must be None or a whole number from 1 to {MAX_DAYS}, not {value!r}.")
    return value


def seconds(key: str, value: Any, *, least: float, most: float) -> float:
    """A number of seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise SettingError(key, f"must be a number of seconds from {least:g} to {most:g}, not {value!r}.")
    return value


def threshold(key: str, value: object) -> int:
    """A percentage that can be announced."""
    if type(value) is not int or not 1 <= value <= 1000 or value == 100:
        reason = "the limit itself is always announced"
        raise SettingError(key, f"must list whole percents from 1 to 1000 other than 100 ({reason}), not {value!r}.")
    return value


def anchor(key: str, value: object) -> datetime:
    """An anchor of periods."""
    if not isinstance(value, str | date):
        raise SettingError(key, f"must be an ISO 8601 string or a datetime, not {value!r}.")
    try:
        return parse_anchor(value)
    except ValueError as error:
        raise SettingError(key, f"cannot be used: {error}.") from error


def zone(key: str, value: object) -> ZoneInfo:
    """The name of an IANA time zone."""
    try:
        return parse_zone(string(key, value))
    except ValueError as error:
        raise SettingError(key, f"cannot be used: {error}") from error


def alias(key: str, value: object) -> str | None:
    """The name of a database, or None."""
    aliases = list(settings.DATABASES)
    if value is not None and value not in aliases:
        raise SettingError(key, f"must be None or an alias of DATABASES, not {value!r}.{nearest(value, aliases)}")
    return value if value is None else str(value)


def api_keys(key: str, value: object) -> tuple[str, ...]:
    """A list of keys. What is wrong with one is said without showing it: messages end up in logs."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence | set | frozenset):
        raise SettingError(key, "must be a list of keys.")
    for position, item in enumerate(value):
        if not isinstance(item, str) or not API_KEY.fullmatch(item):
            raise SettingError(f"{key}[{position}]", "must be visible ASCII characters, without spaces.")
    return tuple(value)


def meters(default_limit: int | None, key: str, value: object) -> Mapping[str, Meter]:
    """Meters by name; `api`, which is always there, has `default_limit` unless it says otherwise."""
    described = {DEFAULT_METER: {}, **mapping(key, value)}
    defaults = {DEFAULT_METER: {"unit": "requests", "default_limit": default_limit}}
    return {
        name: _meter(f"{key}[{name!r}]", name, description, defaults.get(name, {}))
        for name, description in described.items()
    }


def _meter(key: str, name: object, description: object, defaults: Mapping[str, Any]) -> Meter:
    if not isinstance(name, str) or not METER_NAME.fullmatch(name):
        raise SettingError(
            key,
            f"is no meter name: up to {METER_NAME_LENGTH} lower-case ASCII letters, digits, '_' and '-', "
            "beginning with a letter.",
        )
    described = mapping(key, description)
    for unknown in described.keys() - set(METER_KEYS):
        raise SettingError(key, f"has an unknown key {unknown!r}.{nearest(unknown, METER_KEYS)}")
    described = {"label": name, "unit": "", "default_limit": None, **defaults, **described}
    return Meter(
        name=name,
        label=_text(f"{key}['label']", described["label"]),
        unit=_text(f"{key}['unit']", described["unit"]),
        default_limit=limit(f"{key}['default_limit']", described["default_limit"]),
        counter=choice(CounterKind, f"{key}['counter']", described["counter"]) if "counter" in described else None,
    )


def lease(key: str, value: object) -> Lease:
    """How to borrow: a holder has time to miss three of its four chances to settle before it is believed dead."""
    described = mapping(key, value)
    for unknown in described.keys() - set(LEASE_KEYS):
        raise SettingError(key, f"has an unknown key {unknown!r}.{nearest(unknown, LEASE_KEYS)}")
    settle = seconds(f"{key}['SETTLE_SECONDS']", described.get("SETTLE_SECONDS", 1), least=0.05, most=60)
    expire = described.get("EXPIRE_SECONDS", max(30, 4 * settle))
    return Lease(
        settle_seconds=settle,
        expire_seconds=seconds(f"{key}['EXPIRE_SECONDS']", expire, least=4 * settle, most=3600),
        lost=choice(LostLease, f"{key}['LOST']", described.get("LOST", LostLease.CHARGE)),
    )


def _text(key: str, value: object) -> str | Promise:
    if not isinstance(value, str | Promise):
        raise SettingError(key, f"must be a string, not {value!r}.")
    return value
