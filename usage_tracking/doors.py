"""Where a request meets the engine: what the middleware and the DRF throttle share.

A door charges a request once and remembers the outcome on it; the middleware turns the outcome into the response.
Nothing in here raises: a request that cannot be counted is let through or answered with 503, as ON_COUNTER_ERROR says.

A charge stands unless the response is a server error or somebody else's 429. So a request whose client goes away stays
charged once the charge was sent to the database: nobody can tell how much of its work was done.
"""

import logging
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from time import time
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.db import connections, transaction
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from usage_tracking import headers, problems
from usage_tracking.conf import CounterError, SettingError, usage_settings
from usage_tracking.counters import leased_counter
from usage_tracking.databases import charge_alias, survival_of
from usage_tracking.decorators import ViewUsage, usage_of_view
from usage_tracking.metering import consume, consume_at_once, give_back
from usage_tracking.models import UsageTrackedOrganization
from usage_tracking.organizations import database_of
from usage_tracking.problems import Problem
from usage_tracking.quotas import Decision
from usage_tracking.resolvers import PreparedResolver, prepare_resolver, resolve_organization

__all__ = ["CountedRequest", "Outcome", "acharge", "afinish", "answer_with", "charge", "finish", "prepare"]

logger = logging.getLogger(__name__)

TOO_MANY_REQUESTS: Final = 429
NOT_SERVED: Final = frozenset({TOO_MANY_REQUESTS, *range(500, 600)})
"""Statuses of responses whose charge is given back (REFUND_SERVER_ERRORS): server errors, and a 429 that is not ours.

DRF asks every throttle, so we have charged what another one refuses.
"""


@dataclass(slots=True)
class Outcome:
    """What became of a request at a door: `request.usage_outcome`, None for one that is not counted."""

    allowed: bool
    """Whether the view may run."""
    organization: UsageTrackedOrganization | None = None
    decision: Decision | None = None
    """None when the request could not be counted: ON_COUNTER_ERROR says whether it is `allowed` then."""
    still_charged: Callable[[], bool] = lambda: True
    """Whether the charge has outlived the transaction that it joined."""


class CountedRequest(HttpRequest):
    """A request as the middleware passes it on: what views, and the other doors, find on it."""

    usage_outcome: Outcome | None
    """None for one that is not counted, or not yet."""
    usage_problem: Problem | None
    """What `finish` writes if the response has its status."""


def prepare() -> None:
    """See to it that a server which ends by SIGTERM returns what it has borrowed: where this is its main thread.

    For some servers that is so only while they load the app, for others also on their event loop.
    """
    try:
        if usage_settings.leased_meters:
            leased_counter.guard()
    except SettingError:
        pass  # a system check names it


# -- before the view ---------------------------------------------------------------------------------------------------


def charge(
    request: CountedRequest,
    view: Callable[..., Any],
    resolve: Callable[[], UsageTrackedOrganization | None] | None = None,
) -> bool:
    """Charge the request to whom `resolve` (default: ORGANIZATION_RESOLVER) names, unless a door has done so already.

    Returns whether it may go on. It may, too, where there is nothing to count, or nobody to count it for (yet).
    """
    outcome: Outcome | None = getattr(request, "usage_outcome", None)
    if outcome is None:
        try:
            usage = _usage_of(request, view)
            if usage is None:
                return True
            organization = resolve() if resolve else resolve_organization(request)
            if organization is None:
                return True
            outcome = _consume_at_once(organization, usage) or _consume(request, organization, usage)
        except Exception:
            logger.exception("A request to %s could not be counted.", request.path)
            outcome = Outcome(not _refuses_uncounted())
        request.usage_outcome = outcome
    return outcome.allowed


async def acharge(request: CountedRequest, view: Callable[..., Any]) -> bool:
    """Do the same from the event loop: one hop to a thread for resolver and counter together.

    There is no hop if the request is not counted, or if host and counter know from memory all that there is to ask.
    """
    resolve: PreparedResolver | None = None
    with suppress(Exception):  # `charge` meets it again, and knows what to do
        usage = _usage_of(request, view)
        if usage is None:
            return True
        resolve = await prepare_resolver(request)
        outcome = request.usage_outcome or _consume_at_once(resolve.known, usage)
        if outcome is not None:
            request.usage_outcome = outcome
            return outcome.allowed
    may_go_on = await sync_to_async(charge)(request, view, resolve or await prepare_resolver(request))
    prepare()  # the thread may have borrowed something, and could not see to that
    return may_go_on


