"""What the comparison sets side by side."""

from dataclasses import dataclass
from importlib.util import find_spec

DATABASES = {"sqlite": "SQLite", "postgres": "PostgreSQL", "mariadb": "MariaDB"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One row of the table."""

    name: str
    guard: str = "usage_tracking"
    """The module in `guards` that says what stands before the view."""
    database: str = "sqlite"
    """Where its rows are. Who counts in Redis has only its callers there, and reads them once."""
    counter: str = ""
    """Which of our counters it is; empty for others."""
    headers: bool = True
    """Whether its responses say what is left; of ours only."""
    packages: tuple[str, ...] = ()
    """What it needs beside the tests' own requirements."""
    limits: bool = True
    """Whether it refuses anything."""

    def missing(self):
        """Say what is not there; None when everything is."""
        return not_installed(self.packages)

    def environment(self, run):
        """What its processes have in their environment beside the database; what they write has `run` in its name."""
        return {
            "DJANGO_SETTINGS_MODULE": "tests.benchmarks.project",
            "BENCHMARK_GUARD": self.guard,
            "BENCHMARK_COUNTER": self.counter or "exact",
            "BENCHMARK_HEADERS": "ietf" if self.headers else "",
            "BENCHMARK_KEY": f"{run}:{self.name}".replace(" ", "_"),
        }


MODULES = {
    "django-ratelimit": "django_ratelimit",
    "django-smart-ratelimit": "django_smart_ratelimit",
    "djangorestframework": "rest_framework",
    "drf-api-tracking": "rest_framework_tracking",
}
"""The module of each package whose name is another."""


def not_installed(packages):
    """Say which of some packages are not there; None when all are."""
    absent = [package for package in packages if not find_spec(MODULES.get(package, package))]
    return f"not installed: pip install {' '.join(absent)}" if absent else None


NOTHING = Subject(name="no-op middleware", guard="nothing", limits=False)

SUBJECTS = [
    NOTHING,
    *(
        Subject(name=f"{counter}, {name}", database=database, counter=counter)
        for counter in ("exact", "leased")
        for database, name in DATABASES.items()
    ),
    Subject(name="leased, PostgreSQL, HEADERS = []", database="postgres", counter="leased", headers=False),
    Subject(name="Lua script, Redis", guard="redis_script", packages=("redis",)),
    Subject(name="naive read-modify-write, PostgreSQL", guard="naive", database="postgres"),
    Subject(name="DRF UserRateThrottle, Redis", guard="rest_throttle", packages=("djangorestframework", "redis")),
    Subject(name="django-ratelimit, Redis", guard="django_ratelimit", packages=("django-ratelimit", "redis")),
    Subject(
        name="django-smart-ratelimit, rate, Redis", guard="smart_rate", packages=("django-smart-ratelimit", "redis")
    ),
    Subject(
        name="django-smart-ratelimit, quota, PostgreSQL",
        guard="smart_quota",
        database="postgres",
        packages=("django-smart-ratelimit",),
    ),
    Subject(
        name="drf-api-tracking, PostgreSQL",
        guard="rest_tracking",
        database="postgres",
        packages=("drf-api-tracking",),
        limits=False,
    ),
]
