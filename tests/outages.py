"""What may happen to the database while we need it."""

from contextlib import contextmanager

from django.db import connections


@contextmanager
def database_down(monkeypatch):
    """Take the database away: its port is closed, or its file's directory gone."""
    connection = connections["default"]
    connection.close()
    with monkeypatch.context() as patch:
        if connection.vendor == "sqlite":
            patch.setitem(connection.settings_dict, "NAME", "/nonexistent/db.sqlite3")
        else:
            patch.setitem(connection.settings_dict, "PORT", "1")
        yield
        connection.close()
