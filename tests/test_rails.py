"""The two rails: between them a request is one statement that counts, and whatever else happens is the slow path's."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from tests.factories import OrganizationFactory
from usage_tracking import refusals
from usage_tracking.events import deferred_delivery
from usage_tracking.metering import consume, give_back, record
from usage_tracking.models import UsageEvent, UsageHistory, UsagePeriod

NOW = datetime(2025, 6, 10, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)

# MariaDB has no UPDATE … RETURNING.
HOT = ["UPDATE"] if connection.vendor != "mysql" else ["UPDATE", "SELECT"]


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, and whether it ran in a transaction."""

    sql: str
    in_transaction: bool

    @property
    def verb(self) -> str:
        """What it does."""
        return self.sql.split(maxsplit=1)[0]


@contextmanager
def statements():
    """Yield the list that all statements of the block are written to, deliveries excepted."""
    seen = []

    def note(execute, sql, params, many, context):
        if sql != "BEGIN":  # which only SQLite shows
            seen.append(Statement(sql, connection.in_atomic_block))
        return execute(sql, params, many, context)

    with deferred_delivery(), connection.execute_wrapper(note):
        yield seen


def verbs(seen):
    """What the statements do."""
    return [statement.verb for statement in seen]


def stored():
    """Everything that is stored, but for what a request between the rails may change."""
    return [
        [{name: value for name, value in row.items() if name != "used"} for row in UsagePeriod.objects.values()],
        list(UsageHistory.objects.values()),
        list(UsageEvent.objects.values()),
    ]


@pytest.fixture(autouse=True)
def _forget():
    refusals.clear()


@pytest.fixture
def organization(transactional_db):
    """Limit 1,000; its period is open and its first bucket, the tenth of June, too."""
    organization = OrganizationFactory()
    consume(organization, now=NOW)
    return organization


@pytest.mark.parametrize("count", [consume, record])
def test_request_between_the_rails_is_one_statement(organization, count):
    """Between the rails a request is one UPDATE and no SELECT (MariaDB: one), outside of any transaction of ours."""
    before = stored()
    with statements() as seen:
        decision = count(organization, 7, now=NOW)

    assert decision.usage.used == 8
    assert verbs(seen) == HOT
    assert not any(statement.in_transaction for statement in seen)
    assert stored() == before
    assert UsagePeriod.objects.get().used == 8


def test_returned_charge_is_one_statement(organization):
    """A charge that is given back while its bucket is open is one UPDATE."""
    decision = consume(organization, 7, now=NOW)
    before = stored()
    with statements() as seen:
        assert give_back(decision, now=NOW) == 7

    assert verbs(seen) == ["UPDATE"]
    assert stored() == before
    assert UsagePeriod.objects.get().used == 1


def test_exhausted_organization_reaches_the_database_once_a_second(organization):
    """Of 100 refusals in five seconds five ask the database, and all of them are counted."""
    consume(organization, 999, now=NOW)
    asked = 0
    for tick in range(100):
        with statements() as seen:
            assert not consume(organization, now=NOW + tick * SECOND / 20)
        asked += bool(seen)

    assert asked == 5
    assert not consume(organization, now=NOW + 5 * SECOND)
    assert UsagePeriod.objects.get().refused == 101


def test_larger_amounts_are_refused_from_memory_and_smaller_ones_are_not(organization):
    """What is remembered stands against amounts at least as large; one that may fit asks the database."""
    consume(organization, 990, now=NOW)
    assert not consume(organization, 12, now=NOW)
    with statements() as seen:
        assert not consume(organization, 12, now=NOW)
        assert not consume(organization, 500, now=NOW)
    assert seen == []
    assert consume(organization, 9, now=NOW)


LIFE = [
    ("between the rails", timedelta(0), 10),
    ("a bucket ends", 12 * HOUR, 10),
    ("between the rails again", 12 * HOUR, 10),
    ("a threshold is crossed", 12 * HOUR, 770),
    ("between threshold and limit", 12 * HOUR, 100),
    ("an amount does not fit", 12 * HOUR, 200),
    ("the limit is reached", 12 * HOUR, 99),
    ("the period ends", 21 * 24 * HOUR, 1),
    ("between the rails of the next", 21 * 24 * HOUR, 1),
]


def test_only_the_slow_path_closes_announces_and_refuses(organization):
    """Along a period's life each call either changes `used` alone, by one statement, or locks the organization's row
    before anything else changes, all in one transaction.
    """  # noqa: D205
    table = organization._meta.db_table
    happened = Counter()
    for label, later, amount in LIFE:
        before, told = stored(), UsageEvent.objects.count()
        with statements() as seen:
            decision = consume(organization, amount, now=NOW + later)
        if verbs(seen) == HOT and decision:
            assert stored() == before, label
            happened["between the rails"] += 1
            continue
        miss, lock, *rest = seen
        assert not miss.in_transaction, label
        assert table in lock.sql, label
        assert all(statement.in_transaction for statement in [lock, *rest]), label
        happened.update(UsageEvent.objects.order_by("pk").values_list("kind", flat=True)[told:])
        happened["refusal"] += not decision
        happened["bucket"] += UsageHistory.objects.count() - len(before[1])

    assert +happened == {
        "between the rails": 4,
        "bucket": 2,
        "warning": 1,
        "exceeded": 1,
        "reset": 1,
        "refusal": 1,
    }


@pytest.mark.parametrize("lowered", [0, 5, 9, 10, 11])
def test_no_rail_is_open_past_the_limit(organization, freeze, lowered):
    """However far below `used` a limit is lowered, hard enforcement admits nothing past it; a soft one counts it."""
    freeze(NOW)  # saving the organization looks at the clock
    consume(organization, 9, now=NOW)
    organization.usage_limits = {"api": lowered}
    organization.save()
    refusals.clear()
    assert [bool(consume(organization, now=NOW)) for _ in range(3)] == [lowered > 10, False, False]

    organization.usage_enforcement = "soft"
    organization.save()
    refusals.clear()
    assert [bool(consume(organization, now=NOW)) for _ in range(3)] == [True, True, True]
