"""The README's quick start, followed to the letter in a fresh project that has organizations already."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

CHECKOUT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(
    connection.vendor != "sqlite" or settings.USAGE_TRACKING_ORGANIZATION_MODEL != "testapp.Organization",
    reason="The project has a database and organizations of its own: once is enough.",
)

MODELS = """
from django.conf import settings
from django.db import models


class Organization(models.Model):
    name = models.CharField(max_length=100)
    members = models.ManyToManyField(settings.AUTH_USER_MODEL)
"""

URLS = """
from django.http import JsonResponse
from django.urls import path


def ping(request):
    return JsonResponse({"pong": True})


urlpatterns = [path("api/ping/", ping)]
"""

ROWS = """
from accounts.models import Organization
from django.contrib.auth.models import User

Organization.objects.create(name="Acme").members.add(User.objects.create_user("ada"))
Organization.objects.create(name="Bravo")
"""

REQUESTS = """
from django.contrib.auth.models import User
from django.test import Client

client = Client(headers={"Host": "localhost"})
client.force_login(User.objects.get(username="ada"))
for _ in range(3):
    response = client.get("/api/ping/")
    print(response.status_code, response.headers.get("RateLimit"))
print(Client(headers={"Host": "localhost"}).get("/api/ping/").headers.get("RateLimit"))
"""


class Project:
    """A Django project in a folder of its own, run by processes of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = folder / "mysite" / "settings.py"
        self.models = folder / "accounts" / "models.py"

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run Python with this checkout of the package, and nothing of the settings that these tests have."""
        return subprocess.run(
            [sys.executable, *command], cwd=self.folder, env=environment(), capture_output=True, text=True, check=False
        )

    def manage(self, *arguments: str) -> str:
        """Run `manage.py` and return what it says; whether it fails is in there."""
        finished = self.run("manage.py", *arguments)
        return finished.stdout + finished.stderr

    def shell(self, code: str) -> str:
        """Run code in the project; it must succeed."""
        finished = self.run("manage.py", "shell", "-v0", "-c", code)
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    def add_to(self, name: str, entries: Iterable[str]) -> None:
        """Append strings to a list of the settings."""
        lines = "".join(f"    {entry!r},\n" for entry in entries)
        text, count = re.subn(rf"(?ms)^({name} = \[\n.*?)^\]", rf"\1{lines}]", self.settings.read_text())
        assert count == 1
        self.settings.write_text(text)


def environment() -> dict[str, str]:
    """Return the environment of somebody who has installed the package and knows nothing of our tests."""
    ours = ("DJANGO_SETTINGS_MODULE", "DATABASE_URL", "USAGE_TRACKING_TEST_ORGANIZATION")
    return {key: value for key, value in os.environ.items() if key not in ours} | {"PYTHONPATH": str(CHECKOUT)}


def edits() -> dict[int, str]:
    """Return the code block of each numbered step of the README's quick start."""
    quick_start = (CHECKOUT / "README.md").read_text().partition("## Quick start")[2].partition("\n## ")[0]
    steps = re.findall(r"(?ms)^(\d)\. .*?^   ```\w+\n(.*?)^   ```$", quick_start)
    return {int(number): re.sub(r"(?m)^ {3}", "", block) for number, block in steps}


def apply(project: Project, number: int) -> None:
    """Make one edit as the README has it."""
    block = edits()[number]
    match number:
        case 1 | 5:
            [assignment] = ast.parse(block).body
            assert isinstance(assignment, ast.Assign)
            assert isinstance(assignment.value, ast.List)
            entries = [ast.literal_eval(entry) for entry in assignment.value.elts]
            assert entries[0] is ...
            project.add_to(ast.unparse(assignment.targets[0]), entries[1:])
        case 2:
            project.settings.write_text(project.settings.read_text() + block)
        case 3:
            new_import, new_class = block.strip().split("\n\n\n")
            old = project.models.read_text()
            assert "class Organization(models.Model):" in old
            project.models.write_text(new_import + old.replace("class Organization(models.Model):", new_class))
        case 4:
            project.models.write_text(f"{project.models.read_text()}\n{block}")
        case _:
            for line in block.splitlines():
                finished = project.run(*line.removeprefix("$ python ").split())
                assert finished.returncode == 0, finished.stderr


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> Path:
    """Make a project with a table of organizations that has rows, and an API that counts nothing."""
    project = Project(tmp_path_factory.mktemp("quickstart") / "project")
    project.folder.mkdir()
    for command in (["startproject", "mysite", "."], ["startapp", "accounts"]):
        assert project.run("-m", "django", *command).returncode == 0
    project.add_to("INSTALLED_APPS", ["accounts"])
    project.models.write_text(MODELS)
    (project.folder / "mysite" / "urls.py").write_text(URLS)
    project.manage("makemigrations", "accounts")
    project.manage("migrate")
    project.shell(ROWS)
    return project.folder


@pytest.fixture
def project(before, tmp_path) -> Project:
    """Return a copy of it, to edit."""
    return Project(shutil.copytree(before, tmp_path / "project"))


def follow(project: Project, *, leave_out: int | None = None) -> None:
    """Follow the quick start, all of it or all but one edit."""
    for number in edits():
        if number != leave_out:
            apply(project, number)


