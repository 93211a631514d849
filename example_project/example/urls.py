"""The site: pages, logging in and out, the admin, the API that is counted, and the one that tells the count."""

from django.contrib import admin
from django.urls import include, path

from accounts import views

urlpatterns = [
    path("", views.home, name="home"),
    path("live/", views.live, name="live"),
    path("activate/<slug:slug>/", views.activate, name="activate"),
    path("accounts/", include("rest_framework.urls")),
    path("admin/", admin.site.urls),
    path("api/", include("api.urls")),
    path("dashboard/", include("usage_tracking.urls")),
    path("usage/", include("usage_tracking.api.urls")),
]
