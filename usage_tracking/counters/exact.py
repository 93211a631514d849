"""The exact counter: one conditional UPDATE per request between the rails, the ledger for everything else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from usage_tracking import refusals
from usage_tracking.counters.base import Counter
from usage_tracking.ledger import locked
from usage_tracking.models import UsagePeriod, UsageTrackedOrganization
from usage_tracking.periods import Period
from usage_tracking.quotas import Charge, Decision, Enforcement, Usage

__all__ = ["ExactCounter"]

RETURNED: Final = ("id", "used", "limit", "start", "end", "enforcement", "bucket_start")


class ExactCounter(Counter):
    """Every admitted amount is in the database before the request goes on."""

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
        key = (using, organization.pk, meter)
        # In a transaction the answer may depend on what is not committed, so it is neither kept nor believed.
        memory = refusable and not connections[using].in_atomic_block
        if memory and (usage := refusals.recall(key, amount, now)):
            return Decision(allowed=False, amount=amount, usage=usage)
        if decision := count_between_rails(organization.pk, amount, meter, now=now, using=using):
            return decision
        with locked(organization, meter, now=now, using=using) as [ledger]:
            charge = ledger.take(amount, refusable=refusable)
        usage = ledger.usage()
        if charge is None and memory:
            refusals.remember(key, amount, usage, now=now, checkpoint_at=ledger.row.checkpoint_at)
        return Decision(allowed=charge is not None, amount=amount, usage=usage, charge=charge)

    def give_back(self, organization: UsageTrackedOrganization, charge: Charge, *, now: datetime) -> int:
        """Return a charge: one UPDATE while its bucket is open, else through the ledger."""
        if return_to_open_bucket(charge):
            refusals.forget((charge.database, charge.organization_id, charge.meter))
            return charge.amount
        with locked(organization, charge.meter, now=now, using=charge.database) as [ledger]:
            return ledger.give_back_charge(charge)


def count_between_rails(
    organization_id: object, amount: int, meter: str, *, now: datetime, using: str
) -> Decision | None:
    """Count `amount` with one statement if it stays below both rails of the open period; None if it does not.

    No cache, no SELECT, no key remembered from another transaction: the row that is open when the database executes
    the statement decides. Databases without UPDATE … RETURNING read the row once more.
    """
    connection = connections[using]
    statement = _statement(connection.vendor, using)
    organization_key = statement.organization_key(organization_id, connection)
    with connection.cursor() as cursor:
        cursor.execute(
            statement.count,
            (amount, organization_key, meter, True, statement.instant(now, connection), amount),
        )
        if statement.read is None:
            values = cursor.fetchone()
        elif cursor.rowcount:
            cursor.execute(statement.read, (organization_key, meter, True))
            values = cursor.fetchone()
        else:
            values = None
    if values is None:
        return None
    pk, used, limit, start, end, enforcement, bucket_start = statement.convert(values, connection)
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
        ),
    )


def return_to_open_bucket(charge: Charge) -> bool:
    """Give a charge back with one statement if its bucket is still open."""
    connection = connections[charge.database]
    statement = _statement(connection.vendor, charge.database)
    bucket_start = statement.instant(charge.bucket_start, connection)
    with connection.cursor() as cursor:
        cursor.execute(statement.give_back, (charge.amount, charge.period_id, True, bucket_start, charge.amount))
        return bool(cursor.rowcount)


# -- the statements, compiled once -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Statement:
    """The SQL of one database, and how its values are written and read.

    Building it through the ORM for each request costs as much again as running it.
    """

    count: str
    read: str | None
    give_back: str
    converters: Sequence[Sequence[Callable[..., Any]]]
    columns: Sequence[Any]

    def instant(self, value: datetime, connection: BaseDatabaseWrapper) -> Any:
        return connection.ops.adapt_datetimefield_value(value)

    def organization_key(self, value: object, connection: BaseDatabaseWrapper) -> Any:
        return UsagePeriod._meta.get_field("organization").get_db_prep_value(value, connection)

    def convert(self, values: Sequence[Any], connection: BaseDatabaseWrapper) -> list[Any]:
        converted = list(values)
        for index, converters in enumerate(self.converters):
            for converter in converters:
                converted[index] = converter(converted[index], self.columns[index], connection)
        return converted


@cache
def _statement(vendor: str, using: str) -> _Statement:
    # The vendor is part of the key because tests point an alias at another database.
    connection = connections[using]
    quote = connection.ops.quote_name
    meta = UsagePeriod._meta
    column = {field.name: quote(field.column) for field in meta.concrete_fields}
    table = quote(meta.db_table)
    open_row = f"{column['organization']} = %s AND {column['meter']} = %s AND {column['is_open']} = %s"
    returned = ", ".join(column[name] for name in RETURNED)
    # SQLite has both INSERT … RETURNING and UPDATE … RETURNING since 3.35; MariaDB only the former.
    returning = connection.vendor != "mysql" and connection.features.can_return_columns_from_insert
    count = (
        f"UPDATE {table} SET {column['used']} = {column['used']} + %s "  # noqa: S608 - names from the model
        f"WHERE {open_row} AND {column['checkpoint_at']} > %s "
        f"AND {column['used']} + %s < {column['checkpoint_used']}"
    )
    columns = [meta.get_field(name).get_col(meta.db_table) for name in RETURNED]
    return _Statement(
        count=f"{count} RETURNING {returned}" if returning else count,
        read=None if returning else f"SELECT {returned} FROM {table} WHERE {open_row}",  # noqa: S608
        give_back=(
            f"UPDATE {table} SET {column['used']} = {column['used']} - %s "  # noqa: S608
            f"WHERE {column['id']} = %s AND {column['is_open']} = %s AND {column['bucket_start']} = %s "
            f"AND {column['used']} - {column['used_before_bucket']} >= %s"
        ),
        converters=[
            [*connection.ops.get_db_converters(col), *col.output_field.get_db_converters(connection)] for col in columns
        ],
        columns=columns,
    )
