"""Bodies that our views read."""

import json
from collections.abc import Mapping
from typing import IO, Any, Final, NoReturn

from django.utils.translation import gettext_lazy as _
from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser

from usage_tracking.api.exceptions import ContentTooLarge

__all__ = ["StrictJSONParser"]

MAX_BODY: Final = 256 * 1024
"""Bytes; the largest body that makes sense, thousands of features, is far below."""


class StrictJSONParser(JSONParser):
    """Reads JSON as RFC 8259 has it: in UTF-8, without NaN and the infinities, and not without end."""

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,  # noqa: ARG002 - DRF's signature
        parser_context: Mapping[str, Any] | None = None,  # noqa: ARG002 - DRF's signature
    ) -> Any:
        """Return the value. Raises ParseError or ContentTooLarge."""
        # DRF reads the stream itself, past DATA_UPLOAD_MAX_MEMORY_SIZE.
        body = stream.read(MAX_BODY + 1)
        if len(body) > MAX_BODY:
            raise ContentTooLarge
        try:
            return json.loads(body.decode(), parse_constant=_refuse)
        # Thousands of nested brackets exhaust the stack.
        except (ValueError, RecursionError) as error:
            raise ParseError(_("The body is not JSON.")) from error


def _refuse(name: str) -> NoReturn:
    message = f"{name} is not JSON."
    raise ValueError(message)
