"""What a card says about usage and features: the engine's numbers, put into words.

Texts are in the active language and numbers grouped as it does; templates add only the markup around them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

from django.utils.formats import date_format, get_format, number_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from usage_tracking.conf import Meter, usage_settings
from usage_tracking.entitlements import explain
from usage_tracking.metering import usages_of
from usage_tracking.models import UsageTrackedOrganization
from usage_tracking.plans import meter_named
from usage_tracking.quotas import Usage

__all__ = [
    "CRITICAL_PERCENT",
    "Feature",
    "Level",
    "Plan",
    "UsageCard",
    "features_of",
    "level_of",
    "number",
    "numbers",
    "usage_cards",
    "warning_threshold",
]

CRITICAL_PERCENT: Final = 90
"""From here on a card is red, whatever the thresholds."""


class Level(StrEnum):
    """How near a limit is; each has a colour, an icon and words."""

    NORMAL = "normal"
    WARNING = "warning"
    CRITICAL = "critical"
    EXCEEDED = "exceeded"
    UNLIMITED = "unlimited"
    EXCLUDED = "excluded"
    """The limit is 0: the meter is not part of the plan."""


def warning_threshold() -> int:
    """Return the percent from which a card warns: the lowest of THRESHOLDS, 80 if there is none."""
    return min(usage_settings.THRESHOLDS, default=80)


def level_of(usage: Usage, threshold: int) -> Level:
    """Return how near the limit of `usage` is; `threshold` is the percent from which that is a warning."""
    if usage.percentage is None:
        return Level.UNLIMITED
    if not usage.limit and not usage.used:
        return Level.EXCLUDED
    if usage.percentage >= 100:
        return Level.EXCEEDED
    if usage.percentage >= CRITICAL_PERCENT:
        return Level.CRITICAL
    return Level.WARNING if usage.percentage >= threshold else Level.NORMAL


def number(value: int) -> str:
    """Return a whole number with the digits grouped, as the active language does it."""
    return str(number_format(value, force_grouping=True)) if abs(value) > 999 else str(value)


def numbers(values: Iterable[int]) -> list[str]:
    """Return each of `values` as `number` does, but look up once how: that takes twenty times as long as doing it."""
    if get_format("NUMBER_GROUPING") != 3:
        return [number(value) for value in values]
    separator = str(get_format("THOUSAND_SEPARATOR"))
    return [f"{value:,}".replace(",", separator) for value in values]


# -- usage -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageCard:
    """What one meter's card says."""

    meter: Meter
    usage: Usage
    level: Level
    time_zone: ZoneInfo

    @property
    def used(self) -> str:
        """The amount used."""
        return number(self.usage.used)

    @property
    def limit(self) -> str:
        """What it is held against: `of 1,000 requests`."""
        if self.usage.limit is None:
            return str(self.meter.unit)
        words = {"limit": number(self.usage.limit), "unit": self.meter.unit}
        return (_("of %(limit)s %(unit)s") if self.meter.unit else _("of %(limit)s")) % words

    @property
    def badge(self) -> str:
        """The percentage, or why there is none."""
        match self.level:
            case Level.UNLIMITED:
                return _("Unlimited")
            case Level.EXCLUDED:
                return _("Not included")
        return _("%(percentage)s%%") % {"percentage": number(self.usage.percentage or 0)}

    @property
    def status(self) -> str:
        """What the colour means, in words; empty while all is well."""
        if self.usage.overage:
            return _("%(overage)s over the limit") % {"overage": number(self.usage.overage)}
        return {
            Level.WARNING: _("Getting close to the limit"),
            Level.CRITICAL: _("Almost used up"),
            Level.EXCEEDED: _("Limit reached"),
        }.get(self.level, "")

    @property
    def is_short(self) -> bool:
        """Whether more would help: from the warning threshold on, or when the meter is not included."""
        return self.level not in {Level.NORMAL, Level.UNLIMITED}

    @property
    def remaining(self) -> str:
        """What is left; empty when there is nothing to be left of."""
        left = self.usage.remaining
        if not left:
            return ""
        return ngettext("%(left)s left", "%(left)s left", left) % {"left": number(left)}

    @property
    def reset(self) -> str:
        """When the count begins anew."""
        moment = self.usage.resets_at
        if moment is None:
            return _("No automatic reset")
        words = {"date": _moment(moment.astimezone(self.time_zone))}
        return (_("Ended %(date)s, waiting for its reset") if self.usage.expired else _("Resets %(date)s")) % words

    @property
    def summary(self) -> str:
        """The bar, for those who do not see it."""
        return f"{self.used} {self.limit}, {self.badge}"

    @property
    def share(self) -> float:
        """How much of the bar is filled, in percent; past the limit it is full."""
        usage = self.usage
        if not usage.limit:
            return 100 if usage.used else 0
        return min(round(usage.used * 100 / usage.limit, 2), 100)

    @property
    def limit_mark(self) -> float | None:
        """Where on the full bar the limit stands, in percent; None while it is not passed."""
        usage = self.usage
        return round((usage.limit or 0) * 100 / usage.used, 2) if usage.overage else None


def usage_cards(
    organization: UsageTrackedOrganization,
    meters: Iterable[str] | None = None,
    *,
    threshold: int | None = None,
    now: datetime | None = None,
) -> list[UsageCard]:
    """Return a card per meter (default: all of METERS), in one query. Raises UnknownMeter."""
    threshold = warning_threshold() if threshold is None else threshold
    zone = explain(organization).time_zone.value
    return [
        UsageCard(meter=meter_named(name), usage=usage, level=level_of(usage, threshold), time_zone=zone)
        for name, usage in usages_of([organization], meters, now=now)[organization.pk].items()
    ]


# -- features ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One line of a feature card."""

    label: str
    included: bool
    value: str
    """A number or a text; `Included` or `Not included` for what is only there or not, also if that is 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a plan's card says."""

    name: str
    features: Sequence[Feature]


def features_of(organization: UsageTrackedOrganization, labels: Mapping[str, str] | None = None) -> Plan:
    """Return the plan and the features of an organization, those of `labels` first and in its order.

    A feature that is in `labels` only is shown as not included.
    """
    labels = labels or {}
    explanation = explain(organization)
    names = dict.fromkeys([*labels, *explanation.features])
    return Plan(
        name=explanation.plan.value,
        features=[
            _feature(
                str(labels.get(name, name)),
                explanation.features[name].value if name in explanation.features else False,
            )
            for name in names
        ],
    )


def _feature(label: str, value: bool | str | float) -> Feature:  # noqa: FBT001 - that is what a feature may be
    if isinstance(value, bool):
        text = _("Included") if value else _("Not included")
    elif isinstance(value, str):
        text = value
    else:
        text = str(number_format(value, force_grouping=True)) if value else ""
    return Feature(label=label, included=bool(value), value=text or _("Not included"))


def _moment(moment: datetime) -> str:
    """Return a date, with its time unless that is midnight."""
    is_midnight = moment.time() == time.min
    return str(date_format(moment, "DATE_FORMAT" if is_midnight else "DATETIME_FORMAT"))
