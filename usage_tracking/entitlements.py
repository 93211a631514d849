"""What an organization may have: limits, plans and features, asked and changed."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, StrEnum
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.db import DatabaseError, connections, router
from django.db.models import QuerySet

from usage_tracking.conf import nearest, usage_settings
from usage_tracking.counters import settled
from usage_tracking.deadlocks import retried
from usage_tracking.exceptions import InvalidChange, InvalidInput
from usage_tracking.ledger import instant, is_governed_by
from usage_tracking.models import (
    MAX_FEATURES,
    UsageEvent,
    UsagePeriod,
    UsageTrackedOrganization,
    check_features,
    check_plan,
    get_organization_model,
)
from usage_tracking.organizations import database_of, key_of
from usage_tracking.periods import ResetMode, ResetPeriod, parse_anchor, parse_zone
from usage_tracking.plans import Explanation, meter_named, sources_of, terms_of
from usage_tracking.quotas import DEFAULT_METER, Enforcement, validate_limit
from usage_tracking.selections import in_batches

__all__ = [
    "INHERIT",
    "SyncReport",
    "achanges_of",
    "aexplain",
    "afeature",
    "ahas_feature",
    "async_all_limits",
    "async_limits",
    "aupdate_limits",
    "changes_of",
    "explain",
    "feature",
    "has_feature",
    "sync_all_limits",
    "sync_limits",
    "update_limits",
]

logger = logging.getLogger(__name__)

INHERIT: Final = "inherit"
"""Drop the override of a limit or a feature: the plan, else the default, holds again."""


class _Unchanged(Enum):
    UNCHANGED = "unchanged"


UNCHANGED: Final = _Unchanged.UNCHANGED


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """What one run of `sync_all_limits()` did."""

    organizations: int
    """Organizations looked at."""
    synced: int
    """Those whose open periods were governed by something else, and are not any more."""
    failed: int = 0
    """Those that could not be synced; each is in the log."""


def explain(organization: UsageTrackedOrganization, meter: str = DEFAULT_METER) -> Explanation:
    """Return what limit, plan, mode, calendar and features an organization has, and why. Raises UnknownMeter."""
    return sources_of(organization, meter_named(meter))


def feature(
    organization: UsageTrackedOrganization, name: str, *, default: bool | str | float | None = None
) -> bool | str | int | float | None:
    """Return the value of a feature: the organization's own, else its plan's, else `default`."""
    sourced = sources_of(organization, meter_named(DEFAULT_METER)).features.get(name)
    return default if sourced is None else sourced.value


def has_feature(organization: UsageTrackedOrganization, name: str) -> bool:
    """Return whether the organization has a feature: its value is truthy (not false, 0 or "")."""
    return bool(feature(organization, name))


@retried
def sync_limits(organization: UsageTrackedOrganization, *, now: datetime | None = None) -> None:
    """Derive the open periods of an organization again, from its stored row, PLANS and the settings.

    `organization.save()` does this by itself; call it after a `QuerySet.update()` or an edit of PLANS that should
    hold before the next bucket begins. Raises OrganizationGone.
    """
    with settled(key_of(organization), every=True, now=instant(now), using=database_of(organization)):
        pass  # opening and closing the ledgers is what does it


def sync_all_limits(
    organizations: QuerySet[Any] | None = None,
    *,
    now: datetime | None = None,
    progress: Callable[[int], None] | None = None,
) -> SyncReport:
    """Do `sync_limits()` for each of `organizations` (default: all) whose open periods do not hold to its terms.

    What is governed rightly is read and not locked: two queries for many organizations. One that cannot be synced
    (its `get_usage_plan()` raises, say) is logged and stands in nobody's way. `progress` is called with how many
    organizations have just been looked at.
    """
    now = instant(now)
    using = router.db_for_write(UsagePeriod)
    if organizations is None:
        organizations = get_organization_model()._base_manager.using(using)
    known = usage_settings.METERS
    seen = synced = failed = 0
    for batch in in_batches(organizations):
        by_key = {organization.pk: organization for organization in batch}
        rows: dict[object, list[UsagePeriod]] = {}
        for row in UsagePeriod.objects.using(using).filter(
            organization_id__in=list(by_key), is_open=True, meter__in=list(known)
        ):
            rows.setdefault(row.organization_id, []).append(row)
        for key, open_rows in rows.items():
            try:
                synced += _hold_to_terms(by_key[key], open_rows, now)
            except Exception:
                logger.exception("The open periods of organization %s were not synced.", key)
                failed += 1
        seen += len(batch)
        if progress is not None:
            progress(len(batch))
    return SyncReport(organizations=seen, synced=synced, failed=failed)


@retried
def update_limits(
    organization: UsageTrackedOrganization,
    *,
    limits: Mapping[str, int | str | None] | _Unchanged = UNCHANGED,
    plan: str | _Unchanged = UNCHANGED,
    features: Mapping[str, bool | str | float | None] | _Unchanged = UNCHANGED,
    reset_mode: str | _Unchanged = UNCHANGED,
    reset_period: str | _Unchanged = UNCHANGED,
    anchor: str | datetime | _Unchanged = UNCHANGED,
    time_zone: str | _Unchanged = UNCHANGED,
    enforcement: str | _Unchanged = UNCHANGED,
    precondition: Callable[[UsageTrackedOrganization], object] | None = None,
    actor: Any = None,
    reason: str = "",
    now: datetime | None = None,
) -> dict[str, dict[str, Any]]:
    """Change an organization's quotas: at once, under lock, with an audit event and the `limits_updated` signal.

    limits
        {meter: limit}, merged meter by meter: an int, None (unlimited) or "inherit" (drop the override)
    features
        {name: value}, merged name by name: a bool, string or number, or "inherit"
    plan, reset_mode, reset_period, anchor, time_zone, enforcement
        a value, or "" for what the plan or the settings say
    precondition
        called with the organization as it is stored, under the lock and before anything changes; what it raises
        goes to the caller, and nothing has changed then

    Only these fields are written, and `organization` is refreshed with them. A new mode, period, anchor or zone keeps
    the open period's start and usage and moves its end to the first new boundary. Returns what changed,
    {field: {"old": …, "new": …}}; nothing is recorded when nothing did. Raises InvalidInput naming the field
    (InvalidChange, UnknownMeter) or OrganizationGone, and then nothing has changed.
    """
    scalars, merges = _wanted(
        limits=limits,
        features=features,
        plan=plan,
        reset_mode=reset_mode,
        reset_period=reset_period,
        anchor=anchor,
        time_zone=time_zone,
        enforcement=enforcement,
    )
    now = instant(now)
    using = database_of(organization)
    # The meter that the event is about is opened even if it was never used, so that the event has a state to tell.
    about = next(iter(merges.get("limits", ())), DEFAULT_METER)
    with settled(key_of(organization), about, every=True, now=now, using=using) as ledgers:
        stored = ledgers[0].organization
        if precondition is not None:
            precondition(stored)
        changes = _apply(stored, scalars, merges)
        if changes:
            written = {f"usage_{field}": getattr(stored, f"usage_{field}") for field in changes}
            type(stored)._base_manager.using(using).filter(pk=stored.pk).update(**written)
            for ledger in ledgers:
                ledger.govern(terms_of(stored, meter_named(ledger.terms.meter)))
            told = next(ledger for ledger in ledgers if ledger.terms.meter == about)
            told.record(UsageEvent.Kind.LIMITS_UPDATED, actor=actor, reason=reason, changes=changes)
    for name in [*scalars, *merges]:
        setattr(organization, f"usage_{name}", getattr(stored, f"usage_{name}"))
    return changes


def changes_of(organization: UsageTrackedOrganization, **wanted: Any) -> dict[str, dict[str, Any]]:
    """Set on the instance what `update_limits` would, and return what it would; writes and asks nothing.

    For a preview: hand it a copy, and ask `explain` about that. `wanted` are the arguments of `update_limits` from
    `limits` to `enforcement`. Raises InvalidInput naming the field.
    """
    return _apply(organization, *_wanted(**wanted))


def follow_save(*, instance: UsageTrackedOrganization, created: bool, raw: bool, using: str, **_: Any) -> None:
    """Receiver of `post_save`: hold the open periods to an organization that was saved with other terms.

    A billing webhook that saves `usage_plan` needs no call of ours. Nothing is locked unless something differs. What
    goes wrong here (PLANS raises, say) is logged and does not concern the save: the next bucket is governed anew.
    """
    # A copy in another database does not hold the usage.
    if created or raw or database_of(instance) != using:
        return
    try:
        _follow(instance, using)
    except Exception as error:
        if isinstance(error, DatabaseError) and connections[using].in_atomic_block:
            raise  # the host's transaction is broken, and only the host can begin it again
        logger.exception("The open periods of organization %s could not follow its save.", instance.pk)


def _follow(organization: UsageTrackedOrganization, using: str) -> None:
    known = usage_settings.METERS
    rows = UsagePeriod.objects.using(using).filter(organization_id=organization.pk, is_open=True)
    if not (open_rows := list(rows.filter(meter__in=list(known)))):
        return
    if organization.get_deferred_fields():  # loaded at once, not one by one
        organization = organization.__class__._base_manager.using(using).get(pk=organization.pk)
    _hold_to_terms(organization, open_rows, instant(None))


def _hold_to_terms(organization: UsageTrackedOrganization, open_rows: list[UsagePeriod], now: datetime) -> bool:
    """Derive the open rows of an organization again unless they hold to its terms; return whether that was needed."""
    known = usage_settings.METERS
    if all(is_governed_by(row, terms_of(organization, known[row.meter]), now) for row in open_rows):
        return False
    sync_limits(organization, now=now)
    return True


achanges_of = sync_to_async(changes_of)
aexplain = sync_to_async(explain)
afeature = sync_to_async(feature)
ahas_feature = sync_to_async(has_feature)
async_limits = sync_to_async(sync_limits)
async_all_limits = sync_to_async(sync_all_limits)
aupdate_limits = sync_to_async(update_limits)


def _wanted(
    *, limits: Any = UNCHANGED, features: Any = UNCHANGED, **scalars: Any
) -> tuple[dict[str, str], dict[str, Mapping[str, Any]]]:
    """Return, validated, the fields to set and those to merge."""
    merges: dict[str, Mapping[str, Any]] = {}
    if limits is not UNCHANGED:
        merges["limits"] = _limits(limits)
    if features is not UNCHANGED:
        merges["features"] = _features(features)
    return {field: _scalar(field, value) for field, value in scalars.items() if value is not UNCHANGED}, merges


def _apply(
    stored: UsageTrackedOrganization, scalars: Mapping[str, str], merges: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Set the new values on `stored` and return what they change."""
    wanted: dict[str, Any] = dict(scalars)
    for field, merge in merges.items():
        current = getattr(stored, f"usage_{field}")
        merged = {**(current if isinstance(current, Mapping) else {}), **merge}
        wanted[field] = {key: value for key, value in merged.items() if value != INHERIT}
    if len(wanted.get("features", ())) > MAX_FEATURES:
        message = f"features would have more than {MAX_FEATURES} names."
        raise InvalidChange(message, field="features")
    changes = {}
    for field, new in wanted.items():
        old = getattr(stored, f"usage_{field}")
        # 1 == True, and a feature may change from one to the other.
        if repr(old) != repr(new) and not (isinstance(old, Mapping) and _same(old, new)):
            setattr(stored, f"usage_{field}", new)
            changes[field] = {"old": old, "new": new}
    return changes


