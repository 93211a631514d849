"""What leases do to a fleet: `python -m tests.benchmarks.simulation`, on the database that DATABASE_URL names.

1,000 processes serve 100,000 organizations whose traffic is heavy-tailed; then single organizations run into their
limit. Accounts, offers, settlements and the size of loans are the package's own; the database is a row in memory, and
the clock a number: nothing waits for a lock or a network. What a count, a visit and a batch cost in statements is
asked of the real database at the beginning. Seeded: it prints the same tables each time, and draws
docs/images/leases.svg. It needs numpy and matplotlib, which nothing else here does.
"""

import heapq
import math
import os
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

import matplotlib as mpl
import numpy as np
from django.db import connection
from django.test.utils import CaptureQueriesContext, override_settings, setup_databases, teardown_databases
from django.utils import timezone
from matplotlib import pyplot as plt

from tests.factories import OrganizationFactory
from usage_tracking import lending
from usage_tracking.counters import leased, leased_counter, settlement
from usage_tracking.counters.accounts import Account, Lease
from usage_tracking.metering import consume
from usage_tracking.quotas import Enforcement, ceiling_of, next_announcement

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "images" / "leases.svg"

PROCESSES, ORGANIZATIONS = 1000, 100_000
MACHINE = 8
"""Processes of one machine."""
WARM_UP, MEASURED = 3, 6
"""Settle intervals of traffic."""
REQUESTS = (1_000, 3_000, 10_000, 30_000, 100_000)
"""Per second, all together."""
ROUTINGS = {"sticky": 1, "one machine": MACHINE, "spread": PROCESSES}
"""How many processes an organization that needs but one is spread over."""

CROWDS = ((10, 1), (10, 8), (100, 8), (1000, 8), (1000, 100), (3000, 1000))
"""Requests per second of an organization that runs into its limit, and over how many processes."""
PATTERNS = ("steady", "moves", "stops")
QUOTAS = (3, 10, 30)
"""Seconds of traffic until the limit."""
SEEDS = 3

NOW = datetime(2026, 3, 10, tzinfo=UTC)
HARD, THRESHOLDS = Enforcement.HARD, (80,)


def moment(at):
    """The instant that is so many seconds after the beginning."""
    return NOW + timedelta(seconds=at)


# -- what stands for the database and for a process --------------------------------------------------------------------


class Row:
    """An organization's open period, and the leases on it."""

    # What a lease copies of it.
    pk, span, enforcement, bucket_start, checkpoint_at = 1, None, HARD, NOW, datetime.max.replace(tzinfo=UTC)

    def __init__(self, limit=None, settle_seconds=1):
        self.limit, self.settle_seconds = limit, settle_seconds
        self.used, self.on_lease, self.called_back_at = 0, 0, None
        self.leases = {}

    def has_ended(self, now):
        return False

    @property
    def room(self):
        """As `Ledger.room`."""
        return ceiling_of(self.limit, HARD) - self.used - self.on_lease

    def share(self, wanted, at):
        """As `Ledger.share`."""
        if lending.is_called_back(self.called_back_at, moment(at), self.settle_seconds):
            return 0
        return lending.share(wanted, self.room, on_lease=self.on_lease)

    def counts_between_rails(self):
        """As `count_between_rails`: one more, if neither the limit nor a threshold is in the way."""
        more = self.used + 1
        fits = more <= ceiling_of(self.limit, HARD) - self.on_lease
        if fits and more < next_announcement(self.used, self.limit, THRESHOLDS):
            self.used = more
            return True
        return False


