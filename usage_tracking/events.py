"""The outbox: what happened is recorded in the transaction that makes it true, and told after the commit.

Events are claimed before they are sent and marked when they have been, some at a time, so each is delivered at least
once, whatever crashes, and normally exactly once.
"""

import logging
from collections.abc import Iterable
from contextvars import ContextVar
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Self

from django.contrib.auth import get_user_model
from django.db import router, transaction
from django.db.models import Q, QuerySet
from django.dispatch import Signal
from django.utils import timezone
from django.utils.module_loading import import_string

from usage_tracking import signals
from usage_tracking.conf import EventDispatch, usage_settings
from usage_tracking.databases import home_of, locking
from usage_tracking.deadlocks import retried
from usage_tracking.exceptions import InvalidInput
from usage_tracking.models import (
    UsageEvent,
    UsagePeriod,
    UsageTrackedOrganization,
    check_text,
    get_organization_model,
)
from usage_tracking.periods import Period
from usage_tracking.quotas import percentage

__all__ = [
    "RESET_KEY",
    "deferred_delivery",
    "deliver_events",
    "described",
    "dispatch",
    "dispatch_after_commit",
    "newest_event",
    "record",
    "reset_details",
]

logger = logging.getLogger(__name__)

CLAIM: Final = timedelta(minutes=1)
"""How long a deliverer has for the events that it has claimed before another may think it dead."""

BATCH: Final = 100
"""Events claimed at once."""

PATIENCE: Final = timedelta(seconds=1)
"""How long a deliverer sends before it notes what it has sent and claims the rest anew: as much as a crash repeats."""

AT_ONCE: Final = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}
"""How a task is sent: a stale connection is replaced, but no request waits for a broker; the outbox can."""

Kind = UsageEvent.Kind

SIGNALS: Final[dict[str, Signal]] = {
    Kind.WARNING: signals.usage_warning,
    Kind.EXCEEDED: signals.limit_exceeded,
    Kind.RESET: signals.usage_reset,
    Kind.LIMITS_UPDATED: signals.limits_updated,
}

_deferred: ContextVar["deferred_delivery | None"] = ContextVar("usage_tracking_deferred_delivery", default=None)


# -- recording ---------------------------------------------------------------------------------------------------------


def record(
    kind: UsageEvent.Kind,
    organization: UsageTrackedOrganization,
    *,
    period: UsagePeriod,
    state: UsagePeriod,
    plan: str,
    now: datetime,
    using: str,
    threshold: int | None = None,
    dedupe_key: str | None = None,
    actor: Any = None,
    reason: str = "",
    **data: Any,
) -> UsageEvent:
    """Write one event in the running transaction; the caller sees to its delivery (`dispatch_after_commit`).

    `period` is what the event is about, `state` the open row as the transaction leaves it; `data` must fit JSON.
    Raises InvalidInput unless `actor` is a saved user, or None, and `reason` a string.
    """
    event = described(
        kind,
        state=state,
        plan=plan,
        now=now,
        threshold=threshold,
        dedupe_key=dedupe_key,
        actor=actor,
        reason=reason,
        **data,
    )
    event.organization_id, event.period_id = organization.pk, period.pk
    event.save(using=using, force_insert=True)
    return event


def described(
    kind: UsageEvent.Kind,
    *,
    state: UsagePeriod,
    plan: str,
    now: datetime,
    threshold: int | None = None,
    dedupe_key: Any = None,
    actor: Any = None,
    reason: str = "",
    **data: Any,
) -> UsageEvent:
    """Return the event that `record` would write, nobody's yet and not saved."""
    check_text(reason, field="reason")
    user_model = get_user_model()
    if actor is not None and (not isinstance(actor, user_model) or actor.pk is None):
        message = f"actor must be a saved {user_model.__name__} or None, not {actor!r}."
        raise InvalidInput(message, field="actor")
    return UsageEvent(
        kind=kind,
        meter=state.meter,
        threshold=threshold,
        limit=state.limit,
        actor=actor,
        actor_label="" if actor is None else str(actor)[:255],
        reason=reason,
        data={
            "plan": plan,
            "used": state.used,
            "period_start": state.start.isoformat(),
            "period_end": None if state.end is None else state.end.isoformat(),
            **data,
        },
        created_at=now,
        delivered_at=None if kind in SIGNALS else now,
        dedupe_key=dedupe_key,
    )


