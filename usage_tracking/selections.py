"""Which organizations, and in which order: querysets for API, admin and reports.

Each takes a queryset of organizations and narrows it down or sorts it, by what `usage_of` would tell about each: a
lazy period that has ended counts for nothing. All are one query, with a subquery on the open periods.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from django.db.models import Case, Exists, F, FloatField, IntegerField, OuterRef, Q, QuerySet, Subquery, Value, When
from django.db.models.functions import Cast, Coalesce
from django.db.models.lookups import GreaterThanOrEqual

from usage_tracking.conf import usage_settings
from usage_tracking.models import UsagePeriod
from usage_tracking.periods import ResetMode
from usage_tracking.quotas import DEFAULT_METER

__all__ = [
    "by_percentage",
    "by_used",
    "exceeded",
    "expired",
    "in_batches",
    "in_reset_mode",
    "near_limit",
    "on_plan",
]

Organizations = QuerySet[Any]

BATCH: Final = 500

USED_UP = Q(used__gte=F("limit"))
"""Also at limit 0, where nothing is allowed; never when unlimited."""


def near_limit(organizations: Organizations, *, now: datetime, meter: str | None = None) -> Organizations:
    """Return those that have reached the lowest of THRESHOLDS on a meter (default: any), but not its limit."""
    threshold = min([*usage_settings.THRESHOLDS, 100])
    near = Q(GreaterThanOrEqual(F("used") * 100, F("limit") * threshold)) & ~USED_UP
    return _with_period(organizations, _running(now) & near, meter)


def exceeded(organizations: Organizations, *, now: datetime, meter: str | None = None) -> Organizations:
    """Return those that have used a meter (default: any) up to its limit or past it."""
    return _with_period(organizations, _running(now) & USED_UP, meter)


def expired(organizations: Organizations, *, now: datetime, meter: str | None = None) -> Organizations:
    """Return those with a period (default: of any meter) that has ended and waits for the scheduled reset."""
    return _with_period(organizations, Q(reset_mode=ResetMode.SCHEDULED, end__lte=now), meter)


def on_plan(organizations: Organizations, plan: str) -> Organizations:
    """Return those whose `usage_plan` is `plan`; those that name none are on DEFAULT_PLAN.

    The stored field is what a database can ask for: a plan that `get_usage_plan()` computes is not found.
    """
    return organizations.filter(_says("usage_plan", plan, usage_settings.DEFAULT_PLAN))


def in_reset_mode(organizations: Organizations, mode: ResetMode) -> Organizations:
    """Return those that are reset in this mode; those that name none are in RESET_MODE."""
    return organizations.filter(_says("usage_reset_mode", mode, usage_settings.RESET_MODE))


def in_batches(organizations: Organizations) -> Iterator[list[Any]]:
    """Yield the organizations by their key, so many at a time that a million of them fit into memory."""
    ordered = organizations.order_by("pk")
    batch = list(ordered[:BATCH])
    while batch:
        yield batch
        batch = list(ordered.filter(pk__gt=batch[-1].pk)[:BATCH])


def by_used(
    organizations: Organizations, *, now: datetime, meter: str = DEFAULT_METER, descending: bool = False
) -> Organizations:
    """Return them in the order of what they have used of a meter; equal ones by their key."""
    used = Coalesce(Subquery(_running_periods(now, meter).values("used")[:1]), 0, output_field=IntegerField())
    return organizations.order_by(used.desc() if descending else used.asc(), "pk")


def by_percentage(
    organizations: Organizations, *, now: datetime, meter: str = DEFAULT_METER, descending: bool = False
) -> Organizations:
    """Return them in the order of how much of a meter's limit they have used; those without a limit are lowest.

    One without a running period has used nothing, whatever its limit. Equal ones come by their key.
    """
    # A fraction, not the whole percent: 80.1 % is more than 80 %.
    share = Case(
        When(limit=None, then=Value(-1.0)),
        When(limit=0, then=Value(1.0)),
        default=Cast(F("used"), FloatField()) / Cast(F("limit"), FloatField()),
        output_field=FloatField(),
    )
    periods = _running_periods(now, meter).annotate(usage_share=share).values("usage_share")[:1]
    percentage = Coalesce(Subquery(periods), 0.0, output_field=FloatField())
    return organizations.order_by(percentage.desc() if descending else percentage.asc(), "pk")


def _running_periods(now: datetime, meter: str) -> QuerySet[UsagePeriod]:
    return UsagePeriod.objects.filter(_running(now), organization=OuterRef("pk"), is_open=True, meter=meter)


def _says(field: str, value: str, default: str) -> Q:
    return Q(**{f"{field}__in": [value, ""]}) if value == default else Q(**{field: value})


def _running(now: datetime) -> Q:
    return Q(end=None) | Q(end__gt=now) | Q(reset_mode=ResetMode.SCHEDULED)


def _with_period(organizations: Organizations, condition: Q, meter: str | None) -> Organizations:
    periods = UsagePeriod.objects.filter(condition, organization=OuterRef("pk"), is_open=True)
    return organizations.filter(Exists(periods if meter is None else periods.filter(meter=meter)))