def _same(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return old == new and all(type(old[key]) is type(new[key]) for key in old)


# -- validation --------------------------------------------------------------------------------------------------------


def _limits(limits: object) -> dict[str, int | str | None]:
    if not isinstance(limits, Mapping):
        message = f"limits must be a mapping of limits by meter, not {limits!r}."
        raise InvalidChange(message, field="limits")
    for meter, limit in limits.items():
        meter_named(meter, field="limits")
        if limit != INHERIT:
            validate_limit(limit, field=f"limits.{meter}")
    return dict(limits)


def _features(features: object) -> dict[str, Any]:
    try:
        check_features(features)
    except InvalidInput as error:
        raise InvalidChange(str(error), field=error.field) from error
    return dict(features)  # type: ignore[call-overload, no-any-return]


CHOICES: Final[dict[str, type[StrEnum]]] = {
    "reset_mode": ResetMode,
    "reset_period": ResetPeriod,
    "enforcement": Enforcement,
}
PARSERS: Final[dict[str, Callable[[str], object]]] = {"anchor": parse_anchor, "time_zone": parse_zone}


def _scalar(field: str, value: Any) -> str:
    """Return the text to store for one field. Raises InvalidChange naming it."""
    if field == "anchor" and isinstance(value, datetime):
        value = value.isoformat()
    if not isinstance(value, str):
        message = f"{field} must be a string, not {value!r}."
        raise InvalidChange(message, field=field)
    if not value:
        return value
    choices = list(CHOICES.get(field, ()))
    if choices and value not in choices:
        message = f"{field} cannot be {value!r}.{nearest(value, choices)}"
        raise InvalidChange(message, field=field)
    try:
        if field == "plan":
            check_plan(value)
        elif field in PARSERS:
            PARSERS[field](value)
    except ValueError as error:
        raise InvalidChange(str(error), field=field) from error
    return value
