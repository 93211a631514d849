"""Periods, history and events: read-only, filterable, exportable."""

from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.module_loading import import_string
from django.utils.translation import gettext_lazy as _

from usage_tracking.admin.exports import csv_response
from usage_tracking.admin.filters import MeterFilter, OpenFilter, OrganizationFilter
from usage_tracking.models import UsageEvent, UsageHistory, UsagePeriod, get_organization_model

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
elif apps.is_installed("unfold"):
    ModelAdmin = import_string("unfold.admin.ModelAdmin")  # its pages expect its own
else:
    ModelAdmin = admin.ModelAdmin

__all__ = ["UsageEventAdmin", "UsageHistoryAdmin", "UsagePeriodAdmin"]


class RecordAdmin(ModelAdmin):
    """Shows rows to those who may see usage; neither adds, changes nor deletes them."""

    list_select_related = ("organization",)
    show_full_result_count = False
    change_list_template = "usage_tracking/admin/records.html"
    csv_columns: ClassVar[tuple[str, ...]]

    @property
    def media(self) -> forms.Media:
        """The stylesheet."""
        return super().media + forms.Media(css={"all": ["usage_tracking/admin.css"]})

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return bool(request.user.has_perm("usage_tracking.view_usage"))

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return False

    def get_search_fields(self, request: HttpRequest) -> Any:
        """Find organizations by what the host's own admin finds them by."""
        model = get_organization_model()
        if not self.admin_site.is_registered(model):
            return ()
        host = self.admin_site.get_model_admin(model)
        return [_through_organization(field) for field in host.get_search_fields(request)]

    # -- CSV -----------------------------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        """Add the export."""
        name = f"usage_tracking_{self.opts.model_name}_export"
        return [path("export/", self.admin_site.admin_view(self.export_view), name=name), *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """Lead to the export of what is listed."""
        url = reverse(f"{self.admin_site.name}:usage_tracking_{self.opts.model_name}_export")
        query = request.GET.urlencode()
        return super().changelist_view(
            request, {"export_url": f"{url}?{query}" if query else url, **(extra_context or {})}
        )

    def export_view(self, request: HttpRequest) -> HttpResponseBase:
        """Send the rows that the list shows under the same query, all pages of it, as CSV."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            changelist = self.get_changelist_instance(request)
        except IncorrectLookupParameters:
            list_url = reverse(f"{self.admin_site.name}:usage_tracking_{self.opts.model_name}_changelist")
            return HttpResponseRedirect(f"{list_url}?e=1")
        rows = changelist.get_queryset(request)
        return csv_response(request, rows, self.csv_columns, filename=f"{self.opts.model_name}.csv")


@admin.register(UsagePeriod)
class UsagePeriodAdmin(RecordAdmin):
    """Periods, open and closed."""

    list_display = ("organization", "meter", "start", "end", "used", "limit", "refused", "open", "closed_by")
    list_filter = (OrganizationFilter, MeterFilter, OpenFilter, "closed_by", "start", "end")
    exclude = ("is_open",)
    readonly_fields = ("open",)
    csv_columns = (
        "organization_id",
        "organization",
        "meter",
        "start",
        "end",
        "used",
        "limit",
        "refused",
        "enforcement",
        "reset_mode",
        "is_open",
        "closed_at",
        "closed_by",
    )

    @admin.display(description=_("open"), boolean=True)
    def open(self, obj: UsagePeriod) -> bool:
        """Whether usage still goes into it; a closed period is stored as neither true nor false."""
        return bool(obj.is_open)


@admin.register(UsageHistory)
class UsageHistoryAdmin(RecordAdmin):
    """Buckets of history."""

    list_display = ("organization", "meter", "start", "end", "used", "refused")
    list_filter = (OrganizationFilter, MeterFilter, "start")
    csv_columns = ("organization_id", "organization", "meter", "start", "end", "used", "refused", "period_id")


@admin.register(UsageEvent)
class UsageEventAdmin(RecordAdmin):
    """Audit trail and outbox."""

    list_display = (
        "created_at",
        "organization",
        "kind",
        "meter",
        "threshold",
        "limit",
        "actor_label",
        "reason",
        "delivered_at",
    )
    list_filter = (OrganizationFilter, MeterFilter, "kind", "created_at")
    csv_columns = (
        "created_at",
        "organization_id",
        "organization",
        "kind",
        "meter",
        "threshold",
        "limit",
        "actor_label",
        "reason",
        "data",
        "period_id",
        "delivered_at",
    )


def _through_organization(field: str) -> str:
    """Return the search field, led through the organization: its first character may say how to search."""
    prefix = field[0] if field[0] in "^=@" else ""
    return f"{prefix}organization__{field.removeprefix(prefix)}"