RESET_KEY: Final = "reset:"
"""The dedupe key of a reset is this and the closed period's key."""


def reset_details(dedupe_key: Any, closed_by: str, used: Any) -> dict[str, Any]:
    """Return what a reset event says beyond what all events say: values, or expressions where many are written."""
    return {"dedupe_key": dedupe_key, "mode": str(closed_by), "previous_used": used}


# -- delivering --------------------------------------------------------------------------------------------------------


def newest_event(using: str) -> int:
    """Return the key of the newest event, 0 if there is none: what is recorded from now on has a greater one."""
    return UsageEvent.objects.using(using).order_by("-pk").values_list("pk", flat=True).first() or 0


def deliver_events(*, using: str | None = None, after: int = 0) -> int:
    """Send what waits in the outbox, oldest first, and return how many events were sent.

    `after` is the key of an event: it and those before it are left to another delivery.

    Call it outside of a transaction. Several may run at once: each event is sent by the one that claims it. A receiver
    that raises is logged and stops nothing; its event counts as delivered, as does one whose signal has no receiver.
    An event whose deliverer died is sent again once its claim of one minute has run out.
    """
    using = using or router.db_for_write(UsageEvent)
    waiting = UsageEvent.objects.using(using).filter(delivered_at=None, pk__gt=after)
    # The bound is taken once, so that receivers which cause new events cannot keep this loop alive.
    last = waiting.order_by("-pk").values_list("pk", flat=True).first()
    if last is None:
        return 0
    _pass_over_unheard(after, last, using)
    delivered = 0
    while batch := _claim(after, last, using):
        delivered += _deliver(batch, using)
    return delivered


class deferred_delivery(set[str]):  # noqa: N801 - reads as a function in `with`
    """Hold back the deliveries that commits inside the block (also in its threads) cause.

    It is the set of databases with something to deliver, for `dispatch()` once the block has ended: a request's
    receivers run when its response is ready, not between its charge and its view.
    """

    __slots__ = ("closed", "token")

    def __enter__(self) -> Self:
        self.closed = False
        self.token = _deferred.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _deferred.reset(self.token)
        # A task that the block has started keeps its context; it delivers for itself from here on.
        self.closed = True


def dispatch_after_commit(using: str) -> None:
    """Deliver what the running transaction has recorded once it is committed."""
    transaction.on_commit(partial(_dispatch, home_of(using)), using=using, robust=True)


def dispatch(databases: Iterable[str], *, after: int = 0) -> None:
    """Deliver the outboxes of these databases now, or have Celery do it; never raises: what stays waits.

    `after` as in `deliver_events`.
    """
    for using in databases:
        _dispatch(using, after)


def _dispatch(using: str, after: int = 0) -> None:
    """Deliver the outbox of one database now, later or elsewhere; never raise: what stays is picked up later."""
    if (deferred := _deferred.get()) is not None and not deferred.closed:
        deferred.add(using)
        return
    try:
        if usage_settings.EVENT_DISPATCH == EventDispatch.CELERY:
            # By its path: only tasks.py knows Celery.
            deliver = import_string("usage_tracking.tasks.deliver_usage_events")
            deliver.apply_async(kwargs={"using": using, "after": after}, retry_policy=AT_ONCE)
        else:
            deliver_events(using=using, after=after)
    except Exception:
        logger.exception("Usage events could not be delivered; they wait in the outbox for the next delivery.")


