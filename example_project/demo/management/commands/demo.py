"""`manage.py demo`."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.core.management import BaseCommand, CommandParser, call_command
from django.test import override_settings
from django.utils import timezone
from rest_framework.authtoken.models import Token
from tqdm import tqdm

from accounts.models import Notice
from demo import job
from demo.seeding import ADMIN, AMBER, CALLERS, DAYS, FJORD, HARBOR, PASSWORD, RESETS, Story, new_api_key, seed
from usage_tracking.metering import flush_refusals


class Command(BaseCommand):
    """Sets the example up, uses it and serves it."""

    help = "Make organizations with 90 days of history, send real requests, show what came of it, and start the server."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take where to serve, and whether to."""
        parser.add_argument("--port", type=int, default=8000, help="where to serve, on 127.0.0.1 (default: 8000)")
        parser.add_argument("--no-serve", action="store_true", help="end after the table")

    def handle(self, *, port: int, no_serve: bool, **_: Any) -> None:
        """Do it all; running it again works."""
        # With DEBUG, Django writes down each statement, which takes longer than the statement.
        with override_settings(DEBUG=False):
            call_command("migrate", verbosity=0)
            with self.progress((len(CALLERS) + len(RESETS)) * DAYS, "days of history") as advance:
                seed(timezone.now(), advance)
            self.send_requests()
            self.table(job.RESET_HEADINGS, job.resets())
        if not no_serve:
            self.introduce(f"http://127.0.0.1:{port}")
            call_command("runserver", f"127.0.0.1:{port}", use_reloader=False)

    def send_requests(self) -> None:
        """Send the requests of all errands and print the table."""
        for organization in job.make_room():
            self.stdout.write(f"{organization} was left at its limit: it starts a new period.")
        notices_before = Notice.objects.order_by("pk").values_list("pk", flat=True).last() or 0
        counts = {errand: errand.count() for errand in job.ERRANDS}
        with self.progress(sum(counts.values()), "requests") as advance:
            statuses = [job.run(errand, count, advance) for errand, count in counts.items()]
        flush_refusals()
        rows = [job.row_of(errand, notices_before) for errand in job.ERRANDS]
        self.table(job.HEADINGS, rows)
        for row, answered in zip(rows, statuses, strict=True):
            told = ", ".join(f"{count} x {status}" for status, count in sorted(answered.items()))
            self.stdout.write(f"{row[0]} was answered {told}.")

    # -- output --------------------------------------------------------------------------------------------------------

    @contextmanager
    def progress(self, total: int, unit: str) -> Iterator[Any]:
        """Yield what to call with an organization's name at each step: a bar in a terminal, elsewhere plain lines."""
        said: set[str] = set()
        with tqdm(total=total, unit=f" {unit}", file=sys.stdout, disable=not sys.stdout.isatty()) as bar:

            def advance(name: str) -> None:
                if name not in said:
                    said.add(name)
                    bar.set_description(f"{name:<14}")
                    if bar.disable:
                        self.stdout.write(f"{name}: {unit}")
                bar.update()

            yield advance

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print rows under headings, numbers to the right."""
        widths = [max(len(str(cell)) for cell in column) for column in zip(headings, *rows, strict=True)]
        right = [isinstance(cell, int) for cell in rows[0]]
        self.stdout.write("")
        for line in (headings, ["-" * width for width in widths], *rows):
            cells = [
                f"{cell!s:>{width}}" if to_the_right else f"{cell!s:<{width}}"
                for cell, width, to_the_right in zip(line, widths, right, strict=True)
            ]
            self.stdout.write("  ".join(cells).rstrip())
        self.stdout.write("")

    def introduce(self, url: str) -> None:
        """Print whom to log in as and what to call."""
        session, token = _session_of(HARBOR), Token.objects.get(user=HARBOR.user)
        api_key = new_api_key(HARBOR.organization)
        lines = {
            "A member's session": f"-b sessionid={session} {url}/api/forecast/",
            "The same, an async view": f"-b sessionid={session} {url}/api/radar/",
            "A DRF token; this view takes 25": f'-H "Authorization: Token {token}" {url}/api/climate-report/',
            "A DRF token; also records tokens": (
                f'-H "Authorization: Token {token}" -d "text=Rain, then sun." {url}/api/summary/'
            ),
            "An API key": f'-H "Authorization: Api-Key {api_key}" {url}/api/observations/',
            "Past the limit: 429": f"-b sessionid={_session_of(AMBER)} {url}/api/forecast/",
            "A feature that the plan lacks: 403": f"-b sessionid={_session_of(FJORD)} {url}/api/export.csv",
            "Not counted": f"{url}/api/health/",
            "What has been used": f'-H "Authorization: Token {token}" {url}/usage/current/',
        }
        for title, line in lines.items():
            self.stdout.write(f"# {title}\ncurl -i {line}\n\n")
        members = ", ".join(story.username for story in (*CALLERS, *RESETS))
        self.stdout.write(f"The site:  {url}/  (log in as one of {members}; the password is {PASSWORD})")
        self.stdout.write(f"The admin: {url}/admin/  (log in as {ADMIN}; the password is {ADMIN})\n\n")


def _session_of(story: Story) -> str:
    return str(job.client_with_session(story).session.session_key)
