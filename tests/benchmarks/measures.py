"""What a worker of the comparison is asked for: it has Django set up on one guard and one database.

It is what a server's process is, and so has not loaded Django's test cases; who makes the database has.
"""

import gc
import tracemalloc
from collections import Counter
from datetime import timedelta
from functools import cache, partial
from io import BytesIO
from threading import Lock

from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.core.signals import setting_changed
from django.db import connections, transaction
from django.db.backends.signals import connection_created
from django.utils import timezone

from tests.benchmarks.callers import LIMITS, all_callers, caller_of
from tests.benchmarks.guards import guard
from tests.benchmarks.handlers import handlers
from tests.benchmarks.tables import analyze
from tests.benchmarks.timing import taking_turns
from tests.conftest import missing_database
from tests.factories import Organization
from usage_tracking.counters import leased_counter
from usage_tracking.lending import BUSY
from usage_tracking.metering import consume
from usage_tracking.models import UsageLease, UsagePeriod
from usage_tracking.updates import update_each

OK = 200
WARM_UP = 20
"""Requests before each block, so that the first ones after a pause are not what is measured."""

BUSY_FOR = 10
"""Blocks of requests that come before all others: when nobody has asked for a while, nothing is on lease any more."""

ENVIRON = {"REQUEST_METHOD": "GET", "SERVER_NAME": "testserver", "SERVER_PORT": "80", "wsgi.input": BytesIO()}
"""Of a request: all that is asked of it here."""

ON_LEASE = "on lease "
"""How the names of organizations begin that are on lease together."""

FOR_LONG = {"SETTLE_SECONDS": 60, "EXPIRE_SECONDS": 3_600}
NUMBERS = {UsagePeriod: ["used", "on_lease", "checkpoint_used"], UsageLease: ["settled", "granted"]}
"""What a settlement writes."""

_databases = []
_organizations = []


# -- the database ------------------------------------------------------------------------------------------------------


def make_database():
    """Create the test database; return its name, or None and why it cannot be."""
    from django.test.utils import setup_databases  # noqa: PLC0415 - see above

    if reason := missing_database():
        return None, reason
    _databases.append(setup_databases(verbosity=0, interactive=False))
    return connections["default"].settings_dict["NAME"], None


def drop_database():
    """Remove it."""
    from django.test.utils import teardown_databases  # noqa: PLC0415 - see above

    teardown_databases(_databases.pop(), verbosity=0)


# -- requests ----------------------------------------------------------------------------------------------------------


@cache
def _handlers():
    guarded, bare = handlers(WSGIHandler)
    return {"guarded": guarded, "bare": bare, "refusal": bare}


def send(handler, requests):
    """Answer the requests one after the other; how often each status was the answer."""
    return Counter(handler.get_response(request).status_code for request in requests)


def prepare():
    """Make the callers, and let one of them use up what it has; whether it is refused then."""
    for caller in all_callers():
        guard.prepare(caller)
    handler = _handlers()["guarded"]
    send(handler, _requests("guarded", "spent", LIMITS["spent"]))
    return send(handler, _requests("guarded", "spent", 1))[OK] == 0


def visit(calls, rounds, *, refusals):
    """How many seconds each block of calls took, by what was called: the guarded view, and what is beside it.

    The first block of each is not told, and many requests come before: a counter may have to find out first how busy
    somebody is.
    """
    blocks = {"admitted": ("guarded", "hot"), "bare": ("bare", "hot")}
    if refusals:
        blocks |= {"refused": ("guarded", "spent"), "refusal": ("refusal", "spent")}

    def ready(name):
        kind, who = blocks[name]
        if name == "admitted":
            guard.fill(caller_of(f"/{who}/"))
        send(_handlers()[kind], _requests(kind, who, WARM_UP))
        return [_requests(kind, who, calls)]

    actions = {name: partial(_expect, _handlers()[kind], name) for name, (kind, _) in blocks.items()}
    send(_handlers()["guarded"], _requests("guarded", "hot", BUSY_FOR * calls))
    taking_turns(actions, 1, ready)
    return taking_turns(actions, rounds, ready)


