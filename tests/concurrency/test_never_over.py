"""P1: under hard enforcement nothing admits more than the limit, and what fits is admitted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from django.db import connection

from tests.concurrency.books import events_of, periods_of
from tests.concurrency.clients import hammer, insist, meddle, watch
from tests.concurrency.crowd import SECOND, deal, flat, storm
from tests.factories import OrganizationFactory
from usage_tracking.metering import refund, usage_of

pytestmark = pytest.mark.usefixtures("counter")

START = datetime(2025, 6, 10, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def organization():
    """Limit 1,000, which is the settings' default."""
    return OrganizationFactory()


def test_exactly_the_limit_is_admitted(crowd, organization):
    """Of 3,000 requests from 2 processes × 8 threads exactly 1,000 pass a limit of 1,000.

    What is refused while others have the rest on lease is admitted when it is tried again.
    """
    answers = flat(crowd.run(*deal(hammer, organization.pk, storm(START, 3000))))
    assert len(answers) == 3000
    answers += flat(crowd.run([partial(insist, organization.pk, START + 2 * SECOND)]))

    assert sum(answer.allowed for answer in answers) == 1000
    assert [period.used for period in periods_of(organization)] == [1000]


def test_mixed_amounts_are_never_over(crowd, organization):
    """Amounts from 1 to 7 fill the limit as far as they fit, and what fits later is admitted one second later."""
    clients = [partial(insist, organization.pk, START, amounts=range(1, 8))] * 4
    answers = flat(crowd.run(clients, clients))

    admitted = [answer for answer in answers if answer.allowed]
    [period] = periods_of(organization)
    assert period.used == sum(answer.amount for answer in admitted) <= 1000
    # Every size was asked for again and again: whatever still fitted was taken.
    assert period.used == 1000

    # The processes that refuse from memory cannot know of this.
    refund(organization, 9, now=START + HOUR)
    retries = [(START + HOUR + SECOND, 9), (START + HOUR + SECOND, 1)]
    [[[nine, one]]] = crowd.run([partial(hammer, organization.pk, retries)])[:1]
    assert nine.allowed
    assert not one.allowed
    assert usage_of(organization, now=START + HOUR + SECOND).used == 1000


def test_never_over_while_the_period_is_reset_and_the_limit_moves(crowd, organization):
    """No period ends above the highest limit it ever had, and none of the admitted is missing from all of them."""
    meddler = partial(meddle, organization.pk, [START + SECOND / 10 * n for n in range(40)], (5, 60))
    results = crowd.run(
        *deal(hammer, organization.pk, storm(START, 800, amounts=range(1, 8), length=4 * SECOND)),
        [meddler, partial(watch, 20)],
    )

    [resets, drifted] = results.pop()
    assert drifted == []
    admitted = [answer for answer in flat(results) if answer.allowed]
    periods = periods_of(organization)
    assert len(periods) == resets + 1
    assert sum(period.used for period in periods) == sum(answer.amount for answer in admitted)
    opened_under = 1000
    for period in periods:
        moves = [event.limit for event in events_of(organization, "limits_updated") if event.period_id == period.pk]
        assert period.used <= max([opened_under, *moves])
        opened_under = period.limit
    if connection.vendor != "mysql":
        # What UPDATE … RETURNING says is the row as it was at that instant, lowered limits included.
        assert [answer for answer in admitted if answer.used > answer.limit] == []
