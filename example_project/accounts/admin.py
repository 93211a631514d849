"""The stock admin; usage tracking brings the pages of its own tables."""

from django.contrib import admin
from django.http import HttpRequest
from rest_framework_api_key.admin import APIKeyModelAdmin
from rest_framework_api_key.models import APIKey

from accounts.models import Membership, Notice, Organization, OrganizationAPIKey

# Its keys belong to nobody; ours belong to organizations.
admin.site.unregister(APIKey)


class MembershipInline(admin.TabularInline):
    """Members, on the page of their organization."""

    model = Membership
    autocomplete_fields = ["user"]
    extra = 0


@admin.register(Organization)
class OrganizationAdmin(admin.ModelAdmin):
    """Organizations, with the usage fields that they inherit: saving them moves the open period at once."""

    list_display = ["name", "usage_plan", "usage_limits", "usage_reset_mode", "usage_reset_period"]
    list_filter = ["usage_plan", "usage_reset_mode"]
    search_fields = ["name"]
    prepopulated_fields = {"slug": ["name"]}
    fieldsets = [
        (None, {"fields": ["name", "slug"]}),
        (
            "Usage",
            {
                "description": "Blank is as the plan, else the settings, say.",
                "fields": [
                    "usage_plan",
                    "usage_features",
                    "usage_limits",
                    "usage_enforcement",
                    "usage_reset_mode",
                    "usage_reset_period",
                    "usage_anchor",
                    "usage_time_zone",
                ],
            },
        ),
    ]
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
