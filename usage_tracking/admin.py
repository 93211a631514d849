"""Read-only admin over the tables: state is changed through the engine, under its locks."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest

from usage_tracking.models import UsageEvent, UsageHistory, UsagePeriod

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin  # generic for type checkers only


class ReadOnlyAdmin(ModelAdmin):
    """Shows rows; neither adds, changes nor deletes them."""

    list_select_related = ("organization",)
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002, D102
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002, D102
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002, D102
        return False


@admin.register(UsagePeriod)
class UsagePeriodAdmin(ReadOnlyAdmin):
    """Periods, open and closed."""

    list_display = ("organization", "meter", "start", "end", "used", "limit", "refused", "is_open", "closed_by")
    list_filter = ("meter", "is_open", "closed_by")
    date_hierarchy = "start"


@admin.register(UsageHistory)
class UsageHistoryAdmin(ReadOnlyAdmin):
    """Buckets of history."""

    list_display = ("organization", "meter", "start", "end", "used", "refused")
    list_filter = ("meter",)
    date_hierarchy = "start"


@admin.register(UsageEvent)
class UsageEventAdmin(ReadOnlyAdmin):
    """Audit trail and outbox."""

    list_display = ("created_at", "organization", "kind", "meter", "threshold", "limit", "actor_label", "delivered_at")
    list_filter = ("kind", "meter")
    date_hierarchy = "created_at"
