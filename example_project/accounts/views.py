"""The home page."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from accounts.models import Organization
from usage_tracking.conf import usage_settings
from usage_tracking.resolvers import resolve_organization, set_active_organization


def home(request: HttpRequest) -> HttpResponse:
    """Show the organizations of the user, and what the one that is active has used."""
    context = {
        "active": resolve_organization(request),
        "organizations": Organization.usage_visible_to(request.user) if request.user.is_authenticated else [],
        "meters": list(usage_settings.METERS),
    }
    return render(request, "accounts/home.html", context)


def live(request: HttpRequest) -> HttpResponse:
    """Show the custom elements; they ask the API themselves, also what it says to somebody who is not logged in."""
    return render(request, "accounts/live.html", {"organization": request.GET.get("organization", "")})


@login_required
@require_POST
def activate(request: HttpRequest, slug: str) -> HttpResponse:
    """Choose the organization that this session's requests count for."""
    set_active_organization(request, get_object_or_404(Organization, slug=slug))
    return redirect("home")
