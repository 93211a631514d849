"""The comparison with other ways to count still runs; how fast anything is, no test says."""

from tests.benchmarks.comparison import Sizes, compare, table
from tests.benchmarks.subjects import SUBJECTS

TINY = Sizes(visits=1, rounds=1, calls=5, concurrent=1_200, exact=1_000, leased=1_000, turns=1, seconds=1, servers=())


def test_the_comparison_runs_on_what_is_installed():
    """Where no server is needed, who limits admits its thousand and counts it; the table has all of them."""
    subjects = [subject for subject in SUBJECTS if subject.database == "sqlite" and "redis" not in subject.packages]
    rows = compare(subjects, TINY)
    present = [name for name, row in rows.items() if row.missing is None]
    assert {"no-op middleware", "exact, SQLite"} <= set(present)
    row = rows["exact, SQLite"]
    assert (row.refuses, row.admitted, row.counted, row.statements) == (True, 1_000, 1_000, 1_000_000)
    assert {kind: len(blocks) for kind, blocks in row.seconds.items()} == dict.fromkeys(
        ("admitted", "bare", "refused", "refusal"), 1
    )
    printed = table(rows, TINY).splitlines()
    assert [line.split(" | ")[0].removeprefix("| ") for line in printed[2:]] == [subject.name for subject in subjects]
    assert len({line.count(" | ") for line in printed[2:]}) == 1


def test_a_library_that_is_not_installed_is_a_row_that_says_so(monkeypatch):
    """Nobody has to install everything to compare two."""
    monkeypatch.setattr("tests.benchmarks.subjects.find_spec", lambda module: None)
    [subject] = [subject for subject in SUBJECTS if subject.name == "django-ratelimit, Redis"]
    rows = compare([subject], TINY)
    assert "not installed: pip install django-ratelimit redis" in table(rows, TINY)
