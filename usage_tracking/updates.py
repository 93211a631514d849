"""Many rows changed at once, each to numbers of its own: one statement, whatever their number."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from django.db import connections
from django.db.models import Model

__all__ = ["update_each"]

# The numbers go to the database as one parameter, or one per column.
SOURCES: Final = {
    "postgresql": "unnest({arrays}) AS v({names})",
    "mysql": "JSON_TABLE(%s, '$[*]' COLUMNS({columns})) AS v",
    "sqlite": "(SELECT {extracts} FROM json_each(%s)) AS v",
}


def update_each(
    model: type[Model], rows: Mapping[int, Sequence[int]], columns: Sequence[str], *, using: str, **same: Any
) -> None:
    """Set `columns` (whole numbers) of the row with each key to its numbers, and what is the `same` for all of them."""
    if not rows:
        return
    connection = connections[using]
    quote = connection.ops.quote_name
    fields = {field.name: field for field in model._meta.concrete_fields}
    table, key = quote(model._meta.db_table), quote(str(model._meta.pk.column))
    names = [f"v{number}" for number in range(len(columns) + 1)]
    values = [[pk, *numbers] for pk, numbers in rows.items()]
    source = SOURCES[connection.vendor].format(
        arrays=", ".join("%s::bigint[]" for _ in names),
        names=", ".join(names),
        columns=", ".join(f"{name} BIGINT PATH '$[{number}]'" for number, name in enumerate(names)),
        extracts=", ".join(f"json_extract(value, '$[{number}]') AS {name}" for number, name in enumerate(names)),
    )
    given: list[Any] = (
        [list(column) for column in zip(*values, strict=True)]
        if connection.vendor == "postgresql"
        else [json.dumps(values)]
    )
    constants = [fields[name].get_db_prep_value(value, connection) for name, value in same.items()]
    sets = [f"{quote(str(fields[name].column))} = v.{value}" for name, value in zip(columns, names[1:], strict=True)]
    sets += [f"{quote(str(fields[name].column))} = %s" for name in same]
    # Nothing but names from the model is put into the text: S608 has nothing to find here.
    if connection.vendor == "mysql":
        qualified = ", ".join(f"t.{assignment}" for assignment in sets)
        # By their keys, and no other way: reading a small table from end to end would wait for rows that others hold.
        joined = f"{source} STRAIGHT_JOIN {table} AS t FORCE INDEX (PRIMARY) ON t.{key} = v.v0"
        statement = f"UPDATE {joined} SET {qualified}"  # noqa: S608
        parameters = [*given, *constants]
    else:
        statement = f"UPDATE {table} SET {', '.join(sets)} FROM {source} WHERE {table}.{key} = v.v0"  # noqa: S608
        parameters = [*constants, *given]
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
