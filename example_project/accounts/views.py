"""The home page."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from accounts.models import Organization
from usage_tracking.conf import usage_settings
from usage_tracking.metering import usage_of
from usage_tracking.resolvers import resolve_organization, set_active_organization


def home(request: HttpRequest) -> HttpResponse:
    """Show the organizations of the user, and what the one that is active has used."""
    organization = resolve_organization(request)
    meters = [] if organization is None else usage_settings.METERS
    context = {
        "active": organization,
        "organizations": Organization.usage_visible_to(request.user) if request.user.is_authenticated else [],
        "usages": [usage_of(organization, meter) for meter in meters],
    }
    return render(request, "accounts/home.html", context)


@login_required
@require_POST
def activate(request: HttpRequest, slug: str) -> HttpResponse:
    """Choose the organization that this session's requests count for."""
    set_active_organization(request, get_object_or_404(Organization, slug=slug))
    return redirect("home")
