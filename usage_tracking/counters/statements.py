"""The SQL of the hot path, compiled once per kind of database.

Building it through the ORM for each request costs as much again as running it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Expression

from usage_tracking.models import UsagePeriod

__all__ = ["Statements", "statements_for"]

RETURNED: Final = ("id", "used", "limit", "start", "end", "enforcement", "bucket_start")

BUCKET: Final = "@usage_tracking_bucket_start"
"""A variable of the session, on a database without UPDATE … RETURNING."""


@dataclass(frozen=True, slots=True)
class Statements:
    """Three statements on the open row of an organization's meter, and how what they return is read."""

    count: str
    """(amount, *open_row, now, amount): count between the rails; yields RETURNED unless `read` is needed."""
    read: str | None
    """(id that `count` left in lastrowid): yields RETURNED, on a database without UPDATE … RETURNING."""
    give_back: str
    """(amount, period id, True, bucket start, amount): return an amount to the bucket if it is still open."""
    columns: Sequence[tuple[Expression, Sequence[Callable[..., Any]]]]

    def convert(self, values: Sequence[Any], connection: BaseDatabaseWrapper) -> list[Any]:
        """Return what the database answered for RETURNED as Python values."""
        converted = list(values)
        for index, (column, converters) in enumerate(self.columns):
            for converter in converters:
                converted[index] = converter(converted[index], column, connection)
        return converted


def open_row(organization_id: object, meter: str, connection: BaseDatabaseWrapper) -> tuple[Any, str, bool]:
    """Return the parameters that name the open row of an organization's meter."""
    return UsagePeriod._meta.get_field("organization").get_db_prep_value(organization_id, connection), meter, True


def as_stored(value: datetime, connection: BaseDatabaseWrapper) -> Any:
    """Return an aware datetime as the database stores it."""
    return connection.ops.adapt_datetimefield_value(value)


def statements_for(connection: BaseDatabaseWrapper) -> Statements:
    """Return the statements for a connection's kind of database."""
    if connection.vendor not in _compiled:
        _compiled[connection.vendor] = _compile(connection)
    return _compiled[connection.vendor]


_compiled: dict[str, Statements] = {}


def _compile(connection: BaseDatabaseWrapper) -> Statements:
    fields = {field.name: field for field in UsagePeriod._meta.concrete_fields}
    quote = connection.ops.quote_name
    table = quote(UsagePeriod._meta.db_table)
    column = {name: quote(str(field.column)) for name, field in fields.items()}
    used, open_row = column["used"], " AND ".join(f"{column[n]} = %s" for n in ("organization", "meter", "is_open"))
    returned = ", ".join(column[name] for name in RETURNED)
    # Nothing but names from the model is put into the text: S608 has nothing to find here.
    count = (
        f"UPDATE {table} SET {used} = {used} + %s "  # noqa: S608
        f"WHERE {open_row} AND {column['checkpoint_at']} > %s AND {used} + %s < {column['checkpoint_used']}"
    )
    give_back = (
        f"UPDATE {table} SET {used} = {used} - %s "  # noqa: S608
        f"WHERE {column['id']} = %s AND {column['is_open']} = %s AND {column['bucket_start']} = %s "
        f"AND {used} - {column['used_before_bucket']} >= %s"
    )
    read = None
    if connection.vendor != "mysql":
        count = f"{count} RETURNING {returned}"
    else:
        # Before it is read, the row may be closed, and another be the open one: the statement itself notes which row
        # and which bucket it counts in. Both conditions are always true.
        count = f"{count} AND LAST_INSERT_ID({column['id']}) AND ({BUCKET} := {column['bucket_start']}) IS NOT NULL"
        noted = ", ".join([*(column[name] for name in RETURNED[:-1]), f"CAST({BUCKET} AS DATETIME(6))"])
        read = f"SELECT {noted} FROM {table} WHERE {column['id']} = %s"  # noqa: S608
    return Statements(
        count=count,
        read=read,
        give_back=give_back,
        columns=[
            (col, [*connection.ops.get_db_converters(col), *col.output_field.get_db_converters(connection)])
            for col in (fields[name].get_col(UsagePeriod._meta.db_table) for name in RETURNED)
        ],
    )
