"""The commands: what they do, what they print where, how they end, and what they make of nonsense."""

import csv
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import translation

from tests.factories import Organization, OrganizationFactory
from usage_tracking.management import base
from usage_tracking.metering import consume
from usage_tracking.models import UsageEvent, UsageHistory, UsagePeriod
from usage_tracking.signals import usage_reset

NOW = datetime(2026, 6, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)
COMMANDS = sorted(
    path.stem for path in Path(base.__file__).with_name("commands").glob("*.py") if path.stem != "__init__"
)


class Terminal(io.StringIO):
    """Where somebody is looking."""

    def isatty(self) -> bool:
        return True


def run(name, *arguments, **options):
    """Run a command and return what it prints on stdout."""
    out = io.StringIO()
    call_command(name, *arguments, stdout=out, **options)
    return out.getvalue()


def key_of(organization):
    """Return the organization's key as JSON has it."""
    return organization.pk if isinstance(organization.pk, int) else str(organization.pk)


def everything():
    """Return every row of the usage tables and of the organizations."""
    return [
        list(model._base_manager.order_by("pk").values())
        for model in (UsagePeriod, UsageHistory, UsageEvent, Organization)
    ]


@pytest.fixture
def used(organization, configure, freeze):
    """An organization with a closed period, one that has expired, old history and an event that waits."""
    configure(METERS={"tokens": {}}, PLANS={"free": {}, "pro": {"limits": {"api": 50}}}, RESET_MODE="scheduled")
    for days in (100, 60, 20):
        freeze(NOW - days * DAY)
        consume(organization, 2)
        call_command("reset_expired_usage", verbosity=0)
    consume(organization, 3, "tokens")
    freeze(NOW)
    return organization


# -- what they do ------------------------------------------------------------------------------------------------------


def test_reset_expired_usage_closes_what_has_ended(used):
    """It says how much it was; a second run has nothing to do."""
    assert run("reset_expired_usage") == "Periods closed: 2, of organizations: 1.\n"
    assert run("reset_expired_usage") == "Periods closed: 0, of organizations: 0.\n"


def test_reset_expired_usage_of_some(used):
    """Of those whose keys are given."""
    other = OrganizationFactory()
    assert "closed: 0" in run("reset_expired_usage", organization=[other.pk])
    assert "closed: 2" in run("reset_expired_usage", f"--organization={used.pk}", f"--organization={other.pk}")


def test_reset_expired_usage_says_what_failed(used, monkeypatch, caplog):
    """The exit code is 3, so that a monitor sees it."""
    monkeypatch.setattr(Organization, "get_usage_plan", lambda self: {}[self.pk])
    with pytest.raises(CommandError, match="could not be closed: 2") as caught:
        run("reset_expired_usage")
    assert caught.value.returncode == 3


def test_reset_expired_usage_can_be_cut_short(used):
    """With --limit it ends after so many organizations and says that there are more."""
    other = OrganizationFactory()
    consume(other, now=NOW - 90 * DAY)
    assert run("reset_expired_usage", "--limit=1").endswith("of organizations: 1.\nMore have expired: run it again.\n")
    assert run("reset_expired_usage", "--limit=1").endswith("of organizations: 1.\n")


def test_deliver_usage_events_sends_what_waits(used, connected):
    """What a crash left behind, once."""
    connected(usage_reset, lambda **_: None)
    assert UsageEvent.objects.filter(delivered_at=None).count() == 2
    assert run("deliver_usage_events", "--database=default") == "Events delivered: 2.\n"
    assert run("deliver_usage_events") == "Events delivered: 0.\n"


def test_sync_usage_limits_holds_all_to_the_settings(used, configure):
    """After an edit of PLANS, at once."""
    OrganizationFactory()
    configure(PLANS={"free": {"limits": {"api": 7}}})
    assert run("sync_usage_limits") == "Organizations synced: 1, of 2.\n"
    assert UsagePeriod.objects.get(is_open=True, meter="api").limit == 7
    assert run("sync_usage_limits", organization=[used.pk]) == "Organizations synced: 0, of 1.\n"


