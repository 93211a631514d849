"""Rows made from rows: INSERT … SELECT, of what Django's models and expressions say.

What a thousand new rows have in common goes to the database once, and what each has of its own never leaves it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Lookup, Model, QuerySet, Value
from django.db.models.sql.compiler import SQLCompiler

__all__ = ["Among", "as_expression", "insert_for_each", "values_of"]


class Among(Lookup):
    """`Among(F("pk"), keys)`: `pk IN (…)` for whole numbers, which stand in the statement itself.

    Drivers take longer over a thousand parameters than databases over a thousand numbers.
    """

    lookup_name = "among"

    def get_prep_lookup(self) -> str:
        """Return the list as SQL."""
        keys: Iterable[int] = self.rhs
        return ", ".join(str(int(key)) for key in keys)

    def as_sql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> tuple[str, tuple[str | int, ...]]:
        """Return the condition."""
        if not self.rhs:
            raise EmptyResultSet
        column, parameters = self.process_lhs(compiler, connection)
        return f"{column} IN ({self.rhs})", tuple(parameters)


def insert_for_each(rows: QuerySet[Any], model: type[Model], values: Mapping[str, Any]) -> None:
    """Insert a row of `model` for each of `rows`, in one statement and in the order of their keys.

    `values` are by column; expressions among them are about `rows`, all others are the same for each.
    """
    connection = connections[rows.db]
    fields = {field.attname: field for field in model._meta.concrete_fields}
    expressions = [as_expression(value, fields[name]) for name, value in values.items()]
    select, parameters = rows.order_by("pk").values_list(*expressions).query.get_compiler(rows.db).as_sql()
    quote = connection.ops.quote_name
    columns = ", ".join(quote(str(fields[name].column)) for name in values)
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {quote(model._meta.db_table)} ({columns}) {select}", parameters)


def values_of(example: Model) -> dict[str, Any]:
    """Return the values of a row like this one, by column, without its key."""
    columns = [field.attname for field in example._meta.concrete_fields if not field.primary_key]
    return {name: getattr(example, name) for name in columns}


def as_expression(value: Any, field: Any = None) -> Any:
    """Return the value as the database stores it in `field`; an expression as it is."""
    return value if hasattr(value, "resolve_expression") else Value(value, output_field=field)
