"""Rows as CSV (RFC 4180): streamed, so that a million take no more memory than one."""

import csv
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db.models import QuerySet
from django.http import HttpRequest, StreamingHttpResponse

__all__ = ["csv_response"]

CHUNK: Final = 500
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet takes for a formula (OWASP, "CSV Injection"), also in its full-width forms."""


class _Echo:
    """A file that hands back what is written to it."""

    def write(self, line: str) -> str:
        return line


def csv_response(
    request: HttpRequest, rows: QuerySet[Any], columns: Sequence[str], *, filename: str
) -> StreamingHttpResponse:
    """Answer with `columns` (attributes, dotted ones too) of the rows; instants are ISO 8601 in UTC."""
    chunks = _chunks(rows, columns)
    # Under ASGI a plain iterator would be read to its end before anything is sent.
    content = _hopping(chunks) if isinstance(request, ASGIRequest) else chunks
    return StreamingHttpResponse(
        content,
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{filename}"'},
    )


def _chunks(rows: QuerySet[Any], columns: Sequence[str]) -> Iterator[str]:
    writer: Any = csv.writer(_Echo())  # its rows are what _Echo hands back
    yield writer.writerow(columns)
    found = rows.iterator(chunk_size=CHUNK)
    while chunk := list(islice(found, CHUNK)):
        yield "".join(writer.writerow(_cells(row, columns)) for row in chunk)


async def _hopping(chunks: Iterable[str]) -> AsyncIterator[str]:
    iterator = iter(chunks)
    following = sync_to_async(partial(next, iterator, None))
    while (chunk := await following()) is not None:
        yield chunk


def _cells(row: Any, columns: Sequence[str]) -> Iterator[Any]:
    for column in columns:
        yield _cell(getattr(row, column))


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    if value is None or isinstance(value, int):
        return value
    text = str(value)
    return f"'{text}" if text.startswith(FORMULA) else text
