"""What a worker of the comparison is asked for: it has Django set up on one guard and one database."""

from collections import Counter
from functools import cache, partial
from threading import Lock

from django.core.handlers.wsgi import WSGIHandler
from django.db import connections
from django.db.backends.signals import connection_created
from django.test import RequestFactory
from django.test.utils import setup_databases, teardown_databases

from tests.benchmarks.callers import LIMITS, caller_of
from tests.benchmarks.guards import guard
from tests.benchmarks.handlers import handlers
from tests.benchmarks.timing import taking_turns
from tests.conftest import missing_database

OK = 200
WARM_UP = 20
"""Requests before each block, so that the first ones after a pause are not what is measured."""

factory = RequestFactory()
_databases = []


# -- the database ------------------------------------------------------------------------------------------------------


def make_database():
    """Create the test database; return its name, or None and why it cannot be."""
    if reason := missing_database():
        return None, reason
    _databases.append(setup_databases(verbosity=0, interactive=False))
    return connections["default"].settings_dict["NAME"], None


def drop_database():
    """Remove it."""
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
    for who in LIMITS:
        guard.prepare(caller_of(f"/{who}/"))
    handler = _handlers()["guarded"]
    send(handler, _requests("guarded", "spent", LIMITS["spent"]))
    return send(handler, _requests("guarded", "spent", 1))[OK] == 0


def visit(calls, rounds, *, refusals):
    """How many seconds each block of calls took, by what was called: the guarded view, and what is beside it."""
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
    return taking_turns(actions, rounds, ready)


def _expect(handler, name, requests):
    answered = send(handler, requests)
    assert answered[OK] == (len(requests) if name in {"admitted", "bare"} else 0), f"{name}: {answered}"


def _requests(kind, who, number):
    return [factory.get(f"/{kind}/{who}/") for _ in range(number)]


def trial(calls):
    """One client's part of the concurrent requests; how many were admitted."""
    return send(_handlers()["guarded"], _requests("guarded", "trial", calls))[OK]


def ready():
    """Build the handlers and read the callers, before clients do it all at once."""
    _handlers()
    for who in LIMITS:
        caller_of(f"/{who}/")


def used(who):
    """How much of a caller's limit is on record."""
    return guard.used(caller_of(f"/{who}/"))


# -- statements --------------------------------------------------------------------------------------------------------


class Meter:
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
meter = Meter()


def statements(requests):
    """How many statements this process sends while it admits so many thousands of requests, at full speed."""
    _expect(_handlers()["guarded"], "admitted", _requests("guarded", "hot", WARM_UP))
    before = meter.sent
    for _ in range(requests // 1_000):
        _expect(_handlers()["guarded"], "admitted", _requests("guarded", "hot", 1_000))
    return meter.sent - before
