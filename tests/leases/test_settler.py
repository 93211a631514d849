"""Who sees to the end of a process."""

from __future__ import annotations

from threading import Event

import pytest
from django.db import OperationalError

from tests.leases.tables import borrow, open_row
from tests.leases.threads import in_thread
from usage_tracking.counters import leased_counter
from usage_tracking.counters.settler import Settler
from usage_tracking.metering import consume
from usage_tracking.signals import usage_warning


class Books:
    """Books that fail to be closed, so many times."""

    is_idle = True

    def __init__(self, failures):
        self.failures = failures

    def stop(self):
        """Fail, or have nothing to return."""
        if self.failures:
            self.failures -= 1
            raise OperationalError("server closed the connection unexpectedly")


@pytest.mark.parametrize(("failures", "logged"), [(0, False), (1, False), (2, True)])
def test_the_end_is_tried_on_a_new_connection_and_never_raises(failures, logged, caplog):
    """A connection that died after the last settlement costs nothing; what costs a lease is in the log."""
    books = Books(failures)
    Settler(books).stop()
    assert books.failures == 0
    assert ("lost when it expires" in caplog.text) == logged


def test_the_end_waits_for_who_is_being_told(organization, configure, connected, monkeypatch):
    """A receiver that was called of a settlement comes to its end before the process does."""
    configure(DEFAULT_LIMIT=100, THRESHOLDS=[10])
    enough, told = Event(), []
    connected(usage_warning, lambda used, **_: enough.wait(30) and told.append(used))
    borrow(organization)
    consume(organization, 5)
    in_thread(leased_counter._settler._settle).result(30)
    messenger = leased_counter._settler._messenger
    join = messenger.join
    monkeypatch.setattr(messenger, "join", lambda timeout: enough.set() or join(timeout))
    leased_counter.end()
    assert told == [open_row().used] == [13]
