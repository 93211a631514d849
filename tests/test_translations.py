"""The catalogs: complete, and compiled as they are written."""

import ast
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.core.exceptions import ValidationError
from django.utils import translation
from django.utils.translation import gettext, ngettext
from django.utils.translation.template import templatize

import usage_tracking
from usage_tracking.conf import nearest, suggestion
from usage_tracking.exceptions import InvalidInput
from usage_tracking.history import boundaries_between
from usage_tracking.models import validate_usage_anchor, validate_usage_limits, validate_usage_time_zone
from usage_tracking.periods import UTC_ZONE

polib = pytest.importorskip("polib", reason="polib reads the catalogs: pip install polib")

PACKAGE = Path(usage_tracking.__file__).parent
CATALOGS = sorted(PACKAGE.glob("locale/*/LC_MESSAGES/*.po"))
GETTEXT = {"_", "gettext", "gettext_lazy", "ngettext", "ngettext_lazy", "pgettext", "pgettext_lazy"}
REFRESH = "CONTRIBUTING.md says how to refresh the catalogs."
PLACEHOLDER = re.compile(r"%\(\w+\)\w")


def texts_of(source: str) -> set[str]:
    """Return the texts that Python code hands to gettext, by their singular."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            arguments = node.args[1:] if name.startswith("pgettext") else node.args
            if name in GETTEXT and arguments and isinstance(arguments[0], ast.Constant):
                found.add(arguments[0].value)
    return found


def texts() -> set[str]:
    """Return every text that a user may see, in the package's code and templates."""
    found = set().union(*(texts_of(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")))
    for path in PACKAGE.rglob("templates/**/*"):
        if path.is_file():
            # What xgettext is given of a template: its gettext calls, amid what is no Python.
            calls = templatize(path.read_text(encoding="utf-8"), origin=str(path))
            for call in re.findall(r"\bn?p?gettext\((?:[^()\"']|\"[^\"]*\"|'[^']*')*\)", calls):
                found |= texts_of(call.replace("u'", "'"))
    return found


@pytest.mark.parametrize("path", CATALOGS, ids=lambda path: path.parts[-3])
def test_a_catalog_has_every_text(path):
    """Each text of code and templates is translated, and none that is gone is kept."""
    catalog = polib.pofile(str(path))
    translated = {entry.msgid for entry in catalog.translated_entries()}
    if path.name == "django.po":
        assert texts() - translated == set(), REFRESH
        assert translated - texts() == set(), REFRESH
    assert [entry.msgid for entry in catalog.fuzzy_entries() + catalog.obsolete_entries()] == [], REFRESH
    assert catalog.percent_translated() == 100, REFRESH


@pytest.mark.parametrize("path", CATALOGS, ids=lambda path: path.parts[-3])
def test_a_catalog_is_compiled(path):
    """What is installed is what was written: the machine of a user has no compiler of catalogs."""
    written = polib.pofile(str(path))
    compiled = polib.mofile(str(path.with_suffix(".mo")))
    strings = lambda entries: {entry.msgid: (entry.msgstr, entry.msgstr_plural) for entry in entries}  # noqa: E731
    assert strings(compiled) == strings(written), REFRESH


@pytest.mark.parametrize("path", CATALOGS, ids=lambda path: path.parts[-3])
def test_translations_keep_their_placeholders(path):
    """A name that is lost or misspelt would be a KeyError for whoever reads that language."""
    for entry in polib.pofile(str(path)):
        for told in [entry.msgstr, *entry.msgstr_plural.values()]:
            if told:
                assert set(PLACEHOLDER.findall(told)) == set(PLACEHOLDER.findall(entry.msgid)), entry.msgid


def test_german_is_spoken():
    """The catalog is found where Django looks for it."""
    with translation.override("de"):
        assert gettext("Quota exceeded") == "Kontingent ausgeschöpft"
        one = "This request needs %(amount)s of the quota “%(meter)s”; %(left)s of %(limit)s is left."
        many = "This request needs %(amount)s of the quota “%(meter)s”; %(left)s of %(limit)s are left."
        assert "sind noch" in ngettext(one, many, 2)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"since": (2026, 5, 1), "until": (2026, 1, 1)}, "muss vor until"),
        ({"since": (1950, 1, 1), "until": (2026, 1, 1)}, "umfassen mehr als 10000 Abschnitte"),
        ({"since": (1900, 1, 1), "until": (2026, 1, 1)}, "muss ein Zeitpunkt mit Zeitzone nach dem Jahr 1900"),
        ({"last": 0}, "last muss eine ganze Zahl von 1 bis 10000 sein, nicht 0."),
        ({"last": 9_999, "bucket": "month"}, "beginnen zu früh"),
        ({"last": 3, "since": (2026, 1, 1)}, "bitte nur eines von beiden angeben"),
        ({"bucket": "hour"}, "Der Verlauf wird tageweise gespeichert"),
        ({"bucket": "weeks"}, "bucket kann nicht 'weeks' sein. Meinten Sie 'week'?"),
    ],
)
def test_a_range_of_history_is_refused_in_the_language_of_the_caller(asked, told):
    """What people ask for through API and commands, and do not get, they are told in their language."""
    ends = {name: datetime(*asked[name], tzinfo=UTC) if name in asked else None for name in ("since", "until")}
    with translation.override("de"), pytest.raises(InvalidInput) as caught:
        boundaries_between(**ends, bucket=asked.get("bucket", "day"), zone=UTC_ZONE, last=asked.get("last"))
    assert told in str(caught.value)


def test_a_suggestion_is_in_the_language_of_whoever_asks_and_a_setting_is_english():
    """The same hint for two readers: who sends a request, and who reads checks and logs."""
    with translation.override("de"):
        assert suggestion("lst", ["last"]) == " Meinten Sie 'last'?"
        assert suggestion("x", ["last", "since"]) == " Bekannt: last, since."
        assert nearest("lst", ["last"]) == " Did you mean 'last'?"
    assert suggestion("lst", ["last"]) == nearest("lst", ["last"])
    assert suggestion("x", ["last"]) == nearest("x", ["last"])


@pytest.mark.parametrize(
    ("validate", "value", "told"),
    [
        (validate_usage_anchor, "tomorrow", "Muss ein Datum oder ein Zeitpunkt nach ISO 8601"),
        (validate_usage_time_zone, "Berlin", "„Berlin“ ist nicht der IANA-Name einer Zeitzone"),
        (validate_usage_limits, {"100%s": 1}, "limits has an unknown meter '100%s'."),
    ],
)
def test_a_field_says_what_is_wrong_with_its_value(validate, value, told):
    """Anchor and zone are typed by people; the JSON of limits by developers, and a percent sign in it is no format."""
    with translation.override("de"):
        with pytest.raises(ValidationError) as caught:
            validate(value)
        assert told in caught.value.messages[0]
