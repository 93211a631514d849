"""`manage.py usage_report`."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, fields
from itertools import chain, islice
from typing import Any, Final
from unicodedata import combining, east_asian_width

from django.core.management.base import CommandError, CommandParser, OutputWrapper
from django.core.serializers.json import DjangoJSONEncoder
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from usage_tracking.history import HISTORY_STEPS
from usage_tracking.management.base import UsageCommand
from usage_tracking.reports import RangeRow, StateRow, range_report, state_report
from usage_tracking.spreadsheets import harmless

Rows = Iterator[StateRow] | Iterator[RangeRow]

MEASURED: Final = 500
"""Rows that the widths of a table's columns are taken from; later ones may stick out, so that none has to wait."""

NUMBERS: Final = {"used", "limit", "remaining", "overage", "percentage", "refused"}
"""Columns of a table that are aligned to the right."""


class Command(UsageCommand):
    """Prints what `state_report()` or `range_report()` tells."""

    help = gettext_lazy("Print who has used how much: in the open periods, or between two days.")

    def add_arguments(self, parser: CommandParser) -> None:
        """Take whose, of what, when, and how to print it."""
        self.add_organization_option(parser)
        parser.add_argument("--plan", metavar="NAME", help=_("only organizations on this plan"))
        parser.add_argument(
            "--meter", action="append", metavar="NAME", help=_("only this meter; repeat it for several (default: all)")
        )
        parser.add_argument(
            "--since", metavar="WHEN", help=_("first day, in each organization's zone, or an instant with its offset")
        )
        parser.add_argument("--until", metavar="WHEN", help=_("the day, or instant, before which it ends"))
        parser.add_argument(
            "--bucket", choices=list(HISTORY_STEPS), help=_("a row for each, instead of one for the whole range")
        )
        parser.add_argument("--format", choices=list(WRITERS), default="table", help=_("default: table"))

    def handle(
        self,
        *,
        organization: list[str] | None = None,
        plan: str | None = None,
        meter: list[str] | None = None,
        since: object = None,
        until: object = None,
        bucket: Any = None,
        format: str = "table",  # noqa: A002 - the option's name
        verbosity: int,
        **_options: Any,
    ) -> None:
        """Print it, row by row."""
        if format not in WRITERS:
            message = _("--format: %(format)r is none of %(known)s.") % {"format": format, "known": ", ".join(WRITERS)}
            raise CommandError(message)
        organizations = self.organizations(organization)
        first, end = self.moment("since", since), self.moment("until", until)
        rows: Rows
        if first is None and end is None and bucket is None:
            columns = [field.name for field in fields(StateRow)]
            rows = state_report(organizations, plan=plan, meters=meter)
        elif first is None or end is None:
            missing = "since" if first is None else "until"
            raise CommandError(_("--%(option)s is missing: a range has both ends.") % {"option": missing})
        else:
            columns = [field.name for field in fields(RangeRow)]
            rows = range_report(organizations, since=first, until=end, bucket=bucket, plan=plan, meters=meter)
        # On a terminal the rows show how far it is.
        with self.progress(0 if self.stdout.isatty() else verbosity, _("rows")) as progress:
            WRITERS[format](self.stdout, columns, _told(rows, progress))


def _told(rows: Rows, progress: Callable[[int], None]) -> Iterator[tuple[Any, ...]]:
    for row in rows:
        yield astuple(row)
        progress(1)


def _write_csv(out: OutputWrapper, columns: list[str], rows: Iterable[tuple[Any, ...]]) -> None:
    writer = csv.writer(out)
    writer.writerow(columns)
    writer.writerows([cell if isinstance(cell, int) else harmless(_text(cell)) for cell in row] for row in rows)


def _write_json(out: OutputWrapper, columns: list[str], rows: Iterable[tuple[Any, ...]]) -> None:
    out.write("[", ending="")
    separator = "\n"
    for row in rows:
        document = json.dumps(dict(zip(columns, row, strict=True)), cls=DjangoJSONEncoder, ensure_ascii=False)
        out.write(f"{separator}{document}", ending="")
        separator = ",\n"
    out.write("\n]")


def _write_table(out: OutputWrapper, columns: list[str], rows: Iterable[tuple[Any, ...]]) -> None:
    lines = ([_printable(_text(cell)) for cell in row] for row in rows)
    head = [columns, *islice(lines, MEASURED)]
    widths = [max(map(_width, column)) for column in zip(*head, strict=True)]
    for line in chain(head, lines):
        cells = []
        for column, cell, width in zip(columns, line, widths, strict=True):
            space = " " * (width - _width(cell))
            cells.append(space + cell if column in NUMBERS else cell + space)
        out.write("  ".join(cells).rstrip())


WRITERS: Final[dict[str, Callable[[OutputWrapper, list[str], Iterable[tuple[Any, ...]]], None]]] = {
    "table": _write_table,
    "csv": _write_csv,
    "json": _write_json,
}


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    return cell.isoformat() if hasattr(cell, "isoformat") else str(cell)


def _printable(text: str) -> str:
    """Return text that cannot steer a terminal, whoever chose the name."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _width(text: str) -> int:
    """Return how many columns of a terminal the text takes."""
    return sum(0 if combining(one) else 2 if east_asian_width(one) in "WF" else 1 for one in text)
