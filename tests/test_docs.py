"""The manual and the code say the same."""

import ast
import importlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from django.core.management import BaseCommand, get_commands, load_command_class
from django.test import RequestFactory

from usage_tracking.metering import consume, history_of, record, usage_of
from usage_tracking.models import UsageEvent, UsagePeriod
from usage_tracking.periods import Calendar, ResetPeriod, parse_anchor
from usage_tracking.verification import verify_usage

CHECKOUT = Path(__file__).resolve().parent.parent
DOCS = CHECKOUT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))

FENCE = re.compile(r"^(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL)
CAPTION = re.compile(r"\A:caption: (?P<caption>.*)\n+")


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Return (language, caption, text) of each code block of a page."""
    found = []
    for match in FENCE.finditer(page.read_text()):
        language = match["info"].removeprefix("{code-block}").strip()
        caption = CAPTION.match(match["body"])
        found.append((language, caption["caption"] if caption else "", CAPTION.sub("", match["body"])))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_python_in_the_docs_compiles(page):
    """Every Python example can at least be parsed."""
    for language, _, text in blocks(page):
        if language == "python":
            ast.parse(textwrap.dedent(text), filename=str(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_names_that_the_docs_import_exist(page):
    """What an example imports from the package is there."""
    for language, _, text in blocks(page):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(textwrap.dedent(text))):
            if not (isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("usage_tracking")):
                continue
            if node.module.startswith("usage_tracking.api"):
                pytest.importorskip("rest_framework")
            module = importlib.import_module(node.module)
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def anchors(page: Path) -> set[str]:
    """Return what GitHub calls the headings of a page: lower case, punctuation gone, hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [CHECKOUT / "README.md", *PAGES], ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_links_to_headings_work_on_github_too(page):
    """Sphinx, which warns of its own, also finds them under the names that GitHub gives them."""
    lost = []
    for path, heading in re.findall(r"\]\(([^)\s:#]*)#([^)\s]+)\)", FENCE.sub("", page.read_text())):
        if heading not in anchors(page.parent / path if path else page):
            lost.append(f"{path}#{heading}")
    assert lost == []


INTERNAL = {
    "PreparedResolver",
    "ViewUsage",
    "boundaries_between",
    "consume_at_once",
    "denial",
    "prepare_resolver",
    "usage_of_view",
}
"""In `__all__` for other modules of the package; nothing a host needs."""


@pytest.mark.parametrize(
    "module",
    [
        "decorators",
        "entitlements",
        "exceptions",
        "history",
        "metering",
        "pruning",
        "reports",
        "resets",
        "resolvers",
        "signals",
        "testing",
        "verification",
    ],
)
def test_each_public_name_is_in_the_reference(module):
    """No public name is left out of the reference pages."""
    reference = "".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    if f"automodule:: usage_tracking.{module}\n   :members:" in reference:
        return
    names = set(importlib.import_module(f"usage_tracking.{module}").__all__) - INTERNAL
    assert {name for name in names if not re.search(rf"(?<!a)\b{name}\b", reference)} == set()


def test_the_table_of_reset_days_is_right():
    """Each anchor in the table gives the boundaries that the table says."""
    rows = re.findall(
        r"^\|[^|]+\| `(\w+)` \| `([\dT:-]+)` \| ([\d, -]+) \|$",
        (DOCS / "how-to" / "resets.md").read_text(),
        re.MULTILINE,
    )
    assert len(rows) == 7
    for reset_period, anchor, dates in rows:
        calendar = Calendar(ResetPeriod(reset_period), parse_anchor(anchor))
        moment = datetime(2027, 1, 1, tzinfo=UTC)
        boundaries = []
        while moment.year == 2027:
            moment = calendar.next_boundary(moment)
            boundaries.append(moment.date().isoformat())
        expected = dates.strip().split(", ")
        first = boundaries.index(expected[0])
        assert boundaries[first : first + len(expected)] == expected


def test_the_tutorial_works(tmp_path):
    """Its files, written as it says, and its commands, run as it says, end in what it shows."""
    if not (shutil.which("curl") and shutil.which("bash")):
        pytest.skip("the tutorial is for a Unix shell with curl")
    tutor = Tutor(tmp_path)
    try:
        for language, caption, text in blocks(DOCS / "tutorial.md"):
            if caption:
                tutor.write(caption, text)
            elif language == "console":
                tutor.type(text)
    finally:
        tutor.stop()
    output = "".join(tutor.output)
    assert '{"hello": "ann"}' in output
    assert "200\n200\n200\n200\n429\n" in output
    assert '"detail": "This request needs 1 of the quota “api”; 0 of 5 are left.' in output
    assert "5 of 5, 100 %, resets at" in output
    assert "100 requests remain" in output


class Tutor:
    """Follows a tutorial in an empty folder, with the Python that runs the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output: list[str] = []
        self.server: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "COV", "PYTEST"))},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(CHECKOUT),
            "NO_PROXY": "127.0.0.1",
        }

    def write(self, caption: str, text: str) -> None:
        """Write or extend the file that a block's caption names."""
        name, _, where = caption.partition(", ")
        with (self.folder / name).open("a" if where == "at the end" else "w") as file:
            file.write(text)

    def type(self, text: str) -> None:
        """Run the commands of a console block; the server goes on while the next ones run."""
        commands = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
        # The folder and the virtual environment are there already.
        commands = [line for line in commands if not re.match(r"mkdir|python3 -m venv|\. |pip ", line)]
        script = "\n".join(["touch .variables; . ./.variables", *commands]).replace("8000", str(self.port))
        if "runserver" in script:
            self.server = subprocess.Popen(  # noqa: S602 - the manual's own commands
                f"exec {script.splitlines()[-1]} --noreload",
                shell=True,
                cwd=self.folder,
                env=self.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            self._wait()
            return
        script = f"set -e\n{script}\ndeclare -p login token > .variables 2> /dev/null || true\n"
        ran = subprocess.run(
            ["bash", "-c", script],  # noqa: S607 - the reader's own shell
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, f"{text}\n{ran.stdout}\n{ran.stderr}"
        self.output.append(ran.stdout)

    def stop(self) -> None:
        """Stop the server."""
        if self.server is not None:
            self.server.terminate()
            self.server.wait(10)

    def _wait(self) -> None:
        for _ in range(150):
            with socket.socket() as client:
                if not client.connect_ex(("127.0.0.1", self.port)):
                    return
            time.sleep(0.1)
        pytest.fail("the tutorial's server does not answer")


# -- commands ----------------------------------------------------------------------------------------------------------

OURS = sorted(name for name, app in get_commands().items() if app == "usage_tracking")
COMMAND_LINE = re.compile(rf"manage\.py ((?:{'|'.join(OURS)})\b[^`|>\n]*)")


def test_command_lines_in_the_docs_are_understood():
    """Cron lines and examples have no command and no option that there is none of."""
    lines = [line for page in [*PAGES, CHECKOUT / "README.md"] for line in COMMAND_LINE.findall(page.read_text())]
    assert {line.split()[0] for line in lines} == set(OURS)
    for line in lines:
        name, *arguments = shlex.split(line)
        load_command_class("usage_tracking", name).create_parser("manage.py", name).parse_args(arguments)


@pytest.mark.parametrize("name", OURS)
def test_each_option_is_in_the_reference(name):
    """Every command has a section, which names what it takes beyond what all commands take."""
    text = (DOCS / "reference" / "commands.md").read_text()
    section = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    parser = load_command_class("usage_tracking", name).create_parser("manage.py", name)
    shared = set(BaseCommand().create_parser("manage.py", "none")._option_string_actions)
    options = {option for option in parser._option_string_actions if option.startswith("--")} - shared
    assert {option for option in options if option not in section} == set()


# -- recipes -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def recipe(monkeypatch):
    """Run the code of a how-to that has a caption, in a project whose models are given: `recipe(page, caption, …)`."""

    def run(page, caption, **models):
        monkeypatch.setitem(sys.modules, "accounts", ModuleType("accounts"))
        module = ModuleType("accounts.models")
        vars(module).update(models)
        monkeypatch.setitem(sys.modules, "accounts.models", module)
        (code,) = [text for _, name, text in blocks(DOCS / "how-to" / page) if name == caption]
        namespace = {"__name__": caption}
        exec(compile(code, caption, "exec"), namespace)  # noqa: S102 - the manual's own code
        return namespace

    return run


def test_the_billing_webhook_changes_plans(organization, configure, settings, recipe):
    """Its events move the customer's organization to a plan and back, once each; whoever has no secret does not."""
    configure(PLANS={"free": {}, "pro": {"limits": {"api": 9}}, "team": {}})
    settings.BILLING_SECRET = "whsec"
    consume(organization)

    class Customers:
        def filter(self, *, billing_id):
            return type(organization).objects.filter(pk=organization.pk if billing_id == "cus_1" else None)

    webhook = recipe("billing.md", "accounts/billing.py", Organization=SimpleNamespace(objects=Customers()))["webhook"]

    def call(kind, *, customer="cus_1", key="whsec"):
        body = {"id": "evt_1", "type": kind, "data": {"object": {"customer": customer, "price": "price_pro"}}}
        request = RequestFactory().post(
            "/billing/", body, content_type="application/json", headers={"X-Billing-Secret": key}
        )
        status = webhook(request).status_code
        organization.refresh_from_db()
        return status, organization.usage_plan, usage_of(organization).limit

    assert call("customer.subscription.created", key="wrong") == (403, "", 1000)
    assert call("customer.subscription.created", customer="cus_2") == (202, "", 1000)
    assert call("invoice.paid") == (204, "", 1000)
    for _ in range(2):
        assert call("customer.subscription.updated") == (204, "pro", 9)
    assert call("customer.subscription.deleted") == (204, "", 1000)
    changes = UsageEvent.objects.filter(kind="limits_updated").order_by("pk")
    assert [(event.reason, event.data["changes"]["plan"]["new"]) for event in changes] == [
        ("billing event evt_1", "pro"),
        ("billing event evt_1", ""),
    ]


def test_the_import_of_counts_sets_what_is_used(organization, recipe):
    """It may run twice; thresholds that are reached are on record once, and the event says why."""
    old = SimpleNamespace(organization=organization, requests=900)

    class Counts:
        def select_related(self, name):
            return self

        def iterator(self):
            return iter([old])

    path = "accounts/management/commands/import_usage.py"
    command = recipe("importing.md", path, OldCount=SimpleNamespace(objects=Counts()))["Command"]
    for _ in range(2):
        command().handle()
        assert usage_of(organization).used == 900
    assert UsageEvent.objects.filter(kind="warning").count() == 1
    assert {event.reason for event in UsageEvent.objects.filter(kind="adjusted")} == {"import from OldCount"}
    assert list(verify_usage()) == []


def test_the_import_of_the_past_fills_the_history(organization):
    """Each month becomes a period, each day a row, as the how-to says of `record(now=…)`; the books are sound."""
    noon = datetime(2026, 3, 30, 12, tzinfo=UTC)
    for days in range(5):
        record(organization, 7, now=noon + timedelta(days=days))
    points = history_of(organization, since=noon, until=noon + timedelta(days=4, hours=1), now=noon)
    assert [point.used for point in points] == [7] * 5
    assert list(UsagePeriod.objects.order_by("start").values_list("used", flat=True)) == [14, 21]
    assert list(verify_usage()) == []


def test_the_readme_links_each_page():
    """Whoever starts at the README finds all of the manual, and no link leads nowhere."""
    links = set(re.findall(r"\]\((docs/[^)#]+\.md)\)", (CHECKOUT / "README.md").read_text()))
    assert links == {str(page.relative_to(CHECKOUT)) for page in PAGES}