class Process:
    """What one process knows of one organization: the package's own account, in front of a row."""

    keys = count()

    def __init__(self, row, costs):
        self.row, self.costs = row, costs
        self.account = Account("default", 1, "api")
        self.refused_until = -1.0

    @property
    def unspent(self):
        """What it has left on its lease."""
        lease = self.account.lease
        return lease.granted - lease.spent if lease else 0

    def take(self, amount, at):
        """Serve as many of `amount` requests as one step can; return how many, 0 if the first was refused."""
        account = self.account
        if self.unspent:
            amount = min(amount, self.unspent)
            assert account.spend(amount, NOW.timestamp())
            account.lease.calls += amount - 1  # one each
            return amount
        if at < self.refused_until:
            return 0
        account.asked += 1
        account.calls += 1
        borrows = account.keeps > 0 and at >= account.rests_until
        if account.lease is None and not borrows and self.row.counts_between_rails():
            self.costs["counted"] += 1
            return 1
        return self._visit(at, borrows, 1)

    def _visit(self, at, borrows, amount):
        """As `LeasedCounter._visit`: settle, take or refuse, borrow."""
        account, row = self.account, self.row
        if handed_in := account.hand_in():
            granted, settled = row.leases.pop(handed_in.pk)
            row.on_lease -= granted - settled
            row.used += handed_in.spent - settled
        taken = amount if row.room >= amount else 0
        row.used += taken
        if taken < amount:
            self.refused_until = at + lending.RETRY.total_seconds()
            if row.used < row.limit:
                row.called_back_at = moment(at)
        size = row.share(account.keeps, at) if borrows else 0
        if account.lease is not None:
            account.end()
        if size:
            row.on_lease += size
            lent = SimpleNamespace(pk=next(self.keys), granted=size)
            row.leases[lent.pk] = (size, 0)
            account.lease = Lease(lent, row, deadline=math.inf, now=NOW)
        elif borrows:
            account.rests_until = at + row.settle_seconds
        self.costs["loans" if size else "visits"] += 1
        return taken

    def settle(self, at):
        """As the settler does; return whether there was a lease."""
        offer = self.account.offer(NOW, closing=False)
        if offer is None:
            return False
        while offer is not None:
            offer = self._settle(offer, at)
        return True

    def _settle(self, offer, at):
        """Settle one offer; return the next one if what is left is called back."""
        account, row = self.account, self.row
        seen = settlement._Row(1, True, NOW, row.used, 0, row.on_lease, row.limit, HARD, row.called_back_at)
        plan = settlement._plan(offer, seen, row.leases[offer.pk], moment(at))
        if plan is None:  # a threshold was crossed
            self._visit(at, account.keeps > 0, 0)
            return None
        settled, (row.used, row.on_lease, _) = plan
        if settled.granted is None:
            del row.leases[offer.pk]
            self.costs["ended"] += 1
        else:
            row.leases[offer.pk] = (settled.granted, offer.spent)
        account.renew(offer, settled, math.inf)
        return account.offer(NOW, closing=True) if settled.is_called_back else None


# -- a fleet -----------------------------------------------------------------------------------------------------------


def rates_of(requests):
    """Requests per second of each organization: the n-th has one n-th of the first one's."""
    rates = 1 / np.arange(1, ORGANIZATIONS + 1)
    return rates * requests / rates.sum()


