"""Who sees to the end of a process."""

from __future__ import annotations

import pytest
from django.db import OperationalError

from usage_tracking.counters.settler import Settler


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