def test_sync_usage_limits_says_what_failed(used, monkeypatch, caplog):
    """The exit code is 3."""
    monkeypatch.setattr(Organization, "get_usage_plan", lambda self: {}[self.pk])
    with pytest.raises(CommandError, match="could not be synced: 1") as caught:
        run("sync_usage_limits")
    assert caught.value.returncode == 3


def test_prune_usage_history_deletes_what_is_old(used, configure):
    """By the setting, or by the option; without either it deletes nothing and says so."""
    assert run("prune_usage_history") == "HISTORY_RETENTION_DAYS is None: all history is kept.\n"
    assert run("prune_usage_history", "--days=90").startswith("Rows deleted: 1. Periods pruned for the first time: 1.")
    configure(HISTORY_RETENTION_DAYS=30)
    assert run("prune_usage_history").startswith("Rows deleted: 1.")
    assert UsageHistory.objects.count() == 1 - 1


def test_verify_usage_finds_nothing_in_sound_books(used):
    """It says that it has looked."""
    assert run("verify_usage") == "Organizations: 1. Findings: 0, repaired: 0.\n"


def test_verify_usage_prints_drift_and_repairs_it(used):
    """Exit code 3 while something is left, 0 once it is mended."""
    closed = UsagePeriod.objects.order_by("start").first()
    UsagePeriod.objects.filter(pk=closed.pk).update(used=9)
    line = f"drift: organization {used.pk}, api since 2026-03-01T00:00:00+00:00 (period {closed.pk}): it says 9, its history says 2"  # noqa: E501
    out = io.StringIO()
    with pytest.raises(CommandError, match="not repaired: 1") as caught:
        call_command("verify_usage", stdout=out)
    assert caught.value.returncode == 3
    assert out.getvalue() == f"{line}\nOrganizations: 1. Findings: 1, repaired: 0.\n"
    assert run("verify_usage", "--meter=tokens").endswith("Findings: 0, repaired: 0.\n")
    repaired = run("verify_usage", "--repair", "--reason=restored a backup")
    assert repaired == f"{line} (repaired)\nOrganizations: 1. Findings: 1, repaired: 1.\n"
    assert UsageEvent.objects.get(kind="adjusted").reason == "restored a backup"
    assert run("verify_usage").endswith("Findings: 0, repaired: 0.\n")


@pytest.mark.parametrize("problem", ["drift", "negative", "stray", "overlap", "gap", "not-open", "untold"])
def test_verify_usage_has_words_for_every_problem(problem):
    """A new problem needs a line of its own."""
    from usage_tracking.management.commands.verify_usage import EXPLANATIONS  # noqa: PLC0415
    from usage_tracking.verification import Problem  # noqa: PLC0415

    assert list(EXPLANATIONS) == list(Problem)
    assert str(EXPLANATIONS[Problem(problem)])


# -- reports -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def named(used):
    """Organizations whose names are trouble."""
    Organization.objects.filter(pk=used.pk).update(name="東京, “Ltd”")
    for name in ("=1+1", "\x1b[2J", '@SUM("A1")'):
        OrganizationFactory(name=name)
    return used


def test_usage_report_as_a_table(named):
    """Columns are aligned, wide characters or not, and no name can steer the terminal."""
    title, *lines = run("usage_report", "--meter=api").splitlines()
    assert title.split()[:5] == ["organization", "name", "plan", "meter", "used"]
    assert len(lines) == 4
    column = title.index("plan")
    [wide] = [line for line in lines if "東京" in line]
    lines.remove(wide)
    assert [line[column : column + 4] for line in lines] == ["free"] * 3
    # Two characters here take two columns each.
    assert wide[column - 2 : column + 2] == "free"
    assert "\x1b" not in "".join(lines)
    assert wide.split()[4:6] == ["api", "2"]


def test_usage_report_as_csv(named):
    """A spreadsheet shows it and runs nothing."""
    rows = list(csv.DictReader(io.StringIO(run("usage_report", "--format=csv", "--meter=api"), newline="")))
    assert {row["name"] for row in rows} == {"東京, “Ltd”", "'=1+1", "\x1b[2J", '\'@SUM("A1")'}
    assert next(row for row in rows if row["name"][0] == "東") | {
        "organization": "",
        "period_start": "",
        "resets_at": "",
    } == {
        "organization": "",
        "name": "東京, “Ltd”",
        "plan": "free",
        "meter": "api",
        "used": "2",
        "limit": "1000",
        "remaining": "998",
        "overage": "0",
        "percentage": "0",
        "period_start": "",
        "resets_at": "",
    }


