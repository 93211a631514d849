"""Sphinx reads this; `tox run -e docs` builds the manual without a warning."""

import re
import sys
from pathlib import Path

import django
from django.conf import settings
from django.db import models

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# Just enough of a project for autodoc to import the package; the organization is that of the tests.
settings.configure(
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
        "usage_tracking",
        "tests.testapp",
    ],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USAGE_TRACKING_ORGANIZATION_MODEL="testapp.Organization",
    USE_TZ=True,
)
django.setup()

from usage_tracking import __version__  # noqa: E402 - needs the settings above

project = "django-usage-tracking"
author = "django-usage-tracking contributors"
copyright = author  # noqa: A001 - Sphinx's name for it
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# The docstrings' single backticks.
default_role = "code"
html_theme = "furo"
html_title = f"{project} {version}"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_default_options = {"exclude-members": "DoesNotExist, MultipleObjectsReturned, NotUpdated, objects"}

# No intersphinx: the manual is built without a network, so names of other projects are not links.
nitpick_ignore_regex = [
    (r"py:.*", r"(django|rest_framework|datetime|zoneinfo|collections|typing|asgiref|enum|dateutil)\..*"),
    # As above, where an annotation imports the name: `autodoc` writes it as it stands in the source.
    (r"py:class", r"(datetime|models\.QuerySet.*|Any|Callable|Mapping|Iterable|Sequence)"),
    # Type variables, and the type of "not given": nothing to look up.
    (r"py:class", r"usage_tracking\.(decorators\.View|plans\.Value|entitlements\._Unchanged)"),
]


def list_fields(_app: object, what: str, _name: str, obj: object, _options: object, lines: list[str]) -> None:
    """Append a model's fields to its docstring: what they are called and mean is said in the model only."""
    if what != "class" or not (isinstance(obj, type) and issubclass(obj, models.Model)):
        return
    for field in obj._meta.get_fields():
        if field.auto_created or not field.concrete:
            continue
        kind = re.sub("Field$", "", field.get_internal_type())
        choices = ", ".join(f"`{value}`" for value, _ in field.choices or [])
        meaning = " ".join(filter(None, [str(field.help_text), f"One of {choices}." if choices else ""]))
        lines += [f"* `{field.name}` ({kind})" + (f": {meaning}" if meaning else "")]
    lines.append("")


def setup(app: object) -> None:
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", list_fields)  # type: ignore[attr-defined]
