"""What the pages show of an organization's usage: words and geometry, no markup.

Coordinates are strings, so that no locale puts its decimal comma into an SVG.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time
from enum import StrEnum
from typing import Any, Final

from django.utils.formats import date_format, number_format
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from usage_tracking.charts import Sparkline, sparkline
from usage_tracking.conf import Meter, usage_settings
from usage_tracking.metering import HistoryPoint, histories_of_each, usages_of
from usage_tracking.models import UsageTrackedOrganization, get_organization_model
from usage_tracking.plans import Sourced, sources_of
from usage_tracking.quotas import DEFAULT_METER, Usage

__all__ = [
    "MeterShown",
    "Term",
    "Trend",
    "anchor_text",
    "choice_label",
    "feature_text",
    "instant_text",
    "limit_text",
    "meters_shown",
    "number_text",
    "terms_shown",
    "usage_field",
]

logger = logging.getLogger(__name__)

SPARKLINE_HEIGHT: Final = 20


class State(StrEnum):
    """How a meter stands; each has words and a shape of its own, the colour only underlines them."""

    CALM = "calm"
    NEAR = "near"
    REACHED = "reached"
    OVER = "over"
    UNLIMITED = "unlimited"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """The last 30 days as a line, and in words."""

    line: Sparkline
    text: str
    points: Sequence[HistoryPoint]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterShown:
    """One meter of one organization."""

    meter: Meter
    usage: Usage
    state: State
    text: str
    """The numbers: "630 of 1,000"."""
    remark: str
    """What the state means: "near the limit"; empty while all is calm."""
    period: str
    waits: str
    """Since when the period waits for its reset; empty unless it has expired."""
    filled: str
    """How far the bar is filled, from 0 to 100."""
    limit_at: str
    """Where on the bar the limit is, once usage is past it; else empty."""
    past: str
    """How wide the part past the limit is."""
    trend: Trend | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One of the terms that hold for an organization, and where it comes from."""

    name: str
    value: str
    source: str
    is_own: bool
    is_number: bool = False


def number_text(number: int) -> str:
    """The number as the reader's language groups it."""
    return number_format(number, force_grouping=True)


def limit_text(limit: int | None) -> str:
    """The limit, or the word for none."""
    return _("unlimited") if limit is None else number_text(limit)


def instant_text(moment: datetime) -> str:
    """The instant, in the zone that it carries; a midnight by its date."""
    return date_format(moment, "DATE_FORMAT" if moment.time() == time() else "DATETIME_FORMAT")


def anchor_text(anchor: datetime) -> str:
    """The anchor as ISO 8601 has it, which is how it is entered."""
    return anchor.isoformat(sep=" ")


def meters_shown(organizations: Sequence[UsageTrackedOrganization], *, now: datetime) -> dict[Any, list[MeterShown]]:
    """Return {organization key: one entry per meter}: three queries however many there are.

    An organization whose usage cannot be told (its plan raises, say) is logged and has no entries.
    """
    try:
        return _shown(organizations, now)
    except Exception:
        if len(organizations) <= 1:
            logger.exception("The usage of %s cannot be shown.", ", ".join(str(one.pk) for one in organizations))
            return {one.pk: [] for one in organizations}
    # One of them stands in nobody's way.
    return {key: entries for one in organizations for key, entries in meters_shown([one], now=now).items()}


def _shown(organizations: Sequence[UsageTrackedOrganization], now: datetime) -> dict[Any, list[MeterShown]]:
    meters = usage_settings.METERS
    usages = usages_of(organizations, now=now)
    histories = histories_of_each(organizations, now=now)
    return {
        key: [_meter_shown(meters[name], usage, histories[key][name]) for name, usage in by_meter.items()]
        for key, by_meter in usages.items()
    }


def _meter_shown(meter: Meter, usage: Usage, points: Sequence[HistoryPoint]) -> MeterShown:
    state = _state(usage)
    used, limit = usage.used, usage.limit
    past = state == State.OVER
    # Past the limit the bar is as long as what was used.
    share = (limit or 0) * 100 / used if past else used * 100 / limit if limit else 0
    zone = points[0].start.tzinfo if points else None
    return MeterShown(
        meter=meter,
        usage=usage,
        state=state,
        text=_text(usage),
        remark=_remark(usage, state),
        period=_period(usage, zone),
        waits=_("ended %(when)s, waits for its reset") % {"when": instant_text(usage.period.end.astimezone(zone))}
        if usage.expired and usage.period.end
        else "",
        filled=_coordinate(share),
        limit_at=_coordinate(share) if past else "",
        past=_coordinate(100 - share),
        trend=_trend(points) if points else None,
    )


