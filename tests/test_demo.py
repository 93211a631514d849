"""The example project's demo: the first thing that a newcomer runs."""

import os
import re
import shlex
import shutil
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

CHECKOUT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-u", str(CHECKOUT / "example_project" / "manage.py"), "demo"]

for needed in ("rest_framework_api_key", "tqdm"):
    pytest.importorskip(needed, reason="The demo needs the extra `example`.")

pytestmark = pytest.mark.skipif(
    connection.vendor != "sqlite" or settings.USAGE_TRACKING_ORGANIZATION_MODEL != "testapp.Organization",
    reason="The demo has a database and organizations of its own: once is enough.",
)


def environment(database: Path) -> dict[str, str]:
    """Return the environment of somebody who knows nothing of our tests."""
    ours = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
    return ours | {"PYTHONPATH": str(CHECKOUT), "EXAMPLE_DATABASE": str(database), "PYTHONWARNINGS": "error"}


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    """Return where the demo keeps its rows."""
    return tmp_path_factory.mktemp("demo") / "db.sqlite3"


@pytest.fixture(scope="module")
def runs(database) -> list[subprocess.CompletedProcess[str]]:
    """Run the demo's main job twice on one database."""
    return [
        subprocess.run([*COMMAND, "--no-serve"], env=environment(database), capture_output=True, text=True, check=False)
        for _ in range(2)
    ]


def table(output: str, columns: int) -> dict[str, list[str]]:
    """Return the table that has so many columns: the other cells by the first of the line."""
    lines = [re.split(r"\s{2,}", line) for line in output.splitlines()]
    return {first: others for first, *others in lines if len(others) == columns - 1}


def test_running_the_demo_twice_works(runs):
    """Each run ends well, and without a warning."""
    assert [(run.returncode, run.stderr) for run in runs] == [(0, ""), (0, "")]


def test_each_run_ends_with_what_became_of_the_organizations(runs):
    """The table has each kind of caller: used, limit, remaining, refused, warnings and exceeded notices received."""
    for run in runs:
        found = table(run.stdout, columns=10)
        assert found["organization"][3:] == ["used", "limit", "remaining", "refused", "warnings", "exceeded"]
        assert found["Amber Bakery"] == ["session", "free", "hard", "100", "100", "0", "21", "1", "1"]
        assert found["Delta Freight"] == ["async session", "pro", "hard", "200", "200", "0", "21", "1", "1"]
        # 25 at once: what is left is less than that.
        *caller, used, limit, remaining, refused, warnings, exceeded = found["Bolt Robotics"]
        assert (caller, int(used) + int(remaining), limit) == (["DRF token", "pro", "hard"], 1000, "1000")
        assert (int(remaining) < 25, refused, warnings, exceeded) == (True, "1", "1", "1")
        # Soft enforcement: past the limit, and nothing refused.
        *caller, used, limit, remaining, refused, warnings, exceeded = found["Ember Energy"]
        assert (caller, int(used) > 150, limit, remaining) == (["DRF token", "pro", "soft"], True, "150", "0")
        assert (refused, warnings, exceeded) == ("0", "1", "1")
        *caller, _, limit, remaining, refused, warnings, exceeded = found["Cobalt Labs"]
        assert caller == ["API key", "enterprise", "soft"]
        assert [limit, remaining, refused, warnings, exceeded] == ["unlimited", "unlimited", "0", "0", "0"]


def test_each_run_shows_a_reset_of_each_kind(runs):
    """Lazy, scheduled and manual, with what was used before and after."""
    for run in runs:
        found = table(run.stdout, columns=6)
        used = {
            mode: [int(cell.partition(" since ")[0]) for cell in found[mode][-2:]]
            for mode in ("lazy", "scheduled", "manual")
        }
        assert {mode: after for mode, (_, after) in used.items()} == {"lazy": 1, "scheduled": 12, "manual": 0}
        assert all(before > 12 for before, _ in used.values())
        # The job came late: it gave each of the days that it had missed a period of its own.
        assert {mode: found[mode][2] for mode in used} == {"lazy": "1", "scheduled": "4", "manual": "1"}


def test_the_history_of_the_demo_is_genuine(runs, database):
    """Each organization has a row for each of 90 days, and every period is the sum of its rows and its open bucket."""
    with closing(sqlite3.connect(database)) as rows:
        days = rows.execute(
            "SELECT organization_id, count(DISTINCT date(start)) FROM usage_tracking_usagehistory "
            "WHERE meter = 'api' GROUP BY organization_id"
        ).fetchall()
        assert [count >= 90 for _, count in days] == [True] * 8
        drifted = rows.execute(
            "SELECT period.id FROM usage_tracking_usageperiod period LEFT JOIN usage_tracking_usagehistory history "
            "ON history.period_id = period.id GROUP BY period.id "
            "HAVING period.used_before_bucket != coalesce(sum(history.used), 0)"
        ).fetchall()
        assert drifted == []


@pytest.mark.skipif(shutil.which("curl") is None, reason="There is no curl to try the lines with.")
def test_every_curl_line_that_the_demo_prints_works(runs, database):
    """Each line, as it stands, is answered with the status that its title announces."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [*COMMAND, "--port", str(port)],
        env=environment(database),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with server:
        assert server.stdout is not None
        printed = ""
        for line in server.stdout:
            printed += line
            if "Quit the server" in line:
                break
        try:
            lines = re.findall(r"^# (.+)\n(curl .+)$", printed, re.MULTILINE)
            assert len(lines) == 9
            for title, line in lines:
                answer = subprocess.run(
                    [*shlex.split(line), "--silent", "--max-time", "30"],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
                announced = re.search(r": (\d{3})$", title)
                assert answer.split()[1] == (announced[1] if announced else "200"), (line, answer)
        finally:
            server.kill()
