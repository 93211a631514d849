"""The main job: real requests through the whole middleware stack, and a reset of each kind."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.test import AsyncClient, Client
from rest_framework.authtoken.models import Token

from accounts.models import Notice, Organization
from demo.seeding import ADMIN, AMBER, BOLT, COBALT, DELTA, EMBER, FJORD, GLACIER, HARBOR, Story, new_api_key
from usage_tracking.metering import consume, usage_of
from usage_tracking.models import UsageEvent, UsagePeriod
from usage_tracking.resets import reset, reset_expired

Advance = Callable[[str], None]

TOO_MANY: Final = 20
"""How many requests past its limit an organization sends."""


# -- requests ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What one organization sends: who calls, what, and how much of the limit one request takes."""

    story: Story
    caller: str
    path: str
    amount: int = 1

    def count(self) -> int:
        """Return how many requests reach the limit and go past it."""
        remaining = usage_of(self.story.organization).remaining
        return 100 if remaining is None else remaining // self.amount + TOO_MANY // self.amount + 1


ERRANDS: Final = (
    Errand(story=AMBER, caller="session", path="/api/forecast/"),
    Errand(story=BOLT, caller="DRF token", path="/api/climate-report/", amount=25),
    Errand(story=COBALT, caller="API key", path="/api/observations/"),
    Errand(story=DELTA, caller="async session", path="/api/radar/"),
    Errand(story=EMBER, caller="DRF token", path="/api/climate-report/", amount=25),
)


def make_room() -> list[Organization]:
    """Open a new period for those that an earlier demo has left at their limit; return them."""
    organizations = [errand.story.organization for errand in ERRANDS]
    used_up = [organization for organization in organizations if (usage_of(organization).percentage or 0) >= 80]
    for organization in used_up:
        reset(organization, reason="The last demo has used it up.")
    return used_up


def run(errand: Errand, count: int, advance: Advance) -> Counter[int]:
    """Send `count` requests and return how often each status came back."""
    if errand.caller == "async session":
        return async_to_sync(_send_async)(errand, count, advance)
    client = _client_of(errand)
    statuses: Counter[int] = Counter()
    for _ in range(count):
        statuses[client.get(errand.path).status_code] += 1
        advance(errand.story.name)
    return statuses


def _client_of(errand: Errand) -> Client:
    match errand.caller:
        case "DRF token":
            return Client(headers={"Authorization": f"Token {Token.objects.get(user=errand.story.user)}"})
        case "API key":
            return Client(headers={"Authorization": f"Api-Key {new_api_key(errand.story.organization)}"})
        case _:
            return client_with_session(errand.story)


def client_with_session(story: Story) -> Client:
    """Return a client that is logged in as the organization's member."""
    client = Client()
    client.force_login(story.user)
    return client


async def _send_async(errand: Errand, count: int, advance: Advance) -> Counter[int]:
    client = AsyncClient()
    await client.aforce_login(await User.objects.aget(username=errand.story.username))
    statuses: Counter[int] = Counter()
    for _ in range(count):
        statuses[(await client.get(errand.path)).status_code] += 1
        advance(errand.story.name)
    return statuses


HEADINGS: Final = (
    "organization",
    "caller",
    "plan",
    "enforcement",
    "used",
    "limit",
    "remaining",
    "refused",
    "warnings",
    "exceeded",
)


def row_of(errand: Errand, notices_before: int) -> tuple[object, ...]:
    """Return the organization's row of the table: the open period, and the notices that its receivers have got."""
    organization = errand.story.organization
    usage = usage_of(organization)
    period = UsagePeriod.objects.get(organization=organization, meter="api", is_open=True)
    notices = Notice.objects.filter(organization=organization, pk__gt=notices_before)
    kinds = Counter(notices.values_list("kind", flat=True))
    unlimited = usage.limit is None
    return (
        organization.name,
        errand.caller,
        organization.usage_plan,
        usage.enforcement,
        usage.used,
        "unlimited" if unlimited else usage.limit,
        "unlimited" if unlimited else usage.remaining,
        period.refused,
        kinds[UsageEvent.Kind.WARNING],
        kinds[UsageEvent.Kind.EXCEEDED],
    )


# -- resets ------------------------------------------------------------------------------------------------------------

RESET_HEADINGS: Final = ("reset", "organization", "by", "closed", "before", "after")


def resets() -> list[tuple[object, ...]]:
    """Reset one organization lazily, one by the scheduled job and one by hand; return a row of the table for each."""
    lazy = _watched(FJORD, "lazy", "its next request", lambda _: client_with_session(FJORD).get("/api/forecast/"))
    # Its job has not come yet, so what it uses today still goes to the period of some days ago.
    consume(GLACIER.organization, 12)
    scheduled = _watched(GLACIER, "scheduled", "reset_expired()", lambda _: reset_expired())
    admin = User.objects.get(username=ADMIN)
    manual = _watched(HARBOR, "manual", f"reset() by {admin}", partial(reset, actor=admin, reason="goodwill"))
    return [lazy, scheduled, manual]


def _watched(story: Story, mode: str, by: str, act: Callable[[Organization], Any]) -> tuple[object, ...]:
    organization = story.organization
    before, closed_before = _open_period(organization), _closed_periods(organization)
    act(organization)
    closed = _closed_periods(organization) - closed_before
    return mode, organization.name, by, closed, before, _open_period(organization)


def _closed_periods(organization: Organization) -> int:
    return UsagePeriod.objects.filter(organization=organization, meter="api", is_open=None).count()


def _open_period(organization: Organization) -> str:
    period = UsagePeriod.objects.get(organization=organization, meter="api", is_open=True)
    return f"{period.used} since {period.start:%d %b %H:%M}"