def test_usage_report_as_json(named):
    """One valid document, whatever the key of the organization is."""
    rows = json.loads(run("usage_report", "--format=json"))
    assert len(rows) == 8
    assert {row["organization"] for row in rows if row["name"][0] == "東"} == {key_of(named)}
    assert {row["name"] for row in rows} == {"東京, “Ltd”", "=1+1", "\x1b[2J", '@SUM("A1")'}
    assert [row["limit"] for row in rows if row["used"] == 3] == [None]


def test_usage_report_of_nobody(db):
    """Is a title, and an empty list."""
    assert run("usage_report").startswith("organization  name")
    assert json.loads(run("usage_report", "--format=json")) == []
    assert len(run("usage_report", "--format=csv").splitlines()) == 1


def test_usage_report_of_a_range(used):
    """One row for all of it, or one for each bucket."""
    options = ["--format=json", "--meter=api", "--since=2026-03-01", "--until=2026-05-01"]
    (row,) = json.loads(run("usage_report", *options))
    assert (row["used"], row["start"], row["end"]) == (4, "2026-03-01T00:00:00Z", "2026-05-01T00:00:00Z")
    rows = json.loads(run("usage_report", *options, "--bucket=month"))
    assert [(row["start"][:7], row["used"]) for row in rows] == [("2026-03", 2), ("2026-04", 2)]
    instants = ["--since=2026-03-01T00:00Z", "--until=2026-04-30T22:00-02:00"]
    assert json.loads(run("usage_report", "--format=json", "--meter=api", *instants)) == [row | {"used": 4}]


def test_usage_report_of_some(used):
    """By key, by plan and by meter."""
    pro = OrganizationFactory(usage_plan="pro")
    keys = lambda *options: [row["organization"] for row in json.loads(run("usage_report", "--format=json", *options))]  # noqa: E731
    ours, theirs = key_of(used), key_of(pro)
    assert keys("--plan=pro") == [theirs] * 2
    assert keys(f"--organization={used.pk}", "--meter=tokens") == [ours]
    assert sorted(keys("--meter=tokens"), key=str) == sorted([ours, theirs], key=str)


# -- where they print --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "usage_report"])
def test_silence_is_silent(used, name, capsys):
    """With --verbosity 0 a command prints nothing, so that cron has no mail to send."""
    assert run(name, "--verbosity=0") == ""
    assert capsys.readouterr() == ("", "")


def test_a_pipe_gets_plain_lines(used, monkeypatch):
    """Progress goes to stderr, a line now and then, so that stdout can be piped."""
    monkeypatch.setattr(base, "LINE_EVERY", 2)
    OrganizationFactory.create_batch(4)
    err = io.StringIO()
    assert run("verify_usage", stderr=err) == "Organizations: 5. Findings: 0, repaired: 0.\n"
    assert err.getvalue() == "5 / 5 organizations\n"
    err = io.StringIO()
    json.loads(run("usage_report", "--format=json", "--meter=api", stderr=err))
    assert err.getvalue() == "2 rows\n4 rows\n"


def test_a_terminal_gets_a_bar(used, capsys):
    """Where tqdm is installed."""
    pytest.importorskip("tqdm", reason="tqdm draws the bar: pip install django-usage-tracking[progress]")
    run("verify_usage", stderr=Terminal())
    assert "100%" in capsys.readouterr().err


def test_a_terminal_without_tqdm_gets_lines(used, monkeypatch):
    """As a pipe does."""
    monkeypatch.setattr(base, "tqdm", None)
    monkeypatch.setattr(base, "LINE_EVERY", 1)
    err = Terminal()
    run("verify_usage", stderr=err)
    assert err.getvalue() == "1 / 1 organizations\n"


def test_rows_on_a_terminal_are_progress_enough(used):
    """A bar would tear the table."""
    err = Terminal()
    call_command("usage_report", stdout=Terminal(), stderr=err)
    assert err.getvalue() == ""


