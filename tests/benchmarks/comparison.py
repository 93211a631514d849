"""What counting costs beside its alternatives: `python -m tests.benchmarks.comparison`, one table.

Each subject runs in processes of its own, set up as its manual recommends, in front of one view. They take turns, and
each is compared with the same view in the same process behind a no-op middleware, so that a machine that is busy for a
while slows both. Nothing is asserted; the ratios are what to look at.

The other libraries and the servers are needed for this only:
`pip install gunicorn "uvicorn[standard]" redis psycopg-pool djangorestframework django-ratelimit
django-smart-ratelimit drf-api-tracking`, and `wrk` where the system has it. A row whose needs are not met says so.
POSTGRES_URL, MARIADB_URL and REDIS_URL name the servers, as in CONTRIBUTING.md; the user needs the right to create
databases.
"""

import argparse
import os
import platform
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from subprocess import CalledProcessError
from urllib.parse import quote, urlsplit

import django

from tests.benchmarks import load
from tests.benchmarks.asking import measure
from tests.benchmarks.subjects import SUBJECTS, not_installed
from tests.concurrency.crowd import Crowd

PROJECT = {"DJANGO_SETTINGS_MODULE": "tests.benchmarks.project"}
PATIENCE = 1_200
"""Seconds after which a process that does not answer has hung."""
MILLION = 1_000_000
THREADS = 8
"""In each of two processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is measured."""

    visits: int
    """How often each process has its turn."""
    rounds: int
    """Blocks of each kind of request in a turn."""
    calls: int
    """Requests in a block."""
    concurrent: int = 3_000
    exact: int = 2_000
    """Requests whose statements are counted: each has the same."""
    leased: int = 50_000
    organizations: int
    """On lease at once, to see what they take and how long it takes to settle them."""
    starts: int
    """How often each server is started: no two processes lay out their memory alike."""
    seconds: int
    """For how many seconds it is under load each time, with and without the guard."""
    servers: tuple[str, ...]


QUICK = Sizes(
    visits=3, rounds=5, calls=100, leased=10_000, organizations=500, starts=1, seconds=1, servers=("gunicorn",)
)
WHOLE = Sizes(
    visits=6, rounds=10, calls=100, organizations=10_000, starts=4, seconds=2, servers=("gunicorn", "uvicorn")
)


@dataclass(slots=True, kw_only=True)
class Row:
    """What was measured of a subject; None is what was not."""

    missing: str | None = None
    refuses: bool = False
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Of a request, block by block."""
    admitted: int | None = None
    counted: int | None = None
    statements: int | None = None
    """For a million admitted requests."""
    bytes: int | None = None
    """Of memory, for an organization on lease."""
    settling: dict[str, list[float]] = field(default_factory=dict)
    """Seconds of settling all of them, each time, and of bare SQL."""
    per_second: dict[str, dict[str, float]] = field(default_factory=dict)
    """With the guard and without, by server."""


def compare(subjects, sizes, say=lambda text: None):
    """Measure the subjects; return a Row for each."""
    rows = {subject.name: Row(missing=subject.missing()) for subject in subjects}
    run = f"usage-tracking-benchmark-{os.getpid()}"
    with ExitStack() as stack:
        installed = [subject for subject in subjects if rows[subject.name].missing is None]
        urls, missing = _databases({subject.database for subject in installed}, stack)
        if any("redis" in subject.packages for subject in installed):
            missing["redis"] = _redis(run, stack)
        for subject in installed:
            reasons = map(missing.get, [subject.database, *subject.packages])
            rows[subject.name].missing = next(filter(None, reasons), None)
        there = [subject for subject in installed if rows[subject.name].missing is None]
        _measure_in_process(there, rows, sizes, urls, run, say)
        _measure_leases(there, rows, sizes, urls, run, say)
        _measure_servers(there, rows, sizes, urls, run, say)
    return rows


def _databases(names, stack):
    """Create the test databases; return their URLs, and why the others are missing."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="usage_tracking_"))
    servers = {
        "sqlite": f"sqlite:///{folder}",
        "postgres": os.environ.get("POSTGRES_URL", "postgres://postgres@127.0.0.1:5432"),
        "mariadb": os.environ.get("MARIADB_URL", "mariadb://root@127.0.0.1:3306"),
    }
    urls, missing = {}, {}
    for name in sorted(names):
        keeper = Crowd(1, f"{servers[name]}/usage_tracking_comparison", patience=PATIENCE, **PROJECT)
        stack.callback(keeper.close)
        made, reason = keeper.ask(measure("make_database"))
        if made is None:
            missing[name] = reason
        else:
            stack.callback(keeper.ask, measure("drop_database"))
            url = urlsplit(servers[name])
            urls[name] = f"{url.scheme}://{url.netloc}/{quote(made)}"
    return urls, missing


