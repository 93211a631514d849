"""What the commands have in common: options, errors that name them, progress and exit codes."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from usage_tracking.conf import suggestion
from usage_tracking.exceptions import InvalidInput
from usage_tracking.models import get_organization_model
from usage_tracking.periods import parse_anchor

try:
    from tqdm import tqdm
except ImportError:  # without it, lines do
    tqdm = None  # type: ignore[assignment, misc]

__all__ = ["UNFINISHED", "UsageCommand"]

UNFINISHED: Final = 3
"""The exit code of a command that did its work and left something for a person; 1 and 2 are Django's, for errors."""

PIPE_CLOSED: Final = 141
"""The exit code of a command whose output nobody reads any more: what a shell shows for a SIGPIPE."""

LINE_EVERY: Final = 10_000


class UsageCommand(BaseCommand):
    """A command that calls one function of the engine. Bad input ends it with the name of the option, exit code 1."""

    help: Any
    """What it does, as a lazy translation."""

    def create_parser(self, *args: Any, **kwargs: Any) -> CommandParser:
        """Return the parser, with the help in the language of now: argparse reads nothing lazy."""
        parser = super().create_parser(*args, **kwargs)
        parser.description = str(self.help)
        return parser

    def run_from_argv(self, argv: list[str]) -> None:
        """Run, and end without a word once whoever reads the output has enough, as `head` has."""
        try:
            super().run_from_argv(argv)
            sys.stdout.flush()
        except BrokenPipeError as error:
            # Python would complain once more when it closes stdout.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(PIPE_CLOSED) from error

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run, and name the option that the engine complains about."""
        try:
            return super().execute(*args, **options)
        except InvalidInput as error:
            message = f"--{error.field}: {error}"
            raise CommandError(message) from error

    # -- options -------------------------------------------------------------------------------------------------------

    def add_organization_option(self, parser: CommandParser) -> None:
        """Take `--organization KEY`, several times if need be."""
        parser.add_argument(
            "--organization",
            action="append",
            metavar="KEY",
            help=_("primary key of an organization; repeat it for several (default: all)"),
        )

    def add_database_option(self, parser: CommandParser) -> None:
        """Take `--database ALIAS`."""
        parser.add_argument("--database", metavar="ALIAS", help=_("alias of DATABASES (default: where the usage is)"))

    def organizations(self, keys: Sequence[object] | None) -> QuerySet[Any] | None:
        """Return the organizations with these keys, None for all. Raises CommandError for a key of nobody."""
        if keys is None:
            return None
        model = get_organization_model()
        found = model._base_manager.all()
        for key in keys:
            try:
                known = found.filter(pk=model._meta.pk.to_python(key)).exists()
            except (ValidationError, OverflowError):  # no key of that kind, or one past what SQLite can ask for
                known = False
            if not known:
                message = _("--organization: there is no %(model)s with the key %(key)r.") % {
                    "model": model._meta.verbose_name,
                    "key": key,
                }
                raise CommandError(message)
        return found.filter(pk__in=keys)

    def database(self, alias: str | None) -> str | None:
        """Return the alias. Raises CommandError unless it is one of DATABASES, or None."""
        if alias is not None and alias not in list(connections):
            message = _("--database: there is no database %(alias)r.") % {"alias": alias}
            raise CommandError(message + suggestion(alias, list(connections)))
        return alias

    def moment(self, option: str, value: object) -> date | datetime | None:
        """Return the day (2027-01-31) or the instant (2027-01-31T09:00+01:00) of an option."""
        if value is None or isinstance(value, date):
            return value
        try:
            moment = parse_anchor(str(value))
        except ValueError as error:
            message = _("--%(option)s: %(value)r is no day or instant from 1900 to 2200, such as 2027-01-31.")
            raise CommandError(message % {"option": option, "value": value}) from error
        if len(str(value)) == len("2027-01-31"):
            return moment.date()
        if moment.utcoffset() is None:
            message = _("--%(option)s: %(value)s needs an offset, such as %(value)s+00:00.") % {
                "option": option,
                "value": value,
            }
            raise CommandError(message)
        return moment

    # -- output --------------------------------------------------------------------------------------------------------

    def say(self, verbosity: int, message: str) -> None:
        """Print a line, unless `--verbosity 0` asks for silence."""
        if verbosity:
            self.stdout.write(message)

    @contextmanager
    def progress(self, verbosity: int, unit: str, total: int | None = None) -> Iterator[Callable[[int], Any]]:
        """Yield what to call with how many `unit` have just been done.

        A bar on a terminal where tqdm is installed, a plain line for every ten thousand elsewhere; on stderr, so that
        stdout can be piped.
        """
        if not verbosity:
            yield lambda _count: None
            return
        if tqdm is not None and self.stderr.isatty():
            with tqdm(total=total, unit=f" {unit}") as bar:
                yield bar.update
            return
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            before, done = done, done + count
            if before // LINE_EVERY != done // LINE_EVERY:
                of = "" if total is None else f" / {total}"
                self.stderr.write(f"{done}{of} {unit}", style_func=str)

        yield advance