def _waiting(using: str, now: datetime, after: int, last: int) -> QuerySet[UsageEvent]:
    free = Q(claimed_until=None) | Q(claimed_until__lte=now)
    return UsageEvent.objects.using(using).filter(free, delivered_at=None, pk__gt=after, pk__lte=last)


@retried
def _pass_over_unheard(after: int, last: int, using: str) -> None:
    """Mark as delivered, in one statement, what nobody listens to."""
    sender = get_organization_model()
    unheard = [kind for kind, signal in SIGNALS.items() if not signal.has_listeners(sender)]
    if unheard:
        now = timezone.now()
        _waiting(using, now, after, last).filter(kind__in=unheard).update(delivered_at=now)


@retried
def _claim(after: int, last: int, using: str) -> list[UsageEvent]:
    """Claim the oldest free events in (after, last], at most BATCH, and return them.

    Nobody else sends them for a minute.
    """
    with transaction.atomic(using=using):
        now = timezone.now()
        # Not skipping what is locked: the ledger locks events too, for a moment, and will not deliver them.
        free = locking(_waiting(using, now, after, last).order_by("pk"))
        keys = list(free.values_list("pk", flat=True)[:BATCH])
        if not keys:
            return []
        ours = UsageEvent.objects.using(using).filter(pk__in=keys)
        ours.update(claimed_until=now + CLAIM)
        # With the actor: looked up later, the host's router might send the query to a replica.
        return list(ours.select_related("actor").order_by("pk"))


def _deliver(events: list[UsageEvent], using: str) -> int:
    """Send claimed events and mark them delivered; return how many were sent.

    A slow receiver does not outlast the claim of the others: past PATIENCE what is left is given back to the outbox.
    """
    began = timezone.now()
    organizations = _organizations(using).in_bulk({event.organization_id for event in events})
    sent, settled = 0, []
    try:
        for event in events:
            # A second event of an organization asks again: receivers of the first may have changed or deleted it.
            organization = organizations.pop(event.organization_id, None)
            organization = organization or _organizations(using).filter(pk=event.organization_id).first()
            if organization is not None:  # else there is nobody left to tell about
                _send(event, organization)
                sent += 1
            settled.append(event.pk)
            if timezone.now() - began >= PATIENCE:
                break
    finally:  # also when the process is asked to stop
        _settle(settled, events, using)
    return sent


@retried
def _settle(delivered: list[int], claimed: list[UsageEvent], using: str) -> None:
    rows = UsageEvent.objects.using(using)
    rows.filter(pk__in=delivered).update(delivered_at=timezone.now())
    if left := [event.pk for event in claimed[len(delivered) :]]:
        # Unless the claim has run out meanwhile and somebody else has them.
        rows.filter(pk__in=left, claimed_until=claimed[0].claimed_until).update(claimed_until=None)


def _organizations(using: str) -> QuerySet[UsageTrackedOrganization]:
    return get_organization_model()._base_manager.using(using)


def _send(event: UsageEvent, organization: UsageTrackedOrganization) -> None:
    data = dict(event.data)
    start, end = data.pop("period_start"), data.pop("period_end")
    arguments = {
        "organization": organization,
        "meter": event.meter,
        "plan": data.pop("plan"),
        "used": data["used"],
        "limit": event.limit,
        "percentage": percentage(data.pop("used"), event.limit),
        "period": Period(datetime.fromisoformat(start), None if end is None else datetime.fromisoformat(end)),
        "event": event,
        **data,
    }
    if event.kind == Kind.LIMITS_UPDATED:
        arguments |= {"actor": event.actor, "reason": event.reason}
    for receiver, answer in SIGNALS[event.kind].send_robust(get_organization_model(), **arguments):
        if isinstance(answer, Exception):
            logger.error(
                "The receiver %r of the usage event %s (%s) raised.", receiver, event.pk, event.kind, exc_info=answer
            )
