"""The admin of the test project's organizations, as a host writes it: the mixin, and what the host has anyway."""

from django.contrib import admin
from django.utils.module_loading import import_string

from tests import settings
from tests.factories import Membership
from usage_tracking.admin import UsageAdminMixin
from usage_tracking.models import get_organization_model

ModelAdmin = import_string(settings.MODEL_ADMIN)
TabularInline = import_string(settings.MODEL_ADMIN.replace("ModelAdmin", "TabularInline"))


class MembershipInline(TabularInline):
    """Members, on the page of their organization."""

    model = Membership
    extra = 0


@admin.register(get_organization_model())
class OrganizationAdmin(UsageAdminMixin, ModelAdmin):
    """Organizations, their members and their usage."""

    list_display = ["name"]
    search_fields = ["name"]
    inlines = [MembershipInline]
