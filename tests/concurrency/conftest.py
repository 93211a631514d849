"""The crowd, and the database it shares with the tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.concurrency.crowd import Crowd

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def crowd(test_database_url) -> Iterator[Crowd]:
    """Three processes: two of clients and one that meddles."""
    crowd = Crowd(3, test_database_url)
    yield crowd
    crowd.close()


@pytest.fixture(autouse=True)
def _committed(transactional_db) -> None:
    """What a test writes is committed: other processes must see it."""
