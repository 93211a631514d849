"""Django's handlers for one worker or server of the comparison: with nothing in the way, and behind the guard."""

from django.conf import settings
from django.test import override_settings

from tests.benchmarks.guards import guard

BARE = "tests.benchmarks.middleware.NoOp"


def handlers(kind):
    """Two handlers of a kind, WSGIHandler say: for what begins with /guarded/, and for everything else."""
    made = []
    for middleware in (guard.middleware, BARE):
        with override_settings(MIDDLEWARE=[*settings.MIDDLEWARE, middleware]):  # read once, by the handler
            made.append(kind())
    return made
