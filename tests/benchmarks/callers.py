"""Who sends the requests of the comparison."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model

from tests.factories import Organization

LIMITS = {"hot": 10**9, "spent": 1_000, "trial": 1_000}
"""What each caller may use: more than it ever will, or a thousand. The last word of a path says who calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A user and their organization, which nobody else in this run has."""

    key: str
    limit: int
    user: Any
    organization: Any


def caller_of(path):
    """Return who calls, made when they are first asked for; a process asks the database once."""
    return _caller(path.rsplit("/", 2)[-2])


def all_callers():
    """Return everybody who may call."""
    return [_caller(name) for name in LIMITS]


@cache
def _caller(name):
    key, limit = f"{settings.BENCHMARK_KEY}:{name}", LIMITS[name]
    user, _ = get_user_model().objects.get_or_create(username=key)
    organization, _ = Organization.objects.get_or_create(name=key, defaults={"usage_limits": {"api": limit}})
    return Caller(key=key, limit=limit, user=user, organization=organization)