def test_the_quick_start_has_six_edits():
    """An existing project needs six edits, in this order."""
    assert list(edits()) == [1, 2, 3, 4, 5, 6]


def test_whoever_follows_the_quick_start_counts_requests(project):
    """After the six edits the checks are silent, a member's requests are counted, and those of strangers are not."""
    follow(project)
    assert "no issues (0 silenced)" in project.manage("check", "--database", "default")
    *members, stranger = project.shell(REQUESTS).splitlines()
    assert [line.partition(";t=")[0] for line in members] == [
        f'200 "api";r={remaining}' for remaining in (999, 998, 997)
    ]
    assert stranger == "None"


def test_the_readme_shows_how_to_see_it_work(project):
    """Its one-liner prints the usage of the first organization, and the rows from before are still there."""
    follow(project)
    project.shell(REQUESTS)
    line = re.search(r'(?m)^\$ python manage.py shell -c "(.*)"$', (CHECKOUT / "README.md").read_text())
    assert line is not None
    assert "meter='api', used=3, limit=1000" in project.shell(line[1])
    names = "from accounts.models import Organization; print(*Organization.objects.values_list('name', flat=True))"
    assert project.shell(names).split() == ["Acme", "Bravo"]


@pytest.mark.parametrize(
    ("forgotten", "message"),
    [
        (1, "usage_tracking.models.UsagePeriod doesn't declare an explicit app_label and isn't in an application in"),
        (2, "ImproperlyConfigured: USAGE_TRACKING_ORGANIZATION_MODEL must name the model whose usage is counted"),
        (3, "(usage_tracking.E004) Organization does not inherit UsageTrackedOrganization"),
        (4, "(usage_tracking.W001) Organization does not override usage_visible_to"),
        (4, "(usage_tracking.W002) Organization does not override usage_managed_by"),
        (5, "(usage_tracking.E007) 'usage_tracking.middleware.UsageTrackingMiddleware' is not in MIDDLEWARE"),
    ],
)
def test_a_forgotten_edit_is_named(project, forgotten, message):
    """Whoever leaves out an edit is told which, before a request meets it."""
    for number in sorted({1, 2, 3, 4, 5} - {forgotten}):
        apply(project, number)
    assert message in project.manage("check")


def test_a_forgotten_makemigrations_is_named_by_migrate(project):
    """Whoever migrates without having made the migration of their own app is told to make it."""
    follow(project, leave_out=6)
    assert "(usage_tracking.W009) No migration of accounts gives Organization its usage fields" in project.manage(
        "migrate"
    )


def test_a_forgotten_migrate_is_named_by_the_server(project):
    """Whoever starts the development server before `migrate` is told which apps wait for it."""
    follow(project, leave_out=6)
    project.manage("makemigrations", "accounts")
    server = subprocess.Popen(
        [sys.executable, "-u", "manage.py", "runserver", "--noreload", "127.0.0.1:0"],
        cwd=project.folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with server:
        assert server.stdout is not None
        said = []
        for line in server.stdout:
            said.append(line)
            if "migration" in line:
                break
        server.kill()
    assert "apply the migrations for app(s): accounts, usage_tracking" in "".join(said)


HOW_TO_UNINSTALL = CHECKOUT / "docs" / "how-to" / "upgrade-and-uninstall.md"

COLUMNS = """
from django.db import connection

with connection.cursor() as cursor:
    for table in ("accounts_organization", "usage_tracking_usageperiod"):
        columns = connection.introspection.get_table_description(cursor, table) if (
            table in connection.introspection.table_names()
        ) else ()
        print(table, *sorted(column.name for column in columns))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="The page has a line for a Unix shell.")
def test_whoever_uninstalls_keeps_the_organizations(project):
    """The how-to, followed to the letter, leaves a project that knows nothing of the package, and its rows."""
    untouched = project.settings.read_text(), project.models.read_text()
    follow(project)
    project.shell(REQUESTS)
    console = re.findall(r"(?m)^   \$ (.+)$", HOW_TO_UNINSTALL.read_text().partition("## Uninstall")[2])
    zero, sed, *commands, pip = console
    assert zero == "python manage.py migrate usage_tracking zero"
    assert "No migrations" not in project.manage(*zero.split()[2:])
    project.settings.write_text(untouched[0])
    project.models.write_text(untouched[1])
    subprocess.run(sed, shell=True, cwd=project.folder, check=True)  # noqa: S602 - the manual's own command
    for command in commands:
        finished = project.run(*command.removeprefix("python ").split())
        assert finished.returncode == 0, finished.stderr
    assert pip == "pip uninstall django-usage-tracking"
    assert "usage_tracking" not in "".join(
        path.read_text() for path in project.folder.rglob("*.py") if path.name != "0002_organization_usage.py"
    )
    assert project.shell(COLUMNS).splitlines() == ["accounts_organization id name", "usage_tracking_usageperiod"]
    assert "no issues" in project.manage("check", "--database", "default")
    assert project.manage("makemigrations", "--check").strip() == "No changes detected"
    names = "from accounts.models import Organization; print(*Organization.objects.values_list('name', flat=True))"
    assert project.shell(names).split() == ["Acme", "Bravo"]
