"""`manage.py reset_expired_usage`."""

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from usage_tracking.management.base import UNFINISHED, UsageCommand
from usage_tracking.resets import reset_expired


class Command(UsageCommand):
    """Calls `reset_expired()`, as the task and the endpoint do."""

    help = gettext_lazy("Close every usage period that has ended, and deliver events that a crash has left behind.")

    def add_arguments(self, parser: CommandParser) -> None:
        """Take whose, and how many."""
        self.add_organization_option(parser)
        parser.add_argument(
            "--limit",
            type=int,
            metavar="N",
            help=_("end after so many organizations, and leave others to the next run"),
        )

    def handle(
        self, *, organization: list[str] | None = None, limit: int | None = None, verbosity: int, **_options: Any
    ) -> None:
        """Do it, and say how much it was."""
        organizations = self.organizations(organization)
        with self.progress(verbosity, _("organizations")) as progress:
            report = reset_expired(organizations=organizations, limit=limit, progress=progress)
        self.say(
            verbosity,
            _("Periods closed: %(closed)d, of organizations: %(organizations)d.")
            % {"closed": report.closed, "organizations": report.organizations_affected},
        )
        if report.more:
            self.say(verbosity, _("More have expired: run it again."))
        if report.failed:
            message = _("Periods that could not be closed: %(failed)d. The log says why; the next run tries again.")
            raise CommandError(message % {"failed": report.failed}, returncode=UNFINISHED)
