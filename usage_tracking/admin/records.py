"""Periods, history and events: read-only, filterable, exportable."""

from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django import forms
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.module_loading import import_string
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from usage_tracking.admin.display import limit_text, number_text
from usage_tracking.admin.events import facts_of
from usage_tracking.admin.exports import csv_response
from usage_tracking.admin.filters import DeliveryFilter, MeterFilter, OpenFilter, OrganizationFilter
from usage_tracking.conf import label_of
from usage_tracking.models import UsageEvent, UsageHistory, UsagePeriod, get_organization_model

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
elif apps.is_installed("unfold"):
    ModelAdmin = import_string("unfold.admin.ModelAdmin")  # its pages expect its own
else:
    ModelAdmin = admin.ModelAdmin

__all__ = ["UsageEventAdmin", "UsageHistoryAdmin", "UsagePeriodAdmin"]


REASON_SHOWN: Final = 100
"""Characters of a reason in the list; its own page has all of it."""


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

    # -- what is shown -------------------------------------------------------------------------------------------------

    @admin.display(description=_("meter"), ordering="meter")
    def meter_shown(self, obj: Any) -> str:
        """What the settings call it."""
        return label_of(obj.meter)

    @admin.display(description=_("start"), ordering="start")
    def start_shown(self, obj: Any) -> str:
        """As short as the reader's language has it: for the list."""
        return _short(obj.start)

    @admin.display(description=_("end"), ordering="end")
    def end_shown(self, obj: Any) -> str:
        """As short as the reader's language has it: for the list."""
        return _short(obj.end)

    @admin.display(description=_("used"), ordering="used")
    def used_shown(self, obj: Any) -> str:
        """The amount."""
        return number_text(obj.used)

    @admin.display(description=_("refused"), ordering="refused")
    def refused_shown(self, obj: Any) -> str:
        """The number of calls."""
        return number_text(obj.refused)

    @admin.display(description=_("limit"), ordering="limit")
    def limit_shown(self, obj: Any) -> str:
        """The limit that held."""
        return limit_text(obj.limit)

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

    list_display = (
        "organization",
        "meter_shown",
        "start_shown",
        "end_shown",
        "used_shown",
        "limit_shown",
        "state_shown",
    )
    list_filter = (OrganizationFilter, MeterFilter, OpenFilter, "closed_by", "start", "end")
    readonly_fields = (
        "meter_shown",
        "used_shown",
        "limit_shown",
        "refused_shown",
        "state_shown",
        "lease_shown",
        "bucket_shown",
        "checkpoint_shown",
    )
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "organization",
                    "meter_shown",
                    "start",
                    "end",
                    "state_shown",
                    "closed_at",
                    "used_shown",
                    "limit_shown",
                    "refused_shown",
                    "enforcement",
                    "reset_mode",
                )
            },
        ),
        (
            _("Bookkeeping"),
            {
                "classes": ("collapse",),
                "fields": (
                    "lease_shown",
                    "bucket_start",
                    "bucket_shown",
                    "checkpoint_at",
                    "checkpoint_shown",
                    "pruned_at",
                ),
            },
        ),
    )
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

    @admin.display(description=_("state"), ordering="is_open")
    def state_shown(self, obj: UsagePeriod) -> str:
        """Whether usage still goes into it, else how it was closed."""
        if obj.is_open:
            return gettext("open")
        return gettext("closed (%(mode)s)") % {"mode": obj.get_closed_by_display()}

    @admin.display(description=_("on lease"))
    def lease_shown(self, obj: UsagePeriod) -> str:
        """What processes have borrowed and not settled yet."""
        return number_text(obj.on_lease)

    @admin.display(description=_("used before the open bucket"))
    def bucket_shown(self, obj: UsagePeriod) -> str:
        """What its history rows hold."""
        return number_text(obj.used_before_bucket)

    @admin.display(description=_("checkpoint amount"))
    def checkpoint_shown(self, obj: UsagePeriod) -> str:
        """Where the next request leaves the fast path."""
        return number_text(obj.checkpoint_used)


@admin.register(UsageHistory)
class UsageHistoryAdmin(RecordAdmin):
    """Buckets of history."""

    list_display = ("organization", "meter_shown", "start_shown", "end_shown", "used_shown", "refused_shown")
    list_filter = (OrganizationFilter, MeterFilter, "start")
    readonly_fields = ("meter_shown", "used_shown", "refused_shown")
    fields = ("organization", "meter_shown", "period", "start", "end", "used_shown", "refused_shown")
    csv_columns = ("organization_id", "organization", "meter", "start", "end", "used", "refused", "period_id")


@admin.register(UsageEvent)
class UsageEventAdmin(RecordAdmin):
    """Audit trail and outbox."""

    list_display = (
        "created_shown",
        "organization",
        "kind_shown",
        "meter_shown",
        "actor_shown",
        "reason_shown",
    )
    list_filter = (OrganizationFilter, MeterFilter, "kind", DeliveryFilter, "created_at")
    readonly_fields = ("kind_shown", "meter_shown", "limit_shown", "facts")
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "created_at",
                    "organization",
                    "kind_shown",
                    "meter_shown",
                    "period",
                    "limit_shown",
                    "facts",
                    "actor",
                    "actor_label",
                    "reason",
                )
            },
        ),
        (_("Delivery"), {"classes": ("collapse",), "fields": ("delivered_at", "claimed_until", "dedupe_key")}),
    )
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

    @admin.display(description=_("created at"), ordering="created_at")
    def created_shown(self, obj: UsageEvent) -> str:
        """As short as the reader's language has it: for the list."""
        return _short(obj.created_at)

    @admin.display(description=_("kind"), ordering="kind")
    def kind_shown(self, obj: UsageEvent) -> str:
        """What happened, and at how many percent of the limit."""
        kind = obj.get_kind_display()
        return kind if obj.threshold is None else f"{kind} ({obj.threshold}\N{NO-BREAK SPACE}%)"

    @admin.display(description=_("actor"), ordering="actor_label")
    def actor_shown(self, obj: UsageEvent) -> str:
        """Who it was, also when the user is gone."""
        return obj.actor_label

    @admin.display(description=_("reason"), ordering="reason")
    def reason_shown(self, obj: UsageEvent) -> str:
        """As much of it as a list has room for."""
        return Truncator(obj.reason).chars(REASON_SHOWN)

    @admin.display(description=_("details"))
    def facts(self, obj: UsageEvent) -> SafeString:
        """What the event has kept, readable: what was used, and old and new values."""
        return render_to_string("usage_tracking/admin/facts.html", {"facts": facts_of(obj)})


def _short(moment: datetime | None) -> str:
    return "" if moment is None else date_format(timezone.localtime(moment), "SHORT_DATETIME_FORMAT")


def _through_organization(field: str) -> str:
    """Return the search field, led through the organization: its first character may say how to search."""
    prefix = field[0] if field[0] in "^=@" else ""
    return f"{prefix}organization__{field.removeprefix(prefix)}"
