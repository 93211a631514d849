"""The module that browsers load: its size, its types, its contracts with libraries, and what is published of it."""

import gzip
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from django.contrib.staticfiles import finders
from django.contrib.staticfiles.storage import ManifestStaticFilesStorage, staticfiles_storage
from django.core.management import call_command

import usage_tracking

CHECKOUT = Path(__file__).resolve().parent.parent
TESTS = CHECKOUT / "tests" / "js"
PACKAGE = CHECKOUT / "usage_tracking" / "js"
MODULE = CHECKOUT / "usage_tracking" / "static" / "usage_tracking" / "usage-tracking.js"


@pytest.fixture
def node():
    """Run a program of Node in `tests/js` and return what it printed; skip without Node and the packages there."""
    if not (shutil.which("node") and (TESTS / "node_modules" / "nanostores").exists()):
        reason = "There is no Node, or its packages are not there. To run these tests: npm --prefix tests/js ci"
        if os.environ.get("USAGE_TRACKING_REQUIRE_SERVICES") == "1":
            pytest.fail(reason)
        pytest.skip(reason)

    def run(*command, cwd=TESTS):
        ran = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    return run


def test_the_module_is_small():
    """At most 12 KB on the wire."""
    assert len(gzip.compress(MODULE.read_bytes(), 9)) <= 12 * 1024


def test_the_module_stands_alone():
    """It loads nothing else: no import, no URL, so that hashed names and a strict policy are no matter."""
    text = MODULE.read_text()
    assert "import " not in text.replace("@import ", "")
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    assert "eval(" not in text


def test_static_files_are_found():
    """By the names in the manual."""
    assert finders.find("usage_tracking/usage-tracking.js")
    assert finders.find("usage_tracking/usage-tracking.css")


def test_hashed_names_are_enough(tmp_path, settings):
    """`collectstatic` with hashed names works, and what is for npm is not among the public files."""
    settings.STATIC_ROOT = tmp_path
    backend = "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"
    settings.STORAGES = {**settings.STORAGES, "staticfiles": {"BACKEND": backend}}
    call_command("collectstatic", verbosity=0, interactive=False)
    names = {path.name for path in (tmp_path / "usage_tracking").rglob("*") if path.is_file()}
    assert {"usage-tracking.js", "usage-tracking.css"} <= names
    assert {Path(name).suffix for name in names} == {".js", ".css"}


class HashedStaticFilesStorage(ManifestStaticFilesStorage):
    """As the manual has it."""

    support_js_module_import_aggregation = True


def test_a_module_of_the_host_imports_it_under_its_hashed_name(tmp_path, settings):
    """The one that the page loads: it would run twice under two names."""
    (tmp_path / "source").mkdir()
    module = tmp_path / "source" / "gates.js"
    module.write_text('import { $usage } from "./usage_tracking/usage-tracking.js";\n')
    settings.STATICFILES_DIRS = [module.parent]
    settings.STATIC_ROOT = tmp_path / "static"
    backend = f"{__name__}.{HashedStaticFilesStorage.__name__}"
    settings.STORAGES = {**settings.STORAGES, "staticfiles": {"BACKEND": backend}}
    call_command("collectstatic", verbosity=0, interactive=False)
    hashed = staticfiles_storage.stored_name("usage_tracking/usage-tracking.js")
    imported = (tmp_path / "static" / staticfiles_storage.stored_name("gates.js")).read_text()
    assert hashed != "usage_tracking/usage-tracking.js"
    assert f'from "./{hashed}"' in imported


def test_contracts_hold_with_the_real_packages(node):
    """Stores with nanostores, @nanostores/react and React 19; the client with every answer."""
    node("node", "--test")


def test_types_are_what_schema_and_module_say(node, tmp_path):
    """The published types have not drifted from either."""
    pytest.importorskip("drf_spectacular")
    schema = tmp_path / "schema.json"
    call_command("spectacular", urlconf="usage_tracking.api.urls", format="openapi-json", file=str(schema))
    node("node", "generate-types.mjs", str(schema), "--check")


def test_a_strict_consumer_compiles(node):
    """TypeScript in strict mode accepts what a host writes, in JSX too, and refuses what is wrong."""
    node("npx", "tsc", "--project", "tsconfig.json")


def test_the_manual_tells_jsx_of_the_elements():
    """Its declaration is the one that compiles."""
    written = (CHECKOUT / "docs" / "how-to" / "react.md").read_text()
    declaration = re.search(r"type UsageProps.*?\n}\n(?=```)", written, re.DOTALL)
    assert declaration
    assert declaration.group() in (TESTS / "consumer-react.tsx").read_text()


def test_the_npm_package_has_module_and_types(node, tmp_path):
    """And nothing else; its version is the package's."""
    folder = tmp_path / "usage_tracking"
    shutil.copytree(PACKAGE, folder / "js")
    shutil.copytree(MODULE.parent, folder / "static" / "usage_tracking")
    (packed,) = json.loads(node("npm", "pack", "--json", "--silent", cwd=folder / "js"))
    assert {file["path"] for file in packed["files"]} == {"package.json", "usage-tracking.d.ts", "usage-tracking.js"}
    assert packed["version"] == usage_tracking.__version__