def _state(usage: Usage) -> State:
    if usage.limit is None or usage.percentage is None:
        return State.UNLIMITED
    if usage.used > usage.limit:
        return State.OVER
    if usage.used == usage.limit:
        return State.REACHED
    return State.NEAR if usage.percentage >= min([*usage_settings.THRESHOLDS, 100]) else State.CALM


def _text(usage: Usage) -> str:
    used = number_text(usage.used)
    if usage.limit is None:
        return pgettext("an amount used without a limit", "%(used)s, unlimited") % {"used": used}
    return _("%(used)s of %(limit)s") % {"used": used, "limit": number_text(usage.limit)}


def _remark(usage: Usage, state: State) -> str:
    if state == State.OVER:
        return _("%(overage)s over the limit") % {"overage": number_text(usage.overage)}
    if usage.limit == 0:
        return _("nothing allowed")
    return {
        State.REACHED: _("limit reached"),
        State.NEAR: _("near the limit"),
    }.get(state, "")


def _period(usage: Usage, zone: Any) -> str:
    start = instant_text(usage.period.start.astimezone(zone))
    if usage.period.end is None:
        return _("since %(start)s, until somebody resets it") % {"start": start}
    end = instant_text(usage.period.end.astimezone(zone))
    return _("%(start)s to %(end)s") % {"start": start, "end": end}


def _trend(points: Sequence[HistoryPoint]) -> Trend:
    total = sum(point.used for point in points)
    highest = max(points, key=lambda point: point.used)
    if total:
        text = _("Last %(days)s days: %(total)s in total, at most %(most)s on %(day)s") % {
            "days": len(points),
            "total": number_text(total),
            "most": number_text(highest.used),
            "day": date_format(highest.start, "DATE_FORMAT"),
        }
    else:
        text = _("Last %(days)s days: nothing used") % {"days": len(points)}
    return Trend(line=sparkline([point.used for point in points], height=SPARKLINE_HEIGHT), text=text, points=points)


def _coordinate(share: float) -> str:
    return f"{share:.2f}".rstrip("0").rstrip(".")


# -- terms -------------------------------------------------------------------------------------------------------------


def usage_field(name: str) -> Any:
    """The organization's model field `usage_<name>`."""
    return get_organization_model()._meta.get_field(f"usage_{name}")


def choice_label(name: str, value: str) -> str:
    """The translated name of a choice of a usage field: "monthly", "hard"."""
    return str(dict(usage_field(name).choices).get(value, value))


def feature_text(value: Any) -> str:
    """The value of a feature, readable."""
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    return str(value) if isinstance(value, str) else number_format(value, force_grouping=True)


def terms_shown(organization: UsageTrackedOrganization) -> list[Term]:
    """Return all that holds for the organization, and where each value comes from. Asks no database."""
    meters = usage_settings.METERS
    explanations = {name: sources_of(organization, meter) for name, meter in meters.items()}
    common = explanations[DEFAULT_METER]
    terms = [_term(_("Plan"), common.plan.value, common.plan)]
    for meter in meters.values():
        limit = explanations[meter.name].limit
        name = _("Limit: %(meter)s") % {"meter": meter.label}
        terms.append(_term(name, limit_text(limit.value), limit))
    terms += [
        _term(_("Enforcement"), choice_label("enforcement", common.enforcement.value), common.enforcement),
        _term(_("Reset mode"), choice_label("reset_mode", common.reset_mode.value), common.reset_mode),
        _term(_("Reset period"), choice_label("reset_period", common.reset_period.value), common.reset_period),
        _term(_("Anchor"), anchor_text(common.anchor.value), common.anchor),
        _term(_("Time zone"), common.time_zone.value.key, common.time_zone),
    ]
    for name, value in sorted(common.features.items()):
        terms.append(_term(_("Feature: %(name)s") % {"name": name}, feature_text(value.value), value))
    return terms


def _term(name: str, value: str, sourced: Sourced[Any]) -> Term:
    sources = {"override": _("this organization"), "plan": _("its plan"), "default": _("the settings")}
    return Term(
        name=name,
        value=value,
        source=sources[sourced.source],
        is_own=sourced.source == "override",
        is_number=_is_number(sourced.value),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
