"""The same view three times: with nothing in its way, refusing by itself, and behind the guard of this process."""

from django.urls import path

from tests.benchmarks.guards import guard

urlpatterns = [
    path("bare/<who>/", guard.bare),
    path("refusal/<who>/", guard.refusal),
    path("guarded/<who>/", guard.guarded),
]
