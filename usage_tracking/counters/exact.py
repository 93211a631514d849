"""The exact counter: one conditional UPDATE per request between the rails, the ledger for everything else."""

from dataclasses import replace
from datetime import datetime

from django.db import connections

from usage_tracking import refusals
from usage_tracking.counters.base import Counter
from usage_tracking.counters.statements import as_stored, open_row, statements_for
from usage_tracking.databases import home_of
from usage_tracking.deadlocks import retried
from usage_tracking.ledger import locked
from usage_tracking.models import UsageTrackedOrganization
from usage_tracking.periods import Period
from usage_tracking.quotas import Charge, Decision, Enforcement, Usage

__all__ = ["ExactCounter"]


class ExactCounter(Counter):
    """Every admitted amount is in the database before the request goes on."""

    @retried
    def take(
        self,
        organization: UsageTrackedOrganization,
        amount: int,
        meter: str,
        *,
        now: datetime,
        using: str,
        refusable: bool = True,
    ) -> Decision:
        """Take `amount`: refused from memory, else counted between the rails, else decided in the slow path."""
        # In a transaction the answer may depend on what is not committed, so it is neither kept nor believed.
        joined = connections[using].in_atomic_block
        memory = refusable and not joined
        if memory and refusals.known():
            usage = refusals.recall((home_of(using), organization.pk, meter), amount, now.timestamp())
            if usage is not None:
                return Decision(allowed=False, amount=amount, usage=usage)
        if decision := count_between_rails(organization.pk, amount, meter, now=now, using=using):
            return decision
        with locked(organization.pk, meter, now=now, using=using) as [ledger]:
            charge = ledger.take(amount, refusable=refusable)
        usage = ledger.usage()
        if charge is None and memory:
            refusals.remember(ledger.key, amount, usage, now=now, checkpoint_at=ledger.row.checkpoint_at)
        elif charge is not None and joined:
            charge = replace(charge, joined=True)
        return Decision(allowed=charge is not None, amount=amount, usage=usage, charge=charge)

    @retried
    def give_back(self, charge: Charge, *, now: datetime) -> int:
        """Return a charge: one UPDATE while its bucket is open, else through the ledger."""
        if return_to_open_bucket(charge):
            refusals.forget((home_of(charge.database), charge.organization_id, charge.meter))
            return charge.amount
        with locked(charge.organization_id, charge.meter, now=now, using=charge.database) as [ledger]:
            return ledger.give_back_charge(charge)


def count_between_rails(
    organization_id: object, amount: int, meter: str, *, now: datetime, using: str
) -> Decision | None:
    """Count `amount` with one statement if it stays below both rails of the open period; None if it does not.

    No cache, no SELECT, no key remembered from another transaction: the row that is open when the database executes
    the statement decides. Databases without UPDATE … RETURNING read once more the row that the statement has noted.
    """
    connection = connections[using]
    statements = statements_for(connection)
    row = open_row(organization_id, meter, connection)
    with connection.cursor() as cursor:
        cursor.execute(statements.count, (amount, *row, as_stored(now, connection), amount))
        if statements.read is not None:
            if not cursor.rowcount:
                return None
            cursor.execute(statements.read, (cursor.lastrowid,))
        values = cursor.fetchone()
    if values is None:
        return None
    pk, used, limit, start, end, enforcement, bucket_start = statements.convert(values, connection)
    return Decision(
        allowed=True,
        amount=amount,
        usage=Usage(
            meter=meter,
            used=used,
            limit=limit,
            period=Period(start, end),
            enforcement=Enforcement(enforcement),
            expired=end is not None and end <= now,
        ),
        charge=Charge(
            database=using,
            organization_id=organization_id,
            meter=meter,
            amount=amount,
            period_id=pk,
            bucket_start=bucket_start,
            joined=connection.in_atomic_block,
        ),
    )


def return_to_open_bucket(charge: Charge) -> bool:
    """Give a charge back with one statement if its bucket is still open."""
    connection = connections[charge.database]
    statements = statements_for(connection)
    bucket_start = as_stored(charge.bucket_start, connection)
    with connection.cursor() as cursor:
        cursor.execute(statements.give_back, (charge.amount, charge.period_id, True, bucket_start, charge.amount))
        return bool(cursor.rowcount)
