"""The organizations of the demo and their last 90 days, written by the engine itself with its clock set back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache, partial
from typing import Any, Final

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.db import transaction
from rest_framework.authtoken.models import Token

from accounts.models import Membership, Organization, OrganizationAPIKey
from usage_tracking.metering import consume, record
from usage_tracking.periods import ResetMode
from usage_tracking.resets import reset_expired

DAYS: Final = 90
PASSWORD: Final = "demo"  # noqa: S105 - nothing here is secret
ADMIN: Final = "admin"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Story:
    """An organization of the demo: what it bought, who works there, how busy it is."""

    name: str
    slug: str
    plan: str
    username: str
    daily: int
    """Requests on an ordinary day."""
    summaries: bool = False
    """Whether it has texts summarized, which takes tokens."""
    terms: dict[str, Any] = field(default_factory=dict)
    """Usage fields other than the plan."""
    missed_jobs: int = 0
    """Days for which the scheduled reset has not run."""

    @property
    def organization(self) -> Organization:
        """The organization, as it is now."""
        return Organization.objects.get(slug=self.slug)

    @property
    def user(self) -> User:
        """Its member."""
        return User.objects.get(username=self.username)


AMBER: Final = Story(name="Amber Bakery", slug="amber", plan="free", username="ada", daily=2)
BOLT: Final = Story(
    name="Bolt Robotics",
    slug="bolt",
    plan="pro",
    username="bob",
    daily=22,
    summaries=True,
    terms={"usage_reset_mode": "scheduled", "usage_anchor": "2001-01-15", "usage_time_zone": "Europe/Berlin"},
)
COBALT: Final = Story(name="Cobalt Labs", slug="cobalt", plan="enterprise", username="carol", daily=400)
DELTA: Final = Story(
    name="Delta Freight",
    slug="delta",
    plan="pro",
    username="dan",
    daily=4,
    terms={"usage_limits": {"api": 200}, "usage_time_zone": "America/New_York"},
)
EMBER: Final = Story(
    name="Ember Energy",
    slug="ember",
    plan="pro",
    username="eve",
    daily=3,
    summaries=True,
    terms={"usage_limits": {"api": 150}, "usage_enforcement": "soft"},
)
CALLERS: Final = (AMBER, BOLT, COBALT, DELTA, EMBER)

FJORD: Final = Story(
    name="Fjord Hotel",
    slug="fjord",
    plan="free",
    username="finn",
    daily=35,
    terms={"usage_reset_period": "daily"},
)
GLACIER: Final = Story(
    name="Glacier Tours",
    slug="glacier",
    plan="free",
    username="gwen",
    daily=15,
    terms={"usage_reset_mode": "scheduled", "usage_reset_period": "daily"},
    missed_jobs=3,
)
HARBOR: Final = Story(
    name="Harbor Clinic",
    slug="harbor",
    plan="pro",
    username="hana",
    daily=9,
    terms={"usage_reset_mode": "manual"},
)
RESETS: Final = (FJORD, GLACIER, HARBOR)


def seed(now: datetime, advance: Callable[[str], None]) -> None:
    """Make what is not there yet; `advance` hears the name of an organization once for each of its days.

    Those of the resets are made anew every time: a reset has to find a period that has ended.
    """
    if not User.objects.filter(username=ADMIN).exists():
        User.objects.create_superuser(ADMIN, password=ADMIN)
    Organization.objects.filter(slug__in=[story.slug for story in RESETS]).delete()
    # Hashing is slow on purpose, so it is done once: the demo has one password for all.
    password = cache(partial(make_password, PASSWORD))
    for story in (*CALLERS, *RESETS):
        # One transaction each, so that an interrupted run leaves no half of a history behind.
        with transaction.atomic():
            user, _ = User.objects.get_or_create(username=story.username, defaults={"password": password})
            Token.objects.get_or_create(user=user)
            organization, created = Organization.objects.get_or_create(
                slug=story.slug, defaults={"name": story.name, "usage_plan": story.plan, **story.terms}
            )
            Membership.objects.get_or_create(user=user, organization=organization)
            for day in range(DAYS, 0, -1):
                if created:
                    _live(organization, story, day, now - timedelta(days=day))
                advance(story.name)


def new_api_key(organization: Organization) -> str:
    """Return a fresh API key; only its hash is kept, so the one of an earlier run cannot be shown again."""
    organization.api_keys.filter(name="demo").delete()
    _, key = OrganizationAPIKey.objects.create_key(name="demo", organization=organization)
    return key


def _live(organization: Organization, story: Story, day: int, then: datetime) -> None:
    """Let the organization live through one day, `day` days ago."""
    if organization.usage_reset_mode == ResetMode.SCHEDULED and day > story.missed_jobs:
        reset_expired(then, [organization])
    weekend = then.weekday() >= 5
    # The same every time, and different every day.
    amount = story.daily * (50 if weekend else 80 + then.toordinal() * 7 % 40) // 100
    consume(organization, amount, now=then)
    if story.summaries:
        record(organization, 11 * amount, meter="tokens", now=then)
