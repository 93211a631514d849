"""What users get: the wheel, the sdist and the migrations."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from django.core.management import call_command

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build the wheel and the sdist into a folder of their own; it has them and nothing else."""
    pytest.importorskip("hatchling", reason="hatchling builds the package: tox run -e package")
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "--directory", folder], cwd=CHECKOUT, check=True)
    return folder


def test_the_wheel_has_the_whole_package_and_nothing_else(built):
    """Every file of the package is in the wheel (templates, types, migrations); no test and no stray file is."""
    (wheel,) = built.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == {
        path.relative_to(CHECKOUT).as_posix()
        for path in (CHECKOUT / "usage_tracking").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"usage_tracking/py.typed", "usage_tracking/migrations/0001_initial.py"} <= names


def test_the_sdist_has_what_a_packager_tests_with_and_no_virtualenv(built):
    """The sdist has package, tests and tox.ini; of the rest of the checkout only what is listed."""
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"usage_tracking/py.typed", "tests/settings.py", "tests/testapp/migrations/0001_initial.py"} <= names
    assert {name.partition("/")[0] for name in names} <= {
        ".gitignore",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "PKG-INFO",
        "README.md",
        "docs",
        "example_project",
        "pyproject.toml",
        "tests",
        "tox.ini",
        "usage_tracking",
    }


def test_no_model_changed_without_its_migration(db):
    """`makemigrations` has nothing to do, in our app and in the host's, whatever its organizations' key."""
    call_command("makemigrations", check=True, dry_run=True)


def test_the_migrations_name_no_host(db):
    """Our migrations refer to the organization by the setting: a label would bind them to one project."""
    for path in (CHECKOUT / "usage_tracking" / "migrations").glob("0*.py"):
        assert "testapp" not in path.read_text()
