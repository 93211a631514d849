"""`{% load usage_tracking %}`: cards and charts drawn on the server, and a filter that asks for a feature.

A tag draws nothing for nobody, and in a page for a request (`request` is in the context, by Django's context processor
of that name) nothing for a user who may not see the organization. What cannot be looked up is logged and said in the
card's place. A wrong argument raises: it is the template that is wrong.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from django import template
from django.template import Context

from usage_tracking.cards import features_of, usage_cards
from usage_tracking.charts import ChartType, TimeRange
from usage_tracking.decorators import denial
from usage_tracking.exceptions import InvalidInput
from usage_tracking.history_charts import chart_type_named, history_charts, time_range_named
from usage_tracking.models import UsageTrackedOrganization
from usage_tracking.quotas import DEFAULT_METER
from usage_tracking.resolvers import may_see

register = template.Library()

logger = logging.getLogger(__name__)


@register.filter
def has_feature(organization: UsageTrackedOrganization | None, feature: str) -> bool:
    """`{% if organization|has_feature:"export" %}`: whether the organization has it.

    Nobody has nothing, nor has anybody what cannot be looked up (that is logged): a page is shown without the feature.
    """
    return isinstance(organization, UsageTrackedOrganization) and denial(feature, lambda: organization) is None


@register.inclusion_tag("usage_tracking/usage_card.html", takes_context=True)
def usage_card(
    context: Context,
    organization: UsageTrackedOrganization | None,
    meter: str = DEFAULT_METER,
    warning_threshold: int | None = None,
    upgrade_url: str = "",
) -> dict[str, Any]:
    """`{% usage_card organization meter="tokens" %}`: used and limit of one meter, and when it resets.

    `warning_threshold` is the percent from which it warns (default: the lowest of THRESHOLDS, else 80). With an
    `upgrade_url` it links there from that percent on.
    """

    def draw(organization: UsageTrackedOrganization) -> dict[str, Any]:
        (card,) = usage_cards(organization, [meter], threshold=warning_threshold)
        return {"card": card, "upgrade_url": upgrade_url}

    return _drawn(context, organization, draw)


@register.inclusion_tag("usage_tracking/feature_access_card.html", takes_context=True)
def feature_access_card(
    context: Context, organization: UsageTrackedOrganization | None, labels: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """`{% feature_access_card organization labels=labels %}`: the plan, and what it includes.

    `labels` is {feature: text}: these come first, in this order, and those that the plan lacks are shown as not
    included.
    """
    return _drawn(context, organization, lambda organization: {"plan": features_of(organization, labels)})


@register.inclusion_tag("usage_tracking/usage_history_chart.html", takes_context=True)
def usage_history_chart(
    context: Context,
    organization: UsageTrackedOrganization | None,
    meter: str = DEFAULT_METER,
    time_range: str = TimeRange.DAYS_30,
    chart_type: str = ChartType.LINE,
) -> dict[str, Any]:
    """`{% usage_history_chart organization time_range="90d" chart_type="bar" %}`: what was used, over time.

    `time_range` is 7d, 30d, 90d, 1y or all; `chart_type` is line, bar or area. A year is drawn in weeks, `all` in days,
    weeks or months: never more than 90 marks.
    """

    def draw(organization: UsageTrackedOrganization) -> dict[str, Any]:
        (chart,) = history_charts(
            organization, [meter], time_range=time_range_named(time_range), chart_type=chart_type_named(chart_type)
        )
        return {"chart": chart}

    return _drawn(context, organization, draw)


@register.inclusion_tag("usage_tracking/usage_dashboard.html", takes_context=True)
def usage_dashboard(  # noqa: PLR0917 - tags are called with names
    context: Context,
    organization: UsageTrackedOrganization | None,
    meters: str = "",
    time_range: str = TimeRange.DAYS_30,
    chart_type: str = ChartType.LINE,
    upgrade_url: str = "",
) -> dict[str, Any]:
    """`{% usage_dashboard organization %}`: a card and a chart of each meter, and the plan.

    `meters` names some of them, separated by commas or spaces (default: all).
    """

    def draw(organization: UsageTrackedOrganization) -> dict[str, Any]:
        names = meters.replace(",", " ").split() or None
        return {
            "cards": usage_cards(organization, names),
            "plan": features_of(organization),
            "charts": history_charts(
                organization, names, time_range=time_range_named(time_range), chart_type=chart_type_named(chart_type)
            ),
            "upgrade_url": upgrade_url,
        }

    return _drawn(context, organization, draw)


def _drawn(
    context: Context,
    organization: UsageTrackedOrganization | None,
    draw: Callable[[UsageTrackedOrganization], dict[str, Any]],
) -> dict[str, Any]:
    """Return what the template of a tag is given; nothing in it draws nothing."""
    if not isinstance(organization, UsageTrackedOrganization) or organization._state.adding:
        return {}
    try:
        request = context.get("request")
        if request is not None and not may_see(getattr(request, "user", None), organization):
            return {}
        return draw(organization)
    except InvalidInput:
        raise
    except Exception:
        logger.exception("The usage of organization %s could not be shown.", organization.pk)
        return {"unavailable": True}