def _redis(run, stack):
    """Have what this run writes to Redis removed, as that is no database of its own; say why if there is none."""
    import redis  # noqa: PLC0415 - only where it is installed

    server = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"))
    try:
        server.ping()
    except redis.RedisError as error:
        return f"No Redis server answers: {error}"
    stack.callback(lambda: [server.delete(key) for key in server.scan_iter(match=f"*{run}*")])
    return None


def _measure_in_process(subjects, rows, sizes, urls, run, say):
    with ExitStack() as stack:
        asked = {}
        for subject in subjects:
            say(f"starting {subject.name}")
            environment = subject.environment(run)
            crowd = stack.enter_context(closing(Crowd(1, urls[subject.database], patience=PATIENCE, **environment)))
            asked[subject.name] = crowd.ask
            rows[subject.name].refuses = crowd.ask(measure("prepare"))
        for number in range(sizes.visits):
            say(f"requests, {number + 1} of {sizes.visits}")
            for subject in subjects:
                row = rows[subject.name]
                visit = measure("visit", sizes.calls, sizes.rounds, refusals=row.refuses)
                for name, seconds in asked[subject.name](visit).items():
                    row.seconds[name] += [block / sizes.calls for block in seconds]
        for subject in subjects:
            if subject.guard == "nothing":
                continue
            say(f"at once, {subject.name}")
            row = rows[subject.name]
            with closing(Crowd(2, urls[subject.database], patience=PATIENCE, **subject.environment(run))) as crowd:
                crowd.run([measure("ready")], [measure("ready")])
                calls = [len(range(client, sizes.concurrent, 2 * THREADS)) for client in range(2 * THREADS)]
                clients = [measure("trial", number) for number in calls]
                row.admitted = sum(map(sum, crowd.run(clients[:THREADS], clients[THREADS:])))
            # Those processes have ended: what they had not written yet is written.
            row.counted = asked[subject.name](measure("used", "trial"))
        for subject in subjects:
            if subject.counter:
                say(f"statements, {subject.name}")
                requests = getattr(sizes, subject.counter)
                sent = asked[subject.name](measure("statements", requests))
                rows[subject.name].statements = sent * MILLION // requests


def _measure_leases(subjects, rows, sizes, urls, run, say):
    for subject in subjects:
        if subject.counter == "leased" and subject.headers:  # which no settlement sees
            say(f"leases, {subject.name}")
            with closing(Crowd(1, urls[subject.database], patience=PATIENCE, **subject.environment(run))) as crowd:
                rows[subject.name].bytes = crowd.ask(
                    # What is in memory is the same on each database.
                    measure("borrow", sizes.organizations, trace=subject.database == "sqlite")
                )
                rows[subject.name].settling = crowd.ask(measure("settle", sizes.rounds))


def _measure_servers(subjects, rows, sizes, urls, run, say):
    for server in sizes.servers:
        if reason := not_installed(load.PACKAGES[server]):
            say(reason)
            continue
        for subject in subjects:
            if server == "uvicorn" and not (subject.counter or subject.guard == "nothing"):
                continue
            say(f"{server}, {subject.name}")
            environment = subject.environment(run) | {"DATABASE_URL": urls[subject.database]}
            if server == "uvicorn":
                environment["BENCHMARK_ASYNC"] = "1"
            try:
                rows[subject.name].per_second[server] = _rates(server, environment, sizes)
            except (CalledProcessError, RuntimeError) as error:  # what was measured so far is worth more than its end
                say(str(error))


