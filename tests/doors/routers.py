"""A project with a replica that must not be asked what has just been written."""

from __future__ import annotations

from typing import Any


class ReadsGoToTheReplica:
    """Write to `default`, read from `replica`."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        """All reads, whatever instance they begin with."""
        return "replica"

    def db_for_write(self, model: Any, **hints: Any) -> str:
        """All writes."""
        return "default"

    def allow_relation(self, one: Any, other: Any, **hints: Any) -> bool:
        """Both are the same data."""
        return True
