"""A real browser, and the example project to look at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from django.conf import settings
from django.db import connection

from tests.chromium import CHROMIUM, FLAGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHECKOUT = Path(__file__).resolve().parents[2]
AXE = CHECKOUT / "tests" / "js" / "node_modules" / "axe-core" / "axe.min.js"


def missing() -> str | None:
    """Why there are no browser tests here, or None when there are."""
    try:
        import playwright  # noqa: F401, PLC0415 - only whether it is there
        import rest_framework_api_key  # noqa: F401, PLC0415
        import whitenoise  # noqa: F401, PLC0415
    except ImportError as error:
        return f"{error}. To run these tests: tox run -e browser"
    if not CHROMIUM:
        return "There is no Chromium. To run these tests: apt-get install chromium, or name one in CHROMIUM."
    if not AXE.exists():
        return "There is no axe-core. To run these tests: npm --prefix tests/js ci"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a browser where there is none; fail instead where services are required."""
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    if connection.vendor != "sqlite" or settings.USAGE_TRACKING_ORGANIZATION_MODEL != "testapp.Organization":
        reason = "The example has a database and organizations of its own: once is enough."
    elif (reason := missing()) and os.environ.get("USAGE_TRACKING_REQUIRE_SERVICES") == "1" and ours:
        pytest.exit(reason, returncode=pytest.ExitCode.TESTS_FAILED)
    if reason:
        for item in ours:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Iterator[dict[str, Any]]:
    """Serve the example project: `{"url": …, "users": {name: {"session": …, "organization": …}}}`."""
    folder = tmp_path_factory.mktemp("site")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("DJANGO_", "COV_"))}
    environment |= {
        "PYTHONPATH": str(CHECKOUT),
        "EXAMPLE_DATABASE": str(folder / "db.sqlite3"),
        "STATIC_ROOT": str(folder / "static"),
        "REACT_BUNDLE": str(folder / "react.js"),
    }
    command = [sys.executable, "-m", "tests.browser.serve"]
    with subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        try:
            yield {**json.loads(line), "react": environment["REACT_BUNDLE"]}
        finally:
            server.kill()


@pytest.fixture(scope="package")  # its event loop must not outlive it
def chromium() -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - not everybody has it

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


class Visit:
    """One user's browser window, which minds every violation of the policy and every error in the console."""

    def __init__(self, page: Any, site: dict[str, Any]) -> None:
        self.page = page
        self.url = site["url"]
        self.complaints: list[str] = []
        page.set_default_timeout(20_000)
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _said(self, message: Any) -> None:
        # That the server answered 401 or 404 is news to the console; whether it should is the test's to say.
        if message.type in {"error", "warning"} and not message.text.startswith("Failed to load resource"):
            self.complaints.append(message.text)

    def open(self, path: str, **query: str) -> Any:
        """Open a page of the site and return it."""
        self.page.goto(f"{self.url}{path}" + (f"?{urlencode(query)}" if query else ""))
        return self.page

    def show(self, body: str, **query: str) -> Any:
        """Open a page with this HTML and return it once the elements are defined."""
        page = self.open("/playground/", body=body, **query)
        page.evaluate("customElements.whenDefined('usage-dashboard').then(() => true)")
        return page

    def check_accessibility(self) -> None:
        """Let axe-core look at the page: WCAG 2.2 AA, shadow roots included."""
        self.page.evaluate(AXE.read_text())
        found = self.page.evaluate(
            "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']})"
            ".then(({violations}) => violations.map(({id, nodes}) => [id, ...nodes.map(node => "
            "node.html + ' ' + node.failureSummary)]))"
        )
        assert found == []


@pytest.fixture
def visit(chromium, site) -> Iterator[Callable[..., Visit]]:
    """Open a window for a user, or for nobody: `visit("bob", color_scheme="dark")`."""
    visits: list[Visit] = []

    def open_window(user: str | None = None, **options: Any) -> Visit:
        context = chromium.new_context(**{"viewport": {"width": 1100, "height": 800}, "locale": "en-US", **options})
        if user:
            session = site["users"][user]["session"]
            context.add_cookies([{"name": "sessionid", "value": session, "url": site["url"]}])
        visits.append(Visit(context.new_page(), site))
        return visits[-1]

    yield open_window
    for each in visits:
        each.page.context.close()
    assert [complaint for each in visits for complaint in each.complaints] == []
