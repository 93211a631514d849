"""The comparison with other ways to count still runs; how fast anything is, no test says."""

from tests.benchmarks.comparison import Sizes, compare, table
from tests.benchmarks.subjects import SUBJECTS

TINY = Sizes(
    visits=1,
    rounds=1,
    calls=5,
    concurrent=1_200,
    exact=1_000,
    leased=1_000,
    organizations=3,
    starts=1,
    seconds=1,
    servers=(),
)


def test_the_comparison_runs_on_what_is_installed():
    """Where no server is needed, no more than the limit is admitted and all of it counted; the table has all rows."""
    subjects = [subject for subject in SUBJECTS if subject.database == "sqlite" and "redis" not in subject.packages]
    rows = compare(subjects, TINY)
    assert list(rows) == ["no-op middleware", "exact, SQLite", "leased, SQLite"]
    exact, leased = rows["exact, SQLite"], rows["leased, SQLite"]
    assert (exact.admitted, exact.counted, exact.statements) == (1_000, 1_000, 1_000_000)
    # Nobody asks again here, so that the last lease may come back unspent.
    assert 900 < leased.admitted == leased.counted <= 1_000
    assert leased.statements < 1_000_000
    assert leased.bytes > 0
    for row in (exact, leased):
        assert row.refuses
        assert set(row.seconds) == {"admitted", "bare", "refused", "refusal"}
    assert len({line.count(" | ") for line in table(rows, TINY).splitlines()}) == 1


def test_a_library_that_is_not_installed_is_a_row_that_says_so(monkeypatch):
    """Nobody has to install everything to compare two."""
    monkeypatch.setattr("tests.benchmarks.subjects.find_spec", lambda module: None)
    [subject] = [subject for subject in SUBJECTS if subject.name == "django-ratelimit, Redis"]
    rows = compare([subject], TINY)
    assert "not installed: pip install django-ratelimit redis" in table(rows, TINY)