def _expect(handler, name, requests):
    answered = send(handler, requests)
    assert answered[OK] == (len(requests) if name in {"admitted", "bare"} else 0), f"{name}: {answered}"


def _requests(kind, who, number):
    return [WSGIRequest(ENVIRON | {"PATH_INFO": f"/{kind}/{who}/"}) for _ in range(number)]


def trial(calls):
    """One client's part of the concurrent requests; how many were admitted."""
    return send(_handlers()["guarded"], _requests("guarded", "trial", calls))[OK]


def ready():
    """Build the handlers and read the callers, before clients do it all at once."""
    _handlers()
    all_callers()


def used(who):
    """How much of a caller's limit is on record."""
    return guard.used(caller_of(f"/{who}/"))


# -- statements --------------------------------------------------------------------------------------------------------


class Tally:
    """Counts the statements of every connection of this process, whatever thread opens it."""

    def __init__(self):
        self.sent = 0
        self._lock = Lock()
        connection_created.connect(self.watch)

    def watch(self, connection, **_):
        if self.count not in connection.execute_wrappers:
            connection.execute_wrappers.append(self.count)

    def count(self, execute, *arguments):
        with self._lock:
            self.sent += 1
        return execute(*arguments)


# Before the first connection is opened: those of other threads cannot be reached later.
tally = Tally()


def statements(requests):
    """How many statements this process sends while it admits so many thousands of requests, at full speed."""
    _expect(_handlers()["guarded"], "admitted", _requests("guarded", "hot", WARM_UP))
    before = tally.sent
    for _ in range(requests // 1_000):
        _expect(_handlers()["guarded"], "admitted", _requests("guarded", "hot", 1_000))
    return tally.sent - before


# -- leases ------------------------------------------------------------------------------------------------------------


def borrow(count, *, trace):
    """Have so many organizations on lease, from now on; return how many bytes of memory each takes, if that is traced.

    Tracing makes everything slower.
    """
    made = [Organization(name=f"{ON_LEASE}{number}", usage_limits={"api": LIMITS["hot"]}) for number in range(count)]
    _organizations.extend(Organization.objects.bulk_create(made, batch_size=1_000))
    settings.USAGE_TRACKING = settings.USAGE_TRACKING | {"LEASE": FOR_LONG}
    setting_changed.send(sender=None, setting="USAGE_TRACKING", value=settings.USAGE_TRACKING, enter=True)
    # The settler's thread would return what is idle before all have theirs.
    leased_counter._settler.ensure_running = lambda: None
    if trace:
        tracemalloc.start()
    for organization in _organizations:
        _be_busy(organization)
    gc.collect()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert UsageLease.objects.count() >= count
    analyze(Organization, UsagePeriod, UsageLease)
    return taken // count if trace else None


def settle(rounds):
    """Have each of them spend, and settle all of them; how many seconds that took each time, and bare SQL that does."""

    def prepare(name):
        if name == "bare":
            return [_numbers(UsagePeriod), _numbers(UsageLease)]
        for organization in _organizations:
            _be_busy(organization)  # else its lease would not be renewed
        return [timezone.now()]

    seconds = taking_turns({"settled": leased_counter.settle_all, "bare": _write}, rounds, prepare)
    assert len(_numbers(UsageLease)) == len(_organizations), "Some lost their lease: they were not settled each time."
    return seconds


def _be_busy(organization):
    for _ in range(BUSY):
        assert consume(organization)


def _numbers(model):
    rows = model.objects.filter(organization__name__startswith=ON_LEASE)
    return {pk: numbers for pk, *numbers in rows.values_list("pk", *NUMBERS[model])}


def _write(periods, leases):
    """Write the rows that a settlement writes, one statement for each table."""
    expires_at = timezone.now() + timedelta(hours=1)
    with transaction.atomic():
        # The numbers are what they were. Something has to change: else MariaDB writes nothing.
        update_each(UsagePeriod, periods, NUMBERS[UsagePeriod], using="default", closed_at=expires_at)
        update_each(UsageLease, leases, NUMBERS[UsageLease], using="default", expires_at=expires_at)