def _usage_of(request: HttpRequest, view: Callable[..., Any]) -> ViewUsage | None:
    """Return what the request consumes; None when it is not counted: switched off, out of PATHS or exempt."""
    settings = usage_settings
    if not settings.ENABLED or request.method in settings.EXEMPT_METHODS:
        return None
    path = request.path_info
    if not path.startswith(settings.PATHS) or path.startswith(settings.EXEMPT_PATHS):
        return None
    usage = usage_of_view(view, request.method or "GET")
    return None if usage.exempt else usage


def _consume_at_once(organization: UsageTrackedOrganization | None, usage: ViewUsage) -> Outcome | None:
    """Charge a request from memory, on whichever thread or event loop; None if that cannot be done."""
    if organization is None or callable(usage.amount):  # a view's own callable may ask the database
        return None
    decision = consume_at_once(organization, usage.amount, usage.meter)
    return None if decision is None else Outcome(decision.allowed, organization, decision)


def _consume(request: HttpRequest, organization: UsageTrackedOrganization, usage: ViewUsage) -> Outcome:
    amount = _amount_of(request, usage)
    using = charge_alias(database_of(organization))
    connection = connections[using]
    # A failed statement would break the transaction that we may join: a savepoint keeps that to ourselves.
    with transaction.atomic(using=using) if connection.in_atomic_block else nullcontext():
        decision = consume(organization, amount, usage.meter, using=using)
    outcome = Outcome(decision.allowed, organization, decision)
    if decision.charge is not None and decision.charge.joined:
        outcome.still_charged = survival_of(connection)
    return outcome


def _amount_of(request: HttpRequest, usage: ViewUsage) -> int:
    """Return the amount of the request: 1 if its view cannot say, so that no nonsense of a client is free."""
    try:
        return usage.amount_for(request)
    except Exception:
        logger.exception("The amount of a request to %s is not known; it counts as 1.", request.path)
        return 1


def _refuses_uncounted() -> bool:
    try:
        return usage_settings.ON_COUNTER_ERROR == CounterError.REFUSE
    except Exception:  # noqa: BLE001 - the settings themselves may be what failed; their error is in the log then
        return False


# -- after the view ----------------------------------------------------------------------------------------------------


def answer_with(request: CountedRequest, problem: Problem) -> None:
    """Let `finish` write `problem` if the response to the request has its status."""
    request.usage_problem = problem


def finish(request: CountedRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Turn the outcome into the response: refusal, refund and header fields, the same through every door."""
    problem = request.usage_problem
    if problem is not None and response.status_code == problem["status"]:
        response = problems.write(response, problem)
    outcome = request.usage_outcome
    if outcome is None:
        return response
    decision = outcome.decision
    if decision is None:
        return response if outcome.allowed else problems.write(response, problems.counter_unavailable())
    try:
        timestamp = time()
        if not decision.allowed:
            response = _refuse(response, decision, timestamp)
        elif response.status_code in NOT_SERVED and usage_settings.REFUND_SERVER_ERRORS:
            if outcome.still_charged():
                give_back(decision)
            return response
        headers.write(response.headers, decision.usage, timestamp)
    except Exception:
        logger.exception("The response to %s could not be told its usage.", request.path)
    return response


async def afinish(request: CountedRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Do the same without leaving the event loop, unless the charge may have to be given back."""
    if request.usage_outcome is not None and response.status_code in NOT_SERVED:
        return await sync_to_async(finish)(request, response)
    return finish(request, response)


def _refuse(response: HttpResponseBase, decision: Decision, timestamp: float) -> HttpResponseBase:
    problem = problems.quota_exceeded(decision, datetime.fromtimestamp(timestamp, UTC))
    return problems.write(response, problem, retry_after=headers.seconds_left(decision.usage, timestamp))
