"""`manage.py prune_usage_history`."""

from typing import Any

from django.core.management.base import CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from usage_tracking.conf import usage_settings
from usage_tracking.management.base import UsageCommand
from usage_tracking.pruning import prune_history


class Command(UsageCommand):
    """Calls `prune_history()`, as the task does."""

    help = gettext_lazy("Delete the history of closed usage periods that is older than HISTORY_RETENTION_DAYS.")

    def add_arguments(self, parser: CommandParser) -> None:
        """Take how old, and where."""
        parser.add_argument(
            "--days", type=int, metavar="N", help=_("delete what is older than so many days, whatever the setting says")
        )
        self.add_database_option(parser)

    def handle(self, *, days: int | None = None, database: str | None = None, verbosity: int, **_options: Any) -> None:
        """Do it, and say how much it was."""
        using = self.database(database)
        if days is None and usage_settings.HISTORY_RETENTION_DAYS is None:
            self.say(verbosity, _("HISTORY_RETENTION_DAYS is None: all history is kept."))
            return
        with self.progress(verbosity, _("rows")) as progress:
            report = prune_history(days=days, using=using, progress=progress)
        self.say(
            verbosity,
            _("Rows deleted: %(rows)d. Periods pruned for the first time: %(periods)d.")
            % {"rows": report.rows, "periods": report.periods},
        )
