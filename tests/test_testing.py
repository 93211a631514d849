"""What the package offers to the tests of a host."""

import pytest

from tests.factories import OrganizationFactory
from usage_tracking.metering import consume, usage_of
from usage_tracking.models import UsageLease, UsagePeriod
from usage_tracking.testing import forget_leases, settle_leases


@pytest.fixture
def organization(transactional_db, configure):
    """An organization whose requests are counted from leases, by a settler that is quickly gone."""
    configure(COUNTER="leased", LEASE={"SETTLE_SECONDS": 0.05})
    yield OrganizationFactory()
    forget_leases()


def test_what_was_spent_is_in_the_tables_once_it_is_settled(organization):
    """As at the end of a process: nothing stays on lease."""
    for _ in range(50):
        consume(organization)
    settle_leases()
    assert UsagePeriod.objects.get().used == 50
    assert not UsageLease.objects.exists()


def test_a_process_that_has_forgotten_its_leases_counts_anew(organization):
    """The next test's organization may have the key of this one's, whose rows are gone."""
    for _ in range(50):
        consume(organization)
    forget_leases()
    UsageLease.objects.all().delete()
    UsagePeriod.objects.all().delete()
    consume(organization)
    assert usage_of(organization).used == 1
