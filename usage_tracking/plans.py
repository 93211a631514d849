"""From plan, overrides and settings to the terms that govern an organization's meter. Reads nothing but memory.

A stored value that cannot be used (an unknown plan, a zone that has been renamed away) must not take the host down:
it is logged and the next source holds instead. Values on their way in are refused, by `entitlements.update_limits`.
"""

import logging
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, Literal, TypeVar
from zoneinfo import ZoneInfo

from usage_tracking.conf import Meter, SettingError, nearest, usage_settings
from usage_tracking.exceptions import InvalidChange, InvalidInput, UnknownMeter
from usage_tracking.models import UsageTrackedOrganization, check_features, check_limits, get_organization_model
from usage_tracking.periods import (
    Bucket,
    Calendar,
    Period,
    ResetMode,
    ResetPeriod,
    bucket_calendar,
    parse_anchor,
    parse_zone,
)
from usage_tracking.quotas import Enforcement, validate_limit

__all__ = [
    "Explanation",
    "Plan",
    "Sourced",
    "Terms",
    "basis_of",
    "meter_named",
    "meters_named",
    "plan_named",
    "plan_of",
    "sources_of",
    "terms_of",
]

logger = logging.getLogger(__name__)

Value = TypeVar("Value")
Source = Literal["override", "plan", "default"]


@dataclass(frozen=True, slots=True)
class Sourced(Generic[Value]):
    """A value, and which source it comes from: the organization's own override, its plan, or the settings."""

    value: Value
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One entry of PLANS, validated; None where the plan is silent."""

    name: str
    limits: Mapping[str, int | None]
    features: Mapping[str, bool | str | int | float]
    enforcement: Enforcement | None = None
    reset_period: ResetPeriod | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """All that decides what happens to an amount: the limit and how it is held, the calendar, the bucket size."""

    plan: str
    meter: str
    limit: int | None
    enforcement: Enforcement
    reset_mode: ResetMode
    calendar: Calendar
    buckets: Calendar

    def period_at(self, now: datetime) -> Period:
        """Return the period that a first use at `now` opens; under manual reset it begins now and has no end."""
        return Period(now, None) if self.reset_mode == ResetMode.MANUAL else self.calendar.period_at(now)

    def end_after(self, now: datetime) -> datetime | None:
        """Return the first period boundary after `now`; None under manual reset."""
        return None if self.reset_mode == ResetMode.MANUAL else self.calendar.next_boundary(now)

    def interval_at(self, instant: datetime, earliest: datetime) -> Period:
        """Return the period that contains `instant`, cut at `earliest`: where the one before it ended."""
        if self.reset_mode == ResetMode.MANUAL:
            return Period(earliest, None)
        interval = self.calendar.period_at(instant)
        return Period(max(interval.start, earliest), interval.end)

    def bucket_start_at(self, now: datetime, earliest: datetime) -> datetime:
        """Return where the bucket that contains `now` begins if nothing happened since `earliest`."""
        start = self.buckets.period_at(now).start
        if self.reset_mode != ResetMode.MANUAL:
            start = max(start, self.calendar.period_at(now).start)
        return max(start, earliest)

    def bucket_end_after(self, now: datetime) -> datetime:
        """Return where a bucket that is open at `now` ends: no bucket lies in two periods."""
        bucket_end = self.buckets.next_boundary(now)
        period_end = self.end_after(now)
        return bucket_end if period_end is None else min(bucket_end, period_end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What governs an organization's meter, and where each value comes from: override, plan or default."""

    meter: str
    plan: Sourced[str]
    limit: Sourced[int | None]
    enforcement: Sourced[Enforcement]
    reset_mode: Sourced[ResetMode]
    reset_period: Sourced[ResetPeriod]
    anchor: Sourced[datetime]
    time_zone: Sourced[ZoneInfo]
    features: Mapping[str, Sourced[bool | str | int | float]]


PLAN_KEYS: Final = ("limits", "features", "enforcement", "reset_period")


def meter_named(name: object, *, field: str = "meter") -> Meter:
    """Return the meter of that name. Raises UnknownMeter naming `field`."""
    meters = usage_settings.METERS
    if isinstance(name, str) and name in meters:
        return meters[name]
    message = f"meter {name!r} is not in METERS.{nearest(name, list(meters))}"
    raise UnknownMeter(message, field=field)


def meters_named(names: Iterable[object] | None) -> list[Meter]:
    """Return the meters of those names, or all of METERS, which is read once. Raises UnknownMeter."""
    meters = usage_settings.METERS
    if names is None:
        return list(meters.values())
    return [meters[name] if isinstance(name, str) and name in meters else meter_named(name) for name in names]


def plan_named(name: str, plans: Mapping[str, Any] | None = None) -> Plan | None:
    """Return the plan of that name, None if PLANS has none. Raises SettingError when its entry is malformed."""
    plans = usage_settings.PLANS if plans is None else plans
    if name not in plans:
        return None
    key, entry = f"PLANS[{name!r}]", plans[name]
    if not isinstance(entry, Mapping):
        raise SettingError(key, f"must be a dict, not {entry!r}.")
    for unknown in entry.keys() - set(PLAN_KEYS):
        raise SettingError(key, f"has an unknown key {unknown!r}.{nearest(unknown, PLAN_KEYS)}")
    limits, features = entry.get("limits", {}), entry.get("features", {})
    try:
        check_limits(limits)
        check_features(features)
        enforcement = entry.get("enforcement")
        reset_period = entry.get("reset_period")
        return Plan(
            name=name,
            limits=limits,
            features=features,
            enforcement=None if enforcement is None else Enforcement(enforcement),
            reset_period=None if reset_period is None else ResetPeriod(reset_period),
        )
    except ValueError as error:
        raise SettingError(key, f"is malformed: {error}") from error


