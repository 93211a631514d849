"""What a client of a worker process does: each of these runs in a thread of its own, against the real database."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from datetime import timedelta
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from django.utils import timezone

from tests.concurrency.books import unbalanced
from usage_tracking import resets
from usage_tracking.entitlements import update_limits
from usage_tracking.exceptions import OrganizationGone
from usage_tracking.metering import adjust, consume, give_back, refund, usage_of
from usage_tracking.models import get_organization_model
from usage_tracking.resets import ResetReport, reset, reset_expired

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime
    from pathlib import Path

    from usage_tracking.quotas import Charge, Decision

PATIENCE = 50_000
"""Looks after which what one waits for will not come."""

TENTH = timedelta(seconds=0.1)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one call."""

    now: datetime
    amount: int
    used: int
    limit: int | None
    charge: Charge | None
    returned: int = 0

    @property
    def allowed(self) -> bool:
        """Whether the call was admitted."""
        return self.charge is not None


def organization_of(pk: object) -> Any:
    """Return the organization as this process reads it."""
    return get_organization_model()._base_manager.get(pk=pk)


def answer(decision: Decision, now: datetime, *, returned: int = 0) -> Answer:
    """Return what a test wants to know about a decision."""
    return Answer(now, decision.amount, decision.usage.used, decision.usage.limit, decision.charge, returned)


def hammer(pk: object, calls: Iterable[tuple[datetime, int]]) -> list[Answer]:
    """Consume, call by call, as fast as the database answers."""
    organization = organization_of(pk)
    return [answer(consume(organization, amount, now=now), now) for now, amount in calls]


def insist(
    pk: object,
    start: datetime | None = None,
    *,
    amounts: Sequence[int] = (1,),
    pause: float = 0,
    served: Path | None = None,
) -> list[Answer]:
    """Consume, and what is refused again, until nothing has been admitted for three seconds.

    By then the leases that others had are back. The clock runs from `start`, else it is the real one. With `served`
    each admission is noted there.
    """
    organization = organization_of(pk)
    choice, clock = random.Random(len(amounts)), Event()  # noqa: S311 - the same amounts in each run
    answers: list[Answer] = []
    begun = admitted_at = monotonic()
    while monotonic() - admitted_at < 3:
        now = timezone.now() if start is None else start + timedelta(seconds=monotonic() - begun)
        answers.append(answer(consume(organization, choice.choice(amounts), now=now), now))
        if answers[-1].allowed:
            admitted_at = monotonic()
            if served is not None:
                note(served)
        if pause or not answers[-1].allowed:
            clock.wait(pause or 0.02)
    return answers


def note(served: Path) -> None:
    """Add one byte, whatever becomes of this process afterwards."""
    with served.open("ab", buffering=0) as notes:
        notes.write(b".")


def idle(pk: object, times: int, limit: int) -> list[Answer]:
    """Consume so many times at once, and then nothing, until all others have used up the limit."""
    organization = organization_of(pk)
    answers = [answer(consume(organization), timezone.now()) for _ in range(times)]
    assert organization.usage_leases.filter(holder__contains=f":{os.getpid()}:").exists()
    wait_for(lambda: organization.usage_periods.get().used >= limit, pause=0.05)
    return answers


def hammer_and_return(pk: object, calls: Iterable[tuple[datetime, int]]) -> list[Answer]:
    """Consume, and give back every second charge some calls later: by hand or, as a door does, quietly."""
    organization = organization_of(pk)
    answers, held = [], []
    for number, (now, amount) in enumerate(calls):
        decision = consume(organization, amount, now=now)
        held.append((decision, now))
        if number % 4 == 3:
            for (kept, at), back in zip(held, [None, refund, None, give_back], strict=True):
                answers.append(answer(kept, at, returned=0 if back is None else back(kept, now=now)))
            held.clear()
    return answers + [answer(kept, at) for kept, at in held]


