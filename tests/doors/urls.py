"""The doors' test project: every kind of view under `plain/`, `async/` and, where it is installed, `drf/`."""

from importlib.util import find_spec

from django.urls import include, path

from tests.doors import views
from tests.urls import urlpatterns as project

plain = [
    path("ping/", views.ping),
    path("costly/", views.costly),
    path("weighed/", views.weighed),
    path("exempt/", views.exempt),
    path("tokens/", views.tokens),
    path("status/", views.status),
    path("raising/", views.raising),
    path("outcome/", views.outcome),
    path("during/", views.during),
    path("gated/", views.gated),
    path("handlers/", views.Handlers.as_view()),
    path("heirs/", views.Heirs.as_view()),
    path("free-to-read/", views.FreeToRead.as_view()),
    path("decorated/", views.Decorated.as_view()),
]

asynchronous = [
    path("ping/", views.aping),
    path("costly/", views.acostly),
    path("weighed/", views.aweighed),
    path("exempt/", views.aexempt),
    path("tokens/", views.atokens),
    path("status/", views.astatus),
    path("raising/", views.araising),
    path("outcome/", views.aoutcome),
    path("during/", views.aduring),
    path("awaiting/", views.awaiting),
    path("gated/", views.agated),
    path("decorated/", views.AsyncDecorated.as_view()),
]

urlpatterns = [
    *project,
    path("api/plain/", include(plain)),
    path("api/async/", include(asynchronous)),
    path("other/plain/", include(plain)),
]

if find_spec("rest_framework"):
    from rest_framework.routers import SimpleRouter

    from tests.doors import drf_views

    router = SimpleRouter()
    router.register("reports", drf_views.Reports, basename="reports")

    rest = [
        path("ping/", drf_views.Ping.as_view()),
        path("costly/", drf_views.Costly.as_view()),
        path("weighed/", drf_views.Weighed.as_view()),
        path("exempt/", drf_views.Exempt.as_view()),
        path("tokens/", drf_views.Tokens.as_view()),
        path("status/", drf_views.Status.as_view()),
        path("raising/", drf_views.Raising.as_view()),
        path("outcome/", drf_views.Outcome.as_view()),
        path("during/", drf_views.During.as_view()),
        path("function/", drf_views.function),
        *router.urls,
        path("gated-session/", drf_views.GatedForSessions.as_view()),
        *[
            path(f"{name}/", drf_views.Gated.as_view(permission_classes=[gate]))
            for name, gate in drf_views.GATES.items()
        ],
    ]
    urlpatterns += [path("api/drf/", include(rest)), path("other/drf/", include(rest))]
