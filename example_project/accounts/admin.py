"""The stock admin; usage tracking brings the pages of its own tables."""

from django.contrib import admin
from django.http import HttpRequest
from rest_framework_api_key.admin import APIKeyModelAdmin
from rest_framework_api_key.models import APIKey

from accounts.models import Membership, Notice, Organization, OrganizationAPIKey
from usage_tracking.admin import UsageAdminMixin

# Its keys belong to nobody; ours belong to organizations.
admin.site.unregister(APIKey)


class MembershipInline(admin.TabularInline):
    """Members, on the page of their organization."""

    model = Membership
    autocomplete_fields = ["user"]
    extra = 0


@admin.register(Organization)
class OrganizationAdmin(UsageAdminMixin, admin.ModelAdmin):
    """Organizations, their members and their usage."""

    list_display = ["name"]
    search_fields = ["name"]
    prepopulated_fields = {"slug": ["name"]}
    inlines = [MembershipInline]


@admin.register(OrganizationAPIKey)
class OrganizationAPIKeyAdmin(APIKeyModelAdmin):
    """API keys; a new one is shown once."""

    list_display = ["organization", *APIKeyModelAdmin.list_display]


@admin.register(Notice)
class NoticeAdmin(admin.ModelAdmin):
    """Notices, as they were sent."""

    list_display = ["created_at", "organization", "kind", "text"]
    list_filter = ["kind", "organization"]

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002
        """Receivers write them, nobody else."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Notice | None = None) -> bool:  # noqa: ARG002
        """Sent is sent."""
        return False