def plan_of(organization: UsageTrackedOrganization) -> Sourced[Plan]:
    """Return the organization's plan; an unknown one is logged and the default plan holds."""
    plans = usage_settings.PLANS
    default = usage_settings.DEFAULT_PLAN
    name = organization.get_usage_plan() or default
    source: Source = "default" if name == default and not organization.usage_plan else "override"
    plan = plan_named(name, plans)
    if plan is None and name != default:
        logger.warning("Organization %s has the plan %r, which PLANS lacks; using %r.", organization.pk, name, default)
        name, source = default, "default"
        plan = plan_named(name, plans)
    return Sourced(plan or Plan(name=name, limits={}, features={}), source)


def sources_of(organization: UsageTrackedOrganization, meter: Meter) -> Explanation:
    """Return what governs the organization's meter and where each value comes from: override, plan, default.

    Raises InvalidInput unless `organization` is an instance of the organization model, saved or not.
    """
    if not isinstance(organization, get_organization_model()):
        message = f"organization must be a {get_organization_model().__name__}, not {organization!r}."
        raise InvalidInput(message, field="organization")
    sourced_plan = plan_of(organization)
    plan = sourced_plan.value

    def choose(field: str, parse: Callable[[Any], Value], of_plan: Value | None, default: Value) -> Sourced[Value]:
        stored = getattr(organization, field)
        if stored:
            try:
                return Sourced(parse(stored), "override")
            except ValueError:
                logger.warning("Organization %s has an unusable %s %r; ignored.", organization.pk, field, stored)
        return Sourced(default, "default") if of_plan is None else Sourced(of_plan, "plan")

    return Explanation(
        meter=meter.name,
        plan=Sourced(plan.name, sourced_plan.source),
        limit=_limit_of(organization, plan, meter),
        enforcement=choose("usage_enforcement", Enforcement, plan.enforcement, usage_settings.ENFORCEMENT),
        reset_mode=choose("usage_reset_mode", ResetMode, None, usage_settings.RESET_MODE),
        reset_period=choose("usage_reset_period", ResetPeriod, plan.reset_period, usage_settings.RESET_PERIOD),
        anchor=choose("usage_anchor", parse_anchor, None, usage_settings.ANCHOR),
        time_zone=choose("usage_time_zone", parse_zone, None, usage_settings.TIME_ZONE),
        features=_features_of(organization, plan),
    )


def terms_of(organization: UsageTrackedOrganization, meter: Meter) -> Terms:
    """Return the terms that govern the organization's meter now."""
    sources = sources_of(organization, meter)
    zone = sources.time_zone.value
    bucket: Bucket = usage_settings.HISTORY_BUCKET
    return Terms(
        plan=sources.plan.value,
        meter=meter.name,
        limit=sources.limit.value,
        enforcement=sources.enforcement.value,
        reset_mode=sources.reset_mode.value,
        calendar=Calendar(sources.reset_period.value, sources.anchor.value, zone),
        buckets=bucket_calendar(bucket, zone),
    )


def basis_of(organization: UsageTrackedOrganization) -> Hashable:
    """Return all that the terms of an organization's meters come from: organizations that agree in it share them."""
    return (
        organization.get_usage_plan(),
        repr(organization.usage_limits),
        organization.usage_enforcement,
        organization.usage_reset_mode,
        organization.usage_reset_period,
        organization.usage_anchor,
        organization.usage_time_zone,
    )


def _limit_of(organization: UsageTrackedOrganization, plan: Plan, meter: Meter) -> Sourced[int | None]:
    overrides = _stored_mapping(organization, "usage_limits")
    if meter.name in overrides:
        try:
            return Sourced(validate_limit(overrides[meter.name]), "override")
        except InvalidChange as error:
            logger.warning("Organization %s has an unusable usage limit; ignored: %s", organization.pk, error)
    if meter.name in plan.limits:
        return Sourced(plan.limits[meter.name], "plan")
    return Sourced(meter.default_limit, "default")


def _features_of(organization: UsageTrackedOrganization, plan: Plan) -> Mapping[str, Sourced[bool | str | int | float]]:
    features: dict[str, Sourced[bool | str | int | float]] = {
        name: Sourced(value, "plan") for name, value in plan.features.items()
    }
    for name, value in _stored_mapping(organization, "usage_features").items():
        try:
            check_features({name: value})
        except InvalidInput as error:
            logger.warning("Organization %s has an unusable usage feature; ignored: %s", organization.pk, error)
        else:
            features[name] = Sourced(value, "override")
    return features


def _stored_mapping(organization: UsageTrackedOrganization, field: str) -> Mapping[str, Any]:
    stored = getattr(organization, field)
    if isinstance(stored, Mapping):
        return stored
    logger.warning("Organization %s has an unusable %s %r; ignored.", organization.pk, field, stored)
    return {}
