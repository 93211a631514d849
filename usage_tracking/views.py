"""The dashboard page: what the active organization has used. It needs no JavaScript."""

import logging
from typing import Any, Final

from django import forms
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from usage_tracking.charts import ChartType, TimeRange
from usage_tracking.decorators import usage_exempt
from usage_tracking.models import UsageTrackedOrganization, get_organization_model
from usage_tracking.resolvers import may_see, resolve_organization, set_active_organization

__all__ = ["dashboard", "switch"]

logger = logging.getLogger(__name__)

SWITCHER_LENGTH: Final = 100
"""More organizations than this are for a search of the host's own."""


class Controls(forms.Form):
    """What the links of the page ask for."""

    range = forms.ChoiceField(
        label=_("Time range"),
        required=False,
        choices=[
            (TimeRange.DAYS_7.value, _("7 days")),
            (TimeRange.DAYS_30.value, _("30 days")),
            (TimeRange.DAYS_90.value, _("90 days")),
            (TimeRange.YEAR.value, _("1 year")),
            (TimeRange.ALL.value, _("All")),
        ],
    )
    type = forms.ChoiceField(
        label=_("Chart type"),
        required=False,
        choices=[
            (ChartType.LINE.value, _("Line")),
            (ChartType.BAR.value, _("Bar")),
            (ChartType.AREA.value, _("Area")),
        ],
    )

    def chosen(self) -> dict[str, str]:
        """Return the choices, defaults where there is none or a wrong one."""
        self.full_clean()
        defaults = {"range": TimeRange.DAYS_30.value, "type": ChartType.BAR.value}
        return {name: self.cleaned_data.get(name) or default for name, default in defaults.items()}


@login_required
@usage_exempt
@never_cache
@require_safe
def dashboard(request: HttpRequest) -> HttpResponse:
    """Show the active organization's cards and charts; `range` and `type` in the query say which history."""
    organization, unavailable = _active_organization(request)
    controls = Controls(request.GET)
    chosen = controls.chosen()
    visible = get_organization_model().usage_visible_to(request.user).distinct()[:SWITCHER_LENGTH]
    context = {
        "organization": organization,
        "organizations": visible,
        "chosen": chosen,
        "errors": controls.errors,
        "groups": [_links(controls, name, chosen) for name in chosen],
        "unavailable": unavailable,
    }
    status = 503 if unavailable else 400 if controls.errors else 200
    return render(request, "usage_tracking/dashboard_page.html", context, status=status)


@login_required
@usage_exempt
@require_POST
def switch(request: HttpRequest) -> HttpResponseRedirect:
    """Make another of the user's organizations the active one; 404 for one that they cannot see."""
    visible = get_organization_model().usage_visible_to(request.user)
    try:
        organization = visible.filter(pk=request.POST.get("organization", "")).first()
    except (TypeError, ValueError, ValidationError):
        organization = None
    if organization is None:
        raise Http404
    set_active_organization(request, organization)
    query = QueryDict(mutable=True)
    query.update(Controls(request.POST).chosen())
    return HttpResponseRedirect(f"{reverse('usage_tracking_pages:dashboard')}?{query.urlencode()}")


def _active_organization(request: HttpRequest) -> tuple[UsageTrackedOrganization | None, bool]:
    """Return the organization to show, and whether it could not be found out."""
    try:
        organization = resolve_organization(request)
    except Exception:
        logger.exception("ORGANIZATION_RESOLVER failed; the dashboard shows nothing.")
        return None, True
    if organization is not None and not may_see(request.user, organization):
        return None, False
    return organization, False


def _links(controls: Controls, name: str, chosen: dict[str, str]) -> dict[str, Any]:
    """Return the links of one control; each keeps what the other one says."""
    field: Any = controls.fields[name]
    links = []
    for value, label in field.choices:
        query = QueryDict(mutable=True)
        query.update({**chosen, name: value})
        links.append({"label": label, "query": query.urlencode(), "current": value == chosen[name]})
    return {"label": field.label, "links": links}