def hammer_until_gone(pk: object, calls: Iterable[tuple[datetime, int]]) -> str:
    """Consume, and reset now and then, until the organization is gone."""
    organization = organization_of(pk)
    try:
        for number, (now, amount) in enumerate(calls):
            consume(organization, amount, now=now)
            if number % 10 == 9:
                reset(organization, now=now)
    except OrganizationGone:
        return "gone"
    return "never noticed"


def meddle(pk: object, moments: Iterable[datetime], limits: tuple[int, int]) -> int:
    """Reset by hand and move the limit, by turns; return how many resets that were."""
    organization = organization_of(pk)
    choice, resets = random.Random(7), 0  # noqa: S311 - the same numbers in each run
    for number, now in enumerate(moments):
        if number % 3:
            update_limits(organization, limits={"api": choice.randint(*limits)}, now=now)
        else:
            reset(organization, now=now)
            resets += 1
    return resets


def reset_at(pk: object, moments: Iterable[datetime]) -> None:
    """Reset by hand at each moment."""
    organization = organization_of(pk)
    for now in moments:
        reset(organization, now=now)


def run_job(moments: Iterable[datetime]) -> list[ResetReport]:
    """Run the scheduled reset of all organizations at each moment."""
    return [reset_expired(now=now) for now in moments]


def run_job_in_batches(now: datetime, size: int, organizations: list[object] | None = None) -> ResetReport:
    """Run the scheduled reset with batches of another size, of all organizations or of those with these keys."""
    rows = None if organizations is None else get_organization_model()._base_manager.filter(pk__in=organizations)
    with patch.object(resets, "BATCH", size):
        return reset_expired(now, rows)


def watch(times: int) -> list[str]:
    """Look so many times whether the books balance; return what did not."""
    return [f"{row.pk}: {row}" for _ in range(times) for row in unbalanced()]


def hammer_until(pk: object, used: int, start: datetime) -> None:
    """Consume one by one, ten calls in each pretended second, until so much has been used."""
    organization = organization_of(pk)
    for number in range(PATIENCE):
        if consume(organization, now=start + number * TENTH).usage.used >= used:
            return
    raise AssertionError("The others never came.")


def wait_for(condition: Callable[[], bool], *, pause: float = 0) -> None:
    """Look until it holds, for up to a minute if there are pauses."""
    clock = Event()
    looks = int(60 / pause) if pause else PATIENCE
    assert any(condition() or (clock.wait(pause) if pause else False) for _ in range(looks)), "The others never came."


def delete(pk: object, periods: int) -> None:
    """Delete the organization once it has so many periods."""
    organization = organization_of(pk)
    wait_for(lambda: organization.usage_periods.count() >= periods)
    organization.delete()


def raise_limit(pk: object, limits: Iterable[int], now: datetime) -> None:
    """Raise the limit, each time once the last one has been reached."""
    organization = organization_of(pk)
    for limit in limits:
        wait_for(lambda: usage_of(organization, now=now).remaining == 0)
        update_limits(organization, limits={"api": limit}, now=now)


def lower_limit(pk: object, limit: int, now: datetime | None = None) -> int:
    """Set the limit; return how much is used and on lease just afterwards."""
    organization = organization_of(pk)
    update_limits(organization, limits={"api": limit}, now=now)
    row = organization.usage_periods.get(is_open=True)
    return row.used + row.on_lease


def lower_limit_at(pk: object, used: int, limit: int) -> int:
    """Do so once so much is used."""
    wait_for(lambda: organization_of(pk).usage_periods.filter(used__gte=used).exists(), pause=0.01)
    return lower_limit(pk, limit)


def act(name: str, arguments: dict[str, Any], pk: object) -> None:
    """Do one of the engine's actions to the organization."""
    organization = organization_of(pk)
    match name:
        case "delete":
            organization.delete()
        case "reset_expired":
            reset_expired(organizations=[organization], **arguments)
        case _:
            {action.__name__: action for action in (adjust, consume, refund, reset, update_limits)}[name](
                organization, **arguments
            )
