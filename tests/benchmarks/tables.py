"""The tables of a benchmark."""

from django.db import connection


def analyze(*models):
    """Let the database look at tables that were just filled, as its own housekeeping would in time."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("VACUUM ANALYZE")
        elif connection.vendor == "sqlite":
            cursor.execute("ANALYZE")
        else:
            cursor.execute(f"ANALYZE TABLE {', '.join(model._meta.db_table for model in models)}")
            cursor.fetchall()
