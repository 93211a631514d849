"""Django's handlers for one worker or server of the comparison: with nothing in the way, and behind the guard."""

from django.conf import settings

from tests.benchmarks.guards import guard

BARE = "tests.benchmarks.middleware.NoOp"


def handlers(kind):
    """Two handlers of a kind, WSGIHandler say: for what begins with /guarded/, and for everything else."""
    made, host = [], settings.MIDDLEWARE
    for middleware in (guard.middleware, BARE):
        settings.MIDDLEWARE = [*host, middleware]  # read once, by the handler
        made.append(kind())
    settings.MIDDLEWARE = host
    return made
