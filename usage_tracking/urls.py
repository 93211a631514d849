"""The dashboard page: `path("usage/", include("usage_tracking.urls"))`."""

from django.urls import path

from usage_tracking import views

# Not `usage_tracking`, which is the HTTP API's.
app_name = "usage_tracking_pages"

urlpatterns = [
    path("", views.dashboard, name="dashboard"),
    path("switch/", views.switch, name="switch"),
]
