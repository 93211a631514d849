"""Who used how much: rows for a table, a spreadsheet or an invoice, told one by one however many there are."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from django.db import router
from django.db.models import QuerySet
from django.utils.translation import gettext

from usage_tracking.conf import usage_settings
from usage_tracking.exceptions import InvalidInput
from usage_tracking.history import HistoryBucket, HistoryPoint, boundaries_between, histories_of
from usage_tracking.ledger import instant
from usage_tracking.metering import usages_of
from usage_tracking.models import UsagePeriod, UsageTrackedOrganization, check_plan, get_organization_model
from usage_tracking.plans import meter_named, sources_of
from usage_tracking.quotas import DEFAULT_METER
from usage_tracking.selections import in_batches

__all__ = ["RangeRow", "StateRow", "range_report", "state_report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StateRow:
    """What one organization has used of one meter in its open period."""

    organization: object
    """Its key."""
    name: str
    plan: str
    meter: str
    used: int
    limit: int | None
    remaining: int | None
    overage: int
    percentage: int | None
    period_start: datetime
    """Aware, in the organization's time zone, as is `resets_at`."""
    resets_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeRow:
    """What one organization has used of one meter in [start, end)."""

    organization: object
    """Its key."""
    name: str
    plan: str
    """Its plan now."""
    meter: str
    start: datetime
    """Aware, in the organization's time zone, as is `end`."""
    end: datetime
    used: int
    refused: int


def state_report(
    organizations: QuerySet[Any] | None = None,
    *,
    plan: str | None = None,
    meters: Iterable[str] | None = None,
    now: datetime | None = None,
) -> Iterator[StateRow]:
    """Return a row for each organization (default: all) and meter (default: all), as `usage_of` tells it.

    `plan` keeps those that are on that plan, `get_usage_plan()` being asked. Raises UnknownMeter or InvalidInput
    naming `plan` or `now`, before anything is read.
    """
    now = instant(now)
    names = _checked(plan, meters)
    organizations = _all() if organizations is None else organizations

    def rows(organizations: QuerySet[Any]) -> Iterator[StateRow]:
        for members in _on_plan(organizations, plan):
            usages = usages_of([organization for organization, _, _ in members], names, now=now)
            for organization, current_plan, zone in members:
                for usage in usages[organization.pk].values():
                    yield StateRow(
                        organization=organization.pk,
                        name=str(organization),
                        plan=current_plan,
                        meter=usage.meter,
                        used=usage.used,
                        limit=usage.limit,
                        remaining=usage.remaining,
                        overage=usage.overage,
                        percentage=usage.percentage,
                        period_start=usage.period.start.astimezone(zone),
                        resets_at=usage.resets_at and usage.resets_at.astimezone(zone),
                    )

    return rows(organizations)


def range_report(
    organizations: QuerySet[Any] | None = None,
    *,
    since: date | datetime,
    until: date | datetime,
    bucket: HistoryBucket | None = None,
    plan: str | None = None,
    meters: Iterable[str] | None = None,
) -> Iterator[RangeRow]:
    """Return what each organization (default: all) has used of each meter from `since` to before `until`.

    A date is its midnight in each organization's own time zone, as an invoice needs it; a datetime (aware) is one
    instant for all. One row for the whole range, or one for each `bucket` ("hour", "day", "week", "month"),
    zero-filled, oldest first; buckets at the ends are whole. `plan` is as in `state_report()`. Raises UnknownMeter or
    InvalidInput naming `since`, `until`, `bucket` or `plan`.
    """
    names = _checked(plan, meters)
    # What is wrong with the range is found before the first row.
    zone = usage_settings.TIME_ZONE
    boundaries_between(*_bounds(since, until, zone), bucket or "day", zone)
    organizations = _all() if organizations is None else organizations

    def rows(organizations: QuerySet[Any]) -> Iterator[RangeRow]:
        for members in _on_plan(organizations, plan):
            for organization, current_plan, zone in members:
                start, end = _bounds(since, until, zone)
                history = histories_of(organization, names, since=start, until=end, bucket=bucket or "day")
                for meter, told in history.items():
                    for point in told if bucket else [_sum(told)]:
                        yield RangeRow(
                            organization=organization.pk,
                            name=str(organization),
                            plan=current_plan,
                            meter=meter,
                            start=point.start,
                            end=point.end,
                            used=point.used,
                            refused=point.refused,
                        )

    return rows(organizations)


def _checked(plan: str | None, meters: Iterable[str] | None) -> list[str]:
    """Return the names of the meters. Raises UnknownMeter, or InvalidInput naming `plan`."""
    if plan is not None:
        check_plan(plan)
    return [meter_named(name).name for name in (usage_settings.METERS if meters is None else meters)]


def _bounds(since: date | datetime, until: date | datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return the instants that a range begins and ends at in a zone. Raises InvalidInput unless it has a length."""
    start, end = _instant_of(since, zone, field="since"), _instant_of(until, zone, field="until")
    if start >= end:
        message = gettext("since (%(since)s) must be before until (%(until)s).")
        message %= {"since": since.isoformat(), "until": until.isoformat()}
        raise InvalidInput(message, field="since")
    return start, end


def _instant_of(moment: date | datetime, zone: ZoneInfo, *, field: str) -> datetime:
    if isinstance(moment, date) and not isinstance(moment, datetime):
        # Checked as UTC: at the ends of the calendar no zone could be asked.
        instant(datetime.combine(moment, time(), UTC), field=field)
        moment = datetime.combine(moment, time(), zone)
    elif moment is None:
        message = f"{field} must be a date or an aware datetime, not None."
        raise InvalidInput(message, field=field)
    return instant(moment, field=field)


def _sum(points: list[HistoryPoint]) -> HistoryPoint:
    return HistoryPoint(
        start=points[0].start,
        end=points[-1].end,
        used=sum(point.used for point in points),
        refused=sum(point.refused for point in points),
    )


def _all() -> QuerySet[Any]:
    return get_organization_model()._base_manager.using(router.db_for_write(UsagePeriod))


def _on_plan(
    organizations: QuerySet[Any], plan: str | None
) -> Iterator[list[tuple[UsageTrackedOrganization, str, ZoneInfo]]]:
    """Yield batches of (organization, its plan, its time zone), of those that are on `plan` if one is given."""
    meter = meter_named(DEFAULT_METER)
    for batch in in_batches(organizations):
        told = [(organization, sources_of(organization, meter)) for organization in batch]
        yield [
            (organization, sources.plan.value, sources.time_zone.value)
            for organization, sources in told
            if plan is None or sources.plan.value == plan
        ]
