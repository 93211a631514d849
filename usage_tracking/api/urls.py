"""`path("usage/", include("usage_tracking.api.urls"))`."""

from django.urls import include, path
from rest_framework.routers import SimpleRouter

from usage_tracking.api.views import CurrentUsageView, OrganizationViewSet, ResetExpiredView

app_name = "usage_tracking"

router = SimpleRouter(use_regex_path=False)
router.register("organizations", OrganizationViewSet, basename="organization")

urlpatterns = [
    path("current/", CurrentUsageView.as_view(), name="current"),
    path("reset-expired/", ResetExpiredView.as_view(), name="reset-expired"),
    path("", include(router.urls)),
]
