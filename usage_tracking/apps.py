"""The app: what is connected when Django starts."""

from typing import Any

from django.apps import AppConfig, apps
from django.db.backends.signals import connection_created
from django.db.models.signals import post_save, pre_delete
from django.utils.translation import gettext_lazy as _


class UsageTrackingConfig(AppConfig):
    """`usage_tracking` in INSTALLED_APPS."""

    name = "usage_tracking"
    verbose_name = _("usage tracking")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Follow the organization's saves and deletes, and register the system checks."""
        # Models can be imported from here on only.
        from usage_tracking import checks, databases, entitlements, ledger  # noqa: PLC0415
        from usage_tracking.models import get_organization_model  # noqa: PLC0415

        organization_model = get_organization_model()
        # Subclasses and proxies send their signals under their own name.
        senders: list[type[Any]] = [model for model in apps.get_models() if issubclass(model, organization_model)]
        for sender in senders:
            uid = f"usage_tracking.{sender._meta.label}"
            pre_delete.connect(ledger.delete_usage, sender=sender, dispatch_uid=uid)
            post_save.connect(entitlements.follow_save, sender=sender, dispatch_uid=uid)
        connection_created.connect(databases.limit_lock_waits, dispatch_uid="usage_tracking")
        checks.register_checks()
