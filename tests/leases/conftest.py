"""A process whose leases are settled by hand, and others beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.concurrency.books import misstated, unbalanced
from tests.factories import OrganizationFactory
from usage_tracking.counters import leased_counter
from usage_tracking.counters.exact import ExactCounter
from usage_tracking.counters.leased import LeasedCounter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from usage_tracking.models import UsageTrackedOrganization


@pytest.fixture(autouse=True)
def _settled_by_hand(configure, monkeypatch):
    """Count from leases, without a thread that settles."""
    configure(COUNTER="leased")
    monkeypatch.setattr(leased_counter._settler, "ensure_running", lambda: None)


@pytest.fixture
def organization(transactional_db) -> Iterator[UsageTrackedOrganization]:
    """An organization with a limit of 1000, in a database where commits are commits; its books are sound afterwards."""
    yield OrganizationFactory()
    assert unbalanced() == []
    assert misstated() == []


@pytest.fixture
def another(monkeypatch) -> Callable[[], LeasedCounter]:
    """Return another process, as far as the database can tell."""

    def start() -> LeasedCounter:
        counter = LeasedCounter(ExactCounter())
        monkeypatch.setattr(counter._settler, "ensure_running", lambda: None)
        return counter

    return start
