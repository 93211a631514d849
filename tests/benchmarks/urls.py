"""The same view three times: with nothing in its way, refusing by itself, and behind the guard of this process."""

from django.urls import path

from tests.benchmarks.guards import guard

ROUTES = {kind: (path(f"{kind}/<who>/", getattr(guard, kind)),) for kind in ("bare", "refusal", "guarded")}
"""URL configurations of one route each: none of the three is found earlier than the others."""

urlpatterns = [route for routes in ROUTES.values() for route in routes]
