"""`manage.py deliver_usage_events`."""

from typing import Any

from django.core.management.base import CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from usage_tracking.events import deliver_events
from usage_tracking.management.base import UsageCommand


class Command(UsageCommand):
    """Calls `deliver_events()`, as the task does."""

    help = gettext_lazy("Send the signals of usage events that wait in the outbox.")

    def add_arguments(self, parser: CommandParser) -> None:
        """Take which outbox."""
        self.add_database_option(parser)

    def handle(self, *, database: str | None = None, verbosity: int, **_options: Any) -> None:
        """Do it, and say how many there were."""
        sent = deliver_events(using=self.database(database))
        self.say(verbosity, _("Events delivered: %(sent)d.") % {"sent": sent})