def _rates(server, environment, sizes):
    orders = [("bare", "guarded"), ("guarded", "bare")]
    starts = [_rates_of_one(server, environment, sizes, orders[turn % 2]) for turn in range(sizes.starts)]
    bare = median(rates["bare"] for rates in starts)
    return {"bare": bare, "guarded": bare * median(rates["guarded"] / rates["bare"] for rates in starts)}


def _rates_of_one(server, environment, sizes, kinds):
    rates = {}
    with load.served(server, environment) as address:
        for kind in kinds:
            url = f"{address}/{kind}/hot/"
            # The first second is nobody's: connections are opened, and who is busy is found out.
            load.per_second(url, 1)
            # The best one: in some, the threads of a server hinder each other, whatever they do.
            rates[kind] = max(load.per_second(url, 1) for _ in range(sizes.seconds))
    return rates


# -- the table ---------------------------------------------------------------------------------------------------------


def table(rows, sizes):
    """Return the table, as Markdown."""
    lines = [
        [
            "",
            "added to an admitted request",
            "added to a refused one",
            *(f"requests/s, {server}" for server in sizes.servers),
            f"admitted, counted of {sizes.concurrent:,}",
            "statements for 1,000,000",
        ]
    ]
    lines.append(["---", *["---:"] * (len(lines[0]) - 1)])
    for name, row in rows.items():
        if row.missing:
            lines.append([name, row.missing, *[""] * (len(lines[0]) - 2)])
            continue
        lines.append(
            [
                name,
                _added(row.seconds["admitted"], row.seconds["bare"]),
                _added(row.seconds["refused"], row.seconds["refusal"]) if row.refuses else "",
                *(_ratio(row.per_second.get(server)) for server in sizes.servers),
                "" if row.admitted is None else f"{row.admitted:,}, {row.counted:,}",
                "" if row.statements is None else f"{row.statements:,}",
            ]
        )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _added(guarded, bare):
    with_it, without = median(guarded), median(bare)
    return f"{(with_it - without) * 1e6:,.0f} µs ({with_it / without:.2f} ×)"


def _ratio(rates):
    if rates is None:
        return ""
    return f"{rates['guarded'] / rates['bare']:.2f}"


def machine():
    """Return what it was measured on, in a line."""
    return (
        f"Python {platform.python_version()}, Django {django.__version__}, {os.cpu_count()} cores, {platform.machine()}"
    )


def main():
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="sized for three minutes, and less exact")
    parser.add_argument("--only", action="append", metavar="TEXT", help="subjects with this in their name; repeatable")
    options = parser.parse_args()
    sizes = QUICK if options.quick else WHOLE
    wanted = [subject for subject in SUBJECTS if not options.only or any(text in subject.name for text in options.only)]
    rows = compare(wanted, sizes, say=partial(print, file=sys.stderr))
    print(f"{machine()}\n\n{table(rows, sizes)}")
    print(f"\nOf {sizes.organizations:,} organizations on lease in one process:")
    for name, row in rows.items():
        if row.settling:
            settled, bare = median(row.settling["settled"]), median(row.settling["bare"])
            print(f"  {name:<45} settled in {settled * 1e3:,.0f} ms, {settled / bare:.1f} × bare SQL")
        if row.bytes is not None:
            print(f"  {'':<45} {row.bytes:,} bytes of memory each")
    print("\nA request with nothing in its way, in process, and each second at a server:")
    for name, row in rows.items():
        if not row.missing:
            bare = f"{median(row.seconds['bare']) * 1e6:5.0f} µs"
            print(f"  {name:<45} {bare}", *(f"{rates['bare']:8.0f}/s" for rates in row.per_second.values()))


if __name__ == "__main__":
    main()
