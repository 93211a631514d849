"""The crowd, and the database it shares with the tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.concurrency.crowd import Crowd
from tests.concurrency.worker import counting

if TYPE_CHECKING:
    from collections.abc import Iterator


COUNTERS = {
    "exact": {"COUNTER": "exact"},
    # Settled often, so that much happens in a short test; nobody is given up because the machine is slow.
    "leased": {"COUNTER": "leased", "LEASE": {"SETTLE_SECONDS": 0.1, "EXPIRE_SECONDS": 60}},
}


@pytest.fixture(scope="session")
def crowd(test_database_url) -> Iterator[Crowd]:
    """Four processes: most tests have two of clients and one that meddles."""
    crowd = Crowd(4, test_database_url)
    yield crowd
    crowd.close()


@pytest.fixture(autouse=True)
def _committed(transactional_db) -> None:
    """What a test writes is committed: other processes must see it."""


@pytest.fixture(params=list(COUNTERS))
def counter(request, crowd, _committed) -> Iterator[str]:
    """Each counter in turn, in all processes and here."""
    crowd.settings = COUNTERS[request.param]
    with counting(dict(crowd.settings)):
        yield request.param
    crowd.settings = {}