def fleet(requests, routing, *, settle_seconds=1, seed=1):
    """Return per second what was done, the leases there are, and what the busiest organization's row has seen."""
    rng = np.random.default_rng(seed)
    rates = rates_of(requests)
    most = requests / PROCESSES / 2  # nobody takes more than half of a process
    unit = ROUTINGS[routing]
    width = np.minimum(unit * np.ceil(rates / most / unit), PROCESSES).astype(np.int64)
    first = rng.integers(PROCESSES, size=ORGANIZATIONS)
    rows, processes, costs, busiest = defaultdict(Row), {}, Counter(), 0
    for interval in range(WARM_UP + MEASURED):
        if interval == WARM_UP:
            costs.clear()
            busiest = 0
        at = float(interval * settle_seconds)
        organization = np.repeat(np.arange(ORGANIZATIONS), rng.poisson(rates * settle_seconds))
        process = (first[organization] + rng.integers(width[organization])) % PROCESSES
        cells, counts = np.unique(organization * PROCESSES + process, return_counts=True)
        # Who has no lease and is asked for less than BUSY times is counted in the database: nothing to simulate.
        warm = np.isin(cells, np.fromiter(processes, np.int64, len(processes))) | (counts >= lending.BUSY)
        costs["requests"] += len(organization)
        costs["counted"] += int(counts[~warm].sum())
        busiest += int(counts[~warm & (cells < PROCESSES)].sum())
        for cell, left in zip(cells[warm].tolist(), counts[warm].tolist(), strict=True):
            one = processes.get(cell) or processes.setdefault(cell, Process(rows[cell // PROCESSES], costs))
            done = costs.total()
            while left:
                left -= one.take(left, at)  # noqa: PLW2901 - what is left of it
            busiest += (costs.total() - done) * (cell < PROCESSES)
        settling = Counter()
        for cell, one in list(processes.items()):
            if one.settle(at):
                settling[cell % PROCESSES] += 1
                busiest += cell < PROCESSES
            elif not one.account.before.calls:
                del processes[cell]
        costs["settled"] += settling.total()
        costs["batches"] += sum(-(-number // leased.BATCH) for number in settling.values())
    seconds = MEASURED * settle_seconds
    return Counter({name: number / seconds for name, number in costs.items()} | {"busiest": busiest / seconds})


def statements_in(done, price):
    """How many statements that was."""
    # At most one statement per batch deletes the leases that have ended.
    deletes = min(done["ended"], done["batches"])
    return sum(done[name] * price[name] for name in ("counted", "loans", "visits", "batches")) + deletes


# -- a limit -----------------------------------------------------------------------------------------------------------


def run_into_limit(rate, crowd, limit, *, pattern, seed, trace=None):
    """Let one organization use up `limit` in a crowd of processes; return what its callers were told.

    Traffic is `steady` over all of them, `moves` to the other half every three seconds, or `stops` on all but one when
    a tenth is left. Whoever is refused while something is left asks the same process again a second later.
    """
    rng = np.random.default_rng(seed)
    row, told, costs = Row(limit), Counter(), Counter()
    processes = [Process(row, costs) for _ in range(crowd)]
    events = [(phase, "settle", number) for number, phase in enumerate(rng.random(crowd).tolist())]
    heapq.heapify(events)
    heapq.heappush(events, (0.0, "request", 0))
    admitted, first_refused_at, end = 0, None, math.inf
    while True:
        at, kind, number = heapq.heappop(events)
        if at > end:
            break
        if kind == "settle":
            processes[number].settle(at)
            heapq.heappush(events, (at + 1, kind, number))
            continue
        if kind == "request":
            told["requests"] += 1
            heapq.heappush(events, (at + rng.exponential(1 / rate), kind, 0))
            number = _which(pattern, rng, crowd, at, is_ending=admitted >= 0.9 * limit)
        admitted_now = processes[number].take(1, at)
        admitted += admitted_now
        if trace is not None and row.used >= trace["from"]:
            trace["points"].append((at, limit - admitted, sum(one.unspent for one in processes)))
        if admitted == limit and end == math.inf:
            told["seconds"] = at - first_refused_at if first_refused_at else 0
            end = at + 1
        elif not admitted_now and admitted < limit:
            if kind == "retry":
                told["refused again"] += 1
                continue
            first_refused_at = first_refused_at or at
            told["stranded"] = max(told["stranded"], limit - admitted)
            told["early"] += told["requests"] <= limit  # the exact counter admits just these
            heapq.heappush(events, (at + 1.000_001, "retry", number))
        assert row.used + row.on_lease <= limit
    return told


def _which(pattern, rng, crowd, at, *, is_ending):
    if pattern == "stops" and is_ending:
        return 0
    number = int(rng.integers(crowd))
    half = crowd // 2
    return number % half + half * (int(at / 3) % 2) if pattern == "moves" and half else number


# -- tables and a picture ----------------------------------------------------------------------------------------------


def prices():
    """Return how many statements, BEGIN and COMMIT among them, each transaction has on the real database."""
    found = {}

    def priced(name, action):
        with CaptureQueriesContext(connection) as queries:
            action()
        found[name] = len(queries)

    leased_counter._settler.ensure_running = lambda: None
    databases = setup_databases(verbosity=0, interactive=False)
    try:
        with override_settings(USAGE_TRACKING={"COUNTER": "leased", "DEFAULT_LIMIT": 10_000}):
            organization = OrganizationFactory()
            consume(organization)
            priced("counted", lambda: consume(organization))
            for _ in range(lending.BUSY - 3):
                consume(organization)
            consume(organization)
            consume(organization, lending.AHEAD * lending.BUSY)
            priced("loans", lambda: consume(organization))  # the dearer ones: the last lease is handed in first
            consume(organization)
            priced("batches", lambda: leased_counter.settle_all(timezone.now()))
            leased_counter.settle_all(timezone.now(), closing=True)
            priced("visits", lambda: consume(organization, 10_000))
    finally:
        leased_counter.forget()
        teardown_databases(databases, verbosity=0)
    return found


def line(*cells):
    """Print one line of a table."""
    print("".join(f"{cell:>13}" for cell in cells), flush=True)


def measure_fleet(price):
    """Print the tables of the fleet; return statements per second by label, for the picture."""
    print(f"{connection.vendor}: statements, BEGIN and COMMIT among them, of " + ", ".join(map(str, price.items())))
    print(f"\n{PROCESSES} processes, {ORGANIZATIONS} organizations, per second; × what the exact counter does")
    compared = ("statements", "×", "commits", "×", "busiest", "×")
    line("requests", "routing", "settle", "counted", "loans", "batches", *compared)
    lines = defaultdict(list)
    for requests in REQUESTS:
        for routing, settle in [*((name, 1) for name in ROUTINGS), ("spread", 5), ("spread", 20)]:
            done = fleet(requests, routing, settle_seconds=settle)
            exact, statements = done["requests"] * price["counted"], statements_in(done, price)
            commits = sum(done[name] for name in ("counted", "loans", "visits", "batches"))
            lines[routing + (f", settled every {settle} s" if settle > 1 else "")].append(statements)
            line(
                *(f"{requests:,}", routing, f"{settle} s"),
                *(f"{done[name]:,.0f}" for name in ("counted", "loans", "batches")),
                *(f"{statements:,.0f}", f"{statements / exact:.2f}", f"{commits:,.0f}", f"{commits / exact:.2f}"),
                *(f"{done['busiest']:,.0f}", f"{done['busiest'] / rates_of(requests)[0]:.2f}"),
            )
    return {"exact": [requests * price["counted"] for requests in REQUESTS]} | lines


def measure_limits():
    """Print the table of limits; raise AssertionError if a retry was refused while something was left."""
    print(f"\nOne organization at its limit, the worst of {len(QUOTAS) * SEEDS} runs each; in percent of the limit")
    line("requests", "processes", "pattern", "left", "exact admits", "again", "seconds")
    again = 0
    for rate, crowd in CROWDS:
        for pattern in PATTERNS:
            runs = [
                (rate * quota, run_into_limit(rate, crowd, rate * quota, pattern=pattern, seed=seed))
                for quota in QUOTAS
                for seed in range(SEEDS)
            ]
            refused_again = sum(told["refused again"] for _, told in runs)
            again += refused_again
            line(
                *(f"{rate:,}", f"{crowd:,}", pattern),
                *(f"{max(told[name] / limit for limit, told in runs):.2%}" for name in ("stranded", "early")),
                *(refused_again, f"{max(told['seconds'] for _, told in runs):.2f}"),
            )
    assert not again, "A retry a second later was refused while something was left."


def draw(lines):
    """Draw what the tables say."""
    mpl.rcParams |= {"svg.hashsalt": "leases", "svg.fonttype": "none", "font.size": 9}
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    exact = lines.pop("exact")
    for label, values in lines.items():
        relative = [value / other for value, other in zip(values, exact, strict=True)]
        left.plot(REQUESTS, relative, marker=".", label=label)
    left.set(xscale="log", ylim=(0, 1.2), xlabel="requests per second", ylabel="statements: leased / exact")
    left.set_title(f"{PROCESSES:,} processes, {ORGANIZATIONS:,} organizations")
    left.legend(frameon=False, loc="lower left")
    trace = {"from": 24_000, "points": []}
    run_into_limit(1000, 100, 30_000, pattern="moves", seed=1, trace=trace)
    at, remaining, unspent = zip(*trace["points"][::40], strict=True)
    right.plot(at, remaining, label="not used yet")
    right.plot(at, unspent, label="of that on lease")
    right.set(xlabel="seconds", ylabel="requests", ylim=0)
    right.set_title("Near a limit: 1,000 requests per second, 100 processes")
    right.legend(frameon=False)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, metadata={"Date": None})


def main():
    """Print the tables and draw the picture."""
    draw_from = measure_fleet(prices())
    measure_limits()
    draw(draw_from)


if __name__ == "__main__":
    main()
