"""`manage.py sync_usage_limits`."""

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from usage_tracking.entitlements import sync_all_limits
from usage_tracking.management.base import UNFINISHED, UsageCommand
from usage_tracking.models import get_organization_model


class Command(UsageCommand):
    """Calls `sync_all_limits()`."""

    help = gettext_lazy("Hold open usage periods to what PLANS, the settings and the organizations say now.")

    def add_arguments(self, parser: CommandParser) -> None:
        """Take whose."""
        self.add_organization_option(parser)

    def handle(self, *, organization: list[str] | None = None, verbosity: int, **_options: Any) -> None:
        """Do it, and say how many were held to something else."""
        organizations = self.organizations(organization)
        everybody = get_organization_model()._base_manager.all()
        total = (everybody if organizations is None else organizations).count()
        with self.progress(verbosity, _("organizations"), total) as progress:
            report = sync_all_limits(organizations, progress=progress)
        self.say(
            verbosity,
            _("Organizations synced: %(synced)d, of %(organizations)d.")
            % {"synced": report.synced, "organizations": report.organizations},
        )
        if report.failed:
            message = _("Organizations that could not be synced: %(failed)d. The log says why.")
            raise CommandError(message % {"failed": report.failed}, returncode=UNFINISHED)