@pytest.mark.django_db(transaction=True)
def test_exit_codes_of_a_process(used, test_database_url):
    """0 when all is well, 1 for bad input, 2 for an option that there is none of, 3 when something is left."""

    def ended(*command):
        finished = subprocess.run(
            [sys.executable, "-m", "django", *command],
            env=os.environ | {"DATABASE_URL": test_database_url, "DJANGO_SETTINGS_MODULE": "tests.settings"},
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        return finished.returncode, finished.stdout, finished.stderr

    assert ended("verify_usage") == (0, "Organizations: 1. Findings: 0, repaired: 0.\n", "")
    assert ended("verify_usage", "--meter=calls")[::2] == (
        1,
        "CommandError: --meter: meter 'calls' is not in METERS. Known: api.\n",
    )
    assert ended("verify_usage", "--colour=red")[0] == 2
    UsagePeriod.objects.filter(is_open=None).update(used=9)
    code, out, err = ended("verify_usage")
    assert (code, out.count("drift"), err) == (3, 2, "CommandError: Findings that were not repaired: 2.\n")


BASH = shutil.which("bash")


@pytest.mark.skipif(BASH is None, reason="a pipe is made by a shell")
@pytest.mark.django_db(transaction=True)
def test_a_reader_that_has_enough_ends_it_quietly(used, test_database_url):
    """`usage_report | head -1` prints one line and no traceback."""
    python = shlex.quote(sys.executable)
    long = "usage_report --since=2001-01-01 --until=2026-01-01 --bucket=day --format=csv"
    finished = subprocess.run(
        [BASH, "-c", f"{python} -m django {long} | head -1; exit ${{PIPESTATUS[0]}}"],
        env=os.environ | {"DATABASE_URL": test_database_url, "DJANGO_SETTINGS_MODULE": "tests.settings"},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (finished.returncode, finished.stdout.count("\n"), finished.stderr) == (141, 1, "")


# -- nonsense ----------------------------------------------------------------------------------------------------------

RANGE = ["--since=2026-03-01", "--until=2026-05-01"]

# (the command, its arguments, the option that the error names)
BAD: list[tuple[str, list[str], str]] = [
    *[
        (name, [f"--organization={key}"], "--organization")
        for name in ("reset_expired_usage", "sync_usage_limits", "verify_usage", "usage_report")
        for key in ("nobody", "999999", "-1", "", "1e3", "10" * 30, "0.5", "00000000-0000-0000-0000-000000000000")
    ],
    *[
        (name, [f"--database={alias}", *options], "--database")
        for name, *options in (["deliver_usage_events"], ["verify_usage"], ["prune_usage_history", "--days=1"])
        for alias in ("defualt", "", "db.sqlite3")
    ],
    *[("reset_expired_usage", [f"--limit={limit}"], "--limit") for limit in (0, -1, "1.5", "ten", "", "1" * 31)],
    *[("prune_usage_history", [f"--days={days}"], "--days") for days in (0, -1, "1.5", "ten", "", "1" * 31, 36_501)],
    *[(name, [f"--meter={meter}"], "--meter") for name in ("verify_usage", "usage_report") for meter in ("calls", "")],
    ("verify_usage", ["--repair", "--reason=\0"], "--reason"),
    ("verify_usage", ["--reason=nothing to repair"], "--reason"),
    *[("usage_report", [f"--plan={plan}"], "--plan") for plan in ("gold", "", "Free")],
    *[
        ("usage_report", [*RANGE, f"--{option}={moment}"], f"--{option}")
        for option in ("since", "until")
        for moment in (
            "yesterday",
            "2026-02-30",
            "2026-13-01",
            "1/3/2026",
            "2026-03-01T00:00",
            "20260301",
            "",
            "0001-01-01",
        )
    ],
    ("usage_report", ["--since=2026-05-01", "--until=2026-03-01"], "--since"),
    ("usage_report", ["--since=2026-05-01", "--until=2026-05-01"], "--since"),
    ("usage_report", ["--since=1901-05-01", "--until=2199-05-01"], "--since"),
    ("usage_report", ["--since=2026-05-01"], "--until"),
    ("usage_report", ["--until=2026-05-01"], "--since"),
    ("usage_report", ["--bucket=day"], "--since"),
    ("usage_report", [*RANGE, "--bucket=fortnight"], "--bucket"),
    ("usage_report", [*RANGE, "--bucket=hour"], "--bucket"),
    ("usage_report", ["--format=xml"], "--format"),
    *[(name, ["surplus"], "surplus") for name in COMMANDS],
]


# Of call_command() with keywords, which does not go through the parser.
BAD_KEYWORDS: list[tuple[str, dict[str, Any], str]] = [
    *[("prune_usage_history", {"days": days}, "--days") for days in (True, 1.0, "30", float("nan"), -1, 10**30)],
    *[("reset_expired_usage", {"limit": limit}, "--limit") for limit in (True, 1.0, "30", float("nan"), -1, 10**30)],
    ("usage_report", {"since": 5, "until": "2026-05-01"}, "--since"),
    ("usage_report", {"since": datetime(2026, 5, 1), "until": "2026-05-02"}, "--since"),  # noqa: DTZ001 - naive
    ("usage_report", {"format": "xml"}, "--format"),
    ("usage_report", {"since": "2026-03-01", "until": "2026-05-01", "bucket": "year"}, "--bucket"),
    ("usage_report", {"organization": [None]}, "--organization"),
    ("verify_usage", {"repair": True, "reason": 5}, "--reason"),
    ("verify_usage", {"meter": 5}, "--meter"),
]


@pytest.mark.parametrize("name", COMMANDS)
def test_nonsense_is_named_and_changes_nothing(used, name, subtests):
    """P7: a CommandError names the option, nothing is printed on stdout, and every row is as before."""
    before = everything()
    rows = [(tuple(arguments), {}, option) for command, arguments, option in BAD if command == name]
    rows += [((), keywords, option) for command, keywords, option in BAD_KEYWORDS if command == name]
    for arguments, keywords, option in rows:
        out = io.StringIO()
        with subtests.test(arguments=arguments, **keywords):
            with pytest.raises(CommandError) as caught:
                call_command(name, *arguments, **keywords, stdout=out)
            assert option in str(caught.value)
            assert out.getvalue() == ""
            assert everything() == before


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_there_in_any_language(name, capsys):
    """The command and each option of ours is explained."""
    told = {}
    for language in ("en", "de"):
        with translation.override(language), pytest.raises(SystemExit) as caught:
            call_command(name, "--help")
        assert caught.value.code == 0
        told[language] = capsys.readouterr().out
    assert "--" in told["de"]
    assert told["de"].split("\n\n")[1] != told["en"].split("\n\n")[1]


def test_pruning_names_an_unknown_database_even_when_it_keeps_everything(db):
    """The option is wrong whatever the setting says."""
    with pytest.raises(CommandError, match="--database"):
        run("prune_usage_history", "--database=zz")


# -- three ways --------------------------------------------------------------------------------------------------------


def test_command_task_and_endpoint_do_the_same(used, organization, configure, client):
    """Each calls `reset_expired()`: from the same data comes the same."""
    tasks = pytest.importorskip("usage_tracking.tasks", reason="The tasks need Celery.")
    pytest.importorskip("rest_framework", reason="The endpoint needs the REST framework.")
    configure(API_KEYS=["a-key"])
    from django.db import transaction  # noqa: PLC0415

    def outcome(reset):
        with transaction.atomic():
            answer = reset()
            rows = [
                [
                    {field: value for field, value in row.items() if field not in {"id", "period_id", "dedupe_key"}}
                    for row in table
                ]
                for table in everything()
            ]
            transaction.set_rollback(True)
        return answer, rows

    printed, by_command = outcome(lambda: run("reset_expired_usage"))
    closed, by_task = outcome(tasks.reset_expired_usage)
    response, by_endpoint = outcome(
        lambda: client.post("/usage/reset-expired/", headers={"Authorization": "Bearer a-key"})
    )
    assert by_command == by_task == by_endpoint
    assert response.json() == {"closed": closed, "organizations": 1, "more": False}
    assert printed == f"Periods closed: {closed}, of organizations: 1.\n"
    assert closed == 2
