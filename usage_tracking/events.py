"""The outbox: what happened is recorded in the transaction that makes it true, and told after the commit.

An event is claimed before it is sent and marked when it has been, so each is delivered at least once, whatever
crashes, and normally exactly once.
"""

import logging
from collections.abc import Iterable
from contextvars import ContextVar
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from django.contrib.auth import get_user_model
from django.db import DEFAULT_DB_ALIAS, router, transaction
from django.db.models import Q, QuerySet
from django.dispatch import Signal
from django.utils import timezone
from django.utils.module_loading import import_string

from usage_tracking import signals
from usage_tracking.conf import EventDispatch, usage_settings
from usage_tracking.databases import home_of
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

__all__ = ["deferred_delivery", "deliver_events", "dispatch", "dispatch_after_commit", "record"]

logger = logging.getLogger(__name__)

CLAIM: Final = timedelta(minutes=1)
"""How long a deliverer has for one event before another may think it dead."""

BATCH: Final = 100

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
    check_text(reason, field="reason")
    user_model = get_user_model()
    if actor is not None and (not isinstance(actor, user_model) or actor.pk is None):
        message = f"actor must be a saved {user_model.__name__} or None, not {actor!r}."
        raise InvalidInput(message, field="actor")
    return UsageEvent.objects.using(using).create(
        organization_id=organization.pk,
        kind=kind,
        meter=state.meter,
        period_id=period.pk,
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


# -- delivering --------------------------------------------------------------------------------------------------------


def deliver_events(*, using: str | None = None) -> int:
    """Send what waits in the outbox, oldest first, and return how many events were sent.

    Call it outside of a transaction. Several may run at once: each event is sent by the one that claims it. A receiver
    that raises is logged and stops nothing; its event counts as delivered. An event whose deliverer died is sent again
    once its claim of one minute has run out.
    """
    using = using or router.db_for_write(UsageEvent)
    delivered = 0
    # The bound is taken once, so that receivers which cause new events cannot keep this loop alive.
    last = (
        UsageEvent.objects.using(using).filter(delivered_at=None).order_by("-pk").values_list("pk", flat=True).first()
    )
    while last is not None and (batch := list(_waiting(using, timezone.now()).filter(pk__lte=last)[:BATCH])):
        for event in batch:
            if _claim(event, using):
                _send(event)
                _mark_delivered(event, using)
                delivered += 1
    return delivered


class deferred_delivery:  # noqa: N801 - reads as a function in `with`
    """Hold back the deliveries that commits inside the block (also in its threads) cause.

    Yields the set of databases with something to deliver, for `dispatch()` once the block has ended: a request's
    receivers run when its response is ready, not between its charge and its view.
    """

    __slots__ = ("closed", "outboxes", "token")

    def __enter__(self) -> set[str]:
        self.outboxes: set[str] = set()
        self.closed = False
        self.token = _deferred.set(self)
        return self.outboxes

    def __exit__(self, *_: object) -> None:
        _deferred.reset(self.token)
        # A task that the block has started keeps its context; it delivers for itself from here on.
        self.closed = True


def dispatch_after_commit(using: str) -> None:
    """Deliver what the running transaction has recorded once it is committed."""
    transaction.on_commit(partial(_dispatch, home_of(using)), using=using, robust=True)


def dispatch(databases: Iterable[str]) -> None:
    """Deliver the outboxes of these databases now, or have Celery do it; never raises: what stays waits."""
    for using in databases:
        _dispatch(using)


def _dispatch(using: str) -> None:
    """Deliver the outbox of one database now, later or elsewhere; never raise: what stays is picked up later."""
    if (deferred := _deferred.get()) is not None and not deferred.closed:
        deferred.outboxes.add(using)
        return
    try:
        if usage_settings.EVENT_DISPATCH == EventDispatch.CELERY:
            # By its path: only tasks.py knows Celery.
            import_string("usage_tracking.tasks.deliver_usage_events").delay(using=using)
        else:
            deliver_events(using=using)
    except Exception:
        logger.exception("Usage events could not be delivered; they wait in the outbox for the next delivery.")


def _waiting(using: str, now: datetime) -> QuerySet[UsageEvent]:
    free = Q(claimed_until=None) | Q(claimed_until__lte=now)
    # With the actor: looked up later, the host's router might send the query to a replica.
    return UsageEvent.objects.using(using).select_related("actor").filter(free, delivered_at=None).order_by("pk")


@retried
def _claim(event: UsageEvent, using: str) -> bool:
    now = timezone.now()
    return bool(_waiting(using, now).order_by().filter(pk=event.pk).update(claimed_until=now + CLAIM))


@retried
def _mark_delivered(event: UsageEvent, using: str) -> None:
    UsageEvent.objects.using(using).filter(pk=event.pk).update(delivered_at=timezone.now())


def _send(event: UsageEvent) -> None:
    organization_model = get_organization_model()
    organization = organization_model._base_manager.using(event._state.db or DEFAULT_DB_ALIAS).filter(
        pk=event.organization_id
    )
    data = dict(event.data)
    start, end = data.pop("period_start"), data.pop("period_end")
    arguments = {
        "organization": organization.first(),
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
    if arguments["organization"] is None:
        return  # deleted since: there is nobody left to tell about
    for receiver, answer in SIGNALS[event.kind].send_robust(organization_model, **arguments):
        if isinstance(answer, Exception):
            logger.error(
                "The receiver %r of the usage event %s (%s) raised.", receiver, event.pk, event.kind, exc_info=answer
            )
