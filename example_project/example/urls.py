"""The site: a home page, logging in and out, the admin, and the API that is counted."""

from django.contrib import admin
from django.urls import include, path

from accounts import views

urlpatterns = [
    path("", views.home, name="home"),
    path("activate/<slug:slug>/", views.activate, name="activate"),
    path("accounts/", include("rest_framework.urls")),
    path("admin/", admin.site.urls),
    path("api/", include("api.urls")),
    path("dashboard/", include("usage_tracking.urls")),
]
