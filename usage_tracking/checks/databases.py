"""The connections that usage is counted on. Without `--database` they are looked at, not opened."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from django.core.checks import CheckMessage, Error, Info, Warning  # noqa: A004 - Django's name for it
from django.db import connections, router

from usage_tracking.checks.settings import unless_settings_are_broken
from usage_tracking.checks.urls import views
from usage_tracking.conf import given, usage_settings
from usage_tracking.models import UsagePeriod

# By its name: only `api` knows the REST framework.
THROTTLE: Final = "usage_tracking.api.throttling.UsageThrottle"


@unless_settings_are_broken
def check_charge_database(**_: Any) -> Iterator[CheckMessage]:
    """A charge inside a view's transaction is taken on a connection of its own, to the same database."""
    home, alias = router.db_for_write(UsagePeriod), usage_settings.CHARGE_DATABASE
    if connections[home].vendor == "sqlite":
        return  # one writer at a time: a charge always joins
    ours = connections[home].settings_dict
    if alias is None:
        # What is leased keeps out of the view's transaction by itself.
        joins = ours["ATOMIC_REQUESTS"] and usage_settings.METERS.keys() - usage_settings.leased_meters
        if joins and _is_throttled():
            yield Warning(
                f"ATOMIC_REQUESTS is True on {home!r}, so UsageThrottle charges in the view's transaction: "
                "an organization's requests wait for each other's views, and a failing view takes its charge along.",
                hint=(
                    f"Repeat the entry {home!r} of DATABASES under another name with ATOMIC_REQUESTS False, and set "
                    "CHARGE_DATABASE to that name. Silence this warning if that is what you want."
                ),
                id="usage_tracking.W007",
            )
        return
    charging = connections[alias].settings_dict
    if differing := [key for key in ("ENGINE", "NAME", "HOST", "PORT") if str(ours[key]) != str(charging[key])]:
        yield Error(
            f"CHARGE_DATABASE is {alias!r}, but usage is on {home!r}: they differ in {', '.join(differing)}.",
            hint=f"Let the entry {alias!r} of DATABASES repeat {home!r}, but for ATOMIC_REQUESTS.",
            id="usage_tracking.E012",
        )
    if charging["ATOMIC_REQUESTS"]:
        yield Error(
            f"ATOMIC_REQUESTS is True on CHARGE_DATABASE, {alias!r}: a charge there is part of the view's transaction.",
            hint=f"Set ATOMIC_REQUESTS to False in DATABASES[{alias!r}].",
            id="usage_tracking.E013",
        )


def _is_throttled() -> bool:
    return any(_has_throttle(pattern.callback) for pattern in views())


def _has_throttle(view: Any) -> bool:
    # An action of a viewset may have its own: they are among its keywords.
    of_class = getattr(getattr(view, "cls", None), "throttle_classes", ())
    throttles = getattr(view, "initkwargs", {}).get("throttle_classes", of_class)
    bases = [base for throttle in throttles for base in throttle.__mro__]
    return any(f"{base.__module__}.{base.__qualname__}" == THROTTLE for base in bases)


@unless_settings_are_broken
def check_sqlite(**_: Any) -> Iterator[CheckMessage]:
    """SQLite knows UPDATE … RETURNING."""
    home = connections[router.db_for_write(UsagePeriod)]
    # It has come with INSERT … RETURNING, which Django asks for.
    if home.vendor == "sqlite" and not home.features.can_return_columns_from_insert:
        yield Error(
            f"The SQLite library of {home.alias!r} is too old to count usage: it lacks RETURNING.",
            hint="Use SQLite 3.35 or later, or another database.",
            id="usage_tracking.E015",
        )


@unless_settings_are_broken
def check_connections(**_: Any) -> Iterator[CheckMessage]:
    """A connection outlives its request."""
    for alias in dict.fromkeys([router.db_for_write(UsagePeriod), usage_settings.CHARGE_DATABASE]):
        # Opening a file costs nothing.
        if alias is None or connections[alias].vendor == "sqlite":
            continue
        entry = connections[alias].settings_dict
        if entry["CONN_MAX_AGE"] == 0 and not entry["OPTIONS"].get("pool"):
            yield Warning(
                f"Every request opens a connection to {alias!r}: that costs twenty times what counting does.",
                hint=(
                    f"Set CONN_MAX_AGE in DATABASES[{alias!r}], to 60 for example; under ASGI use a pool instead, on "
                    'PostgreSQL by "OPTIONS": {"pool": True}.'
                ),
                id="usage_tracking.W008",
            )


@unless_settings_are_broken
def check_counter(**_: Any) -> Iterator[CheckMessage]:
    """Leases are known where they fit, and not relied on where they do not."""
    home, leased = connections[router.db_for_write(UsagePeriod)], usage_settings.leased_meters
    if home.vendor == "sqlite":
        if leased and home.settings_dict["ATOMIC_REQUESTS"] and _is_throttled():
            yield Warning(
                f"UsageThrottle counts {', '.join(map(repr, sorted(leased)))} in the view's transaction, and borrows "
                f"nothing: ATOMIC_REQUESTS is True on {home.alias!r}, and beside it nobody writes to SQLite.",
                hint="Set ATOMIC_REQUESTS to False, or use PostgreSQL or MariaDB.",
                id="usage_tracking.W012",
            )
    # Whoever has named a counter has decided.
    elif (
        usage_settings.ENABLED
        and "COUNTER" not in given()
        and all(meter.counter is None for meter in usage_settings.METERS.values())
    ):
        yield Info(
            f"Each counted request is a statement and a commit on {home.alias!r}; the leased counter admits those of "
            "busy organizations from memory.",
            hint=(
                "Set COUNTER to 'leased' if single organizations send a process more than eight requests per second, "
                "else to 'exact'."
            ),
            id="usage_tracking.I001",
        )


@unless_settings_are_broken
def check_leasing(*, databases: Sequence[str] | None = None, **_: Any) -> Iterator[CheckMessage]:
    """The database can settle many leases at once."""
    home: Any = connections[router.db_for_write(UsagePeriod)]
    if home.alias not in (databases or ()) or home.vendor != "mysql" or not usage_settings.leased_meters:
        return
    if home.mysql_is_mariadb and home.mysql_version < (10, 6):
        version = ".".join(map(str, home.mysql_version))
        yield Error(
            f"Leases cannot be settled in {home.alias!r}: MariaDB {version} lacks JSON_TABLE.",
            hint="Use MariaDB 10.6 or later, or set COUNTER to 'exact'.",
            id="usage_tracking.E017",
        )
