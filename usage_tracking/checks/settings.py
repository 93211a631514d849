"""What the settings say: keys and their values."""

import functools
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's name for it
from django.db import DatabaseError

from usage_tracking.conf import SETTING, EventDispatch, SettingError, UsageSettings, given, nearest, usage_settings
from usage_tracking.plans import plan_named


def unless_settings_are_broken(check: Callable[..., Iterator[CheckMessage]]) -> Callable[..., list[CheckMessage]]:
    """Silence a check that cannot run because of what `check_settings` reports."""

    @functools.wraps(check)
    def run(**kwargs: Any) -> list[CheckMessage]:
        try:
            return list(check(**kwargs))
        except SettingError:
            return []

    return run


def check_settings(**_: Any) -> Iterator[CheckMessage]:
    """Every key is known, and every property returns a value."""
    try:
        keys = given().keys()
    except SettingError as error:
        hint = f"Write {SETTING} = {{…}}, or leave it out: every key has a default."
        yield Error(str(error), hint=hint, id="usage_tracking.E001")
        return
    known = UsageSettings.keys()
    for key in sorted(keys - set(known), key=str):
        hint = nearest(key, known).strip()
        yield Error(f"{SETTING} has an unknown key {key!r}.", hint=hint, id="usage_tracking.E002")
    for key in known:
        try:
            if key != "PLANS":
                getattr(usage_settings, key)
            elif usage_settings.plans_callable is None:  # one that is asked may ask a database in turn
                yield from _check_plans()
        except Exception as error:  # noqa: BLE001 - the host's module may raise anything while it is imported
            yield from _wrong(key, error)


def check_asked_plans(*, databases: Sequence[str] | None = None, **_: Any) -> Iterator[CheckMessage]:
    """Every plan is valid, where PLANS names a callable; it may ask a database."""
    try:
        if not databases or usage_settings.plans_callable is None:
            return
    except Exception:  # noqa: BLE001 - `check_settings` reports it
        return
    try:
        yield from _check_plans()
    except DatabaseError:
        pass  # its table may be what `migrate` is about to make
    except Exception as error:  # noqa: BLE001 - the host's callable may raise anything
        yield from _wrong("PLANS", error)


def _check_plans() -> Iterator[CheckMessage]:
    plans = usage_settings.PLANS
    for name in plans:
        if not isinstance(name, str) or not name:
            yield from _wrong("PLANS", SettingError(f"PLANS[{name!r}]", "is no name: a plan's is a string, not empty."))
            continue
        try:
            plan_named(name, plans)
        except SettingError as error:
            yield from _wrong("PLANS", error)
    default = usage_settings.DEFAULT_PLAN
    if plans and default not in plans:
        yield Warning(
            f"The default plan {default!r} is not in PLANS: organizations without a plan have the meters' default "
            "limits and no features.",
            hint=f"Add it to PLANS, or name another in DEFAULT_PLAN.{nearest(default, [str(name) for name in plans])}",
            id="usage_tracking.W004",
        )


def _wrong(key: str, error: Exception) -> Iterator[CheckMessage]:
    if not isinstance(error, SettingError):
        error = SettingError(key, f"cannot be read: {error!r}.")
    # A key that this one needs speaks for itself.
    if error.key.partition("[")[0] == key:
        meaning = " ".join((getattr(UsageSettings, key).__doc__ or "").split())  # none under `python -OO`
        yield Error(str(error), hint=f"{key}: {meaning}", id="usage_tracking.E003")


def check_time_zones(**_: Any) -> Iterator[CheckMessage]:
    """Django stores instants."""
    if not settings.USE_TZ:
        yield Error(
            "USE_TZ is False, but usage is counted in periods from one instant to another.",
            hint="Set USE_TZ = True, Django's default.",
            id="usage_tracking.E010",
        )


@unless_settings_are_broken
def check_celery(**_: Any) -> Iterator[CheckMessage]:
    """Celery is there, if it is to deliver events."""
    if usage_settings.EVENT_DISPATCH == EventDispatch.CELERY and find_spec("celery") is None:
        yield Error(
            "EVENT_DISPATCH is 'celery', but Celery is not installed.",
            hint="Run `pip install django-usage-tracking[celery]`, or set EVENT_DISPATCH to 'inline'.",
            id="usage_tracking.E011",
        )


@unless_settings_are_broken
def check_api_keys(**_: Any) -> Iterator[CheckMessage]:
    """One key is open, except while it is replaced."""
    count = len(usage_settings.API_KEYS)
    if count > 1:
        yield Warning(
            f"API_KEYS has {count} keys, and each of them opens the scheduled reset.",
            hint="Remove the old key once every machine has the new one.",
            id="usage_tracking.W010",
        )


@unless_settings_are_broken
def check_lease(**_: Any) -> Iterator[CheckMessage]:
    """LEASE is for meters that are leased."""
    if "LEASE" in given() and not usage_settings.leased_meters:
        yield Warning(
            "LEASE says how to borrow, but no meter is counted by the leased counter.",
            hint="Set COUNTER, or the 'counter' of a meter in METERS, to 'leased'; or remove LEASE.",
            id="usage_tracking.W011",
        )
