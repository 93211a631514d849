"""Where a request meets the engine: what the middleware and the DRF throttle share.

A door charges a request once and remembers the outcome on it; the middleware turns the outcome into a response. Nothing
in here raises: a request that cannot be counted is let through or answered with 503, as ON_COUNTER_ERROR says.
"""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils import timezone

from usage_tracking import headers, problems
from usage_tracking.conf import CounterError, usage_settings
from usage_tracking.decorators import ViewUsage, usage_of_view
from usage_tracking.ledger import database_of
from usage_tracking.metering import consume, give_back
from usage_tracking.models import UsageTrackedOrganization
from usage_tracking.quotas import Decision

__all__ = [
    "Outcome",
    "charge",
    "failed",
    "finish",
    "lacks_feature",
    "limit_lock_waits",
    "may_give_back",
    "outcome_of",
    "view_usage_of",
]

logger = logging.getLogger(__name__)

ATTRIBUTE: Final = "usage_outcome"
MISSING_FEATURE: Final = "usage_missing_feature"

FORBIDDEN: Final = 403
SERVER_ERROR: Final = 500

LOCK_WAIT_SECONDS: Final = 2
"""How long a charge on CHARGE_DATABASE waits for a row before ON_COUNTER_ERROR decides."""


@dataclass(slots=True)
class Outcome:
    """What became of a request at a door; `request.usage_outcome` for the host to read."""

    organization: UsageTrackedOrganization | None = None
    decision: Decision | None = None
    """None when the request could not be counted."""
    unavailable: bool = False
    """Whether it is refused because it could not be counted."""
    still_charged: Callable[[], bool] = field(default=lambda: True)
    """Whether the charge has outlived the transaction that it joined."""

    @property
    def allowed(self) -> bool:
        """Whether the view may run."""
        return not self.unavailable and (self.decision is None or self.decision.allowed)


def outcome_of(request: HttpRequest) -> Outcome | None:
    """Return what a door has decided about this request; None if none has."""
    return getattr(request, ATTRIBUTE, None)


def view_usage_of(request: HttpRequest, view: Callable[..., Any]) -> ViewUsage | None:
    """Return what the request consumes; None when it is not counted: switched off, out of PATHS or exempt."""
    settings = usage_settings
    if not settings.ENABLED or request.method in settings.EXEMPT_METHODS:
        return None
    path = request.path_info
    if not path.startswith(tuple(settings.PATHS)) or path.startswith(tuple(settings.EXEMPT_PATHS)):
        return None
    usage = usage_of_view(view, request.method or "GET")
    return None if usage.exempt else usage


def charge(
    request: HttpRequest, view: Callable[..., Any], resolve: Callable[[], UsageTrackedOrganization | None]
) -> Outcome | None:
    """Charge the request to the organization that `resolve` names, unless a door has done so already.

    None when it is not counted: nothing to count here, or nobody to count it for (yet).
    """
    if (outcome := outcome_of(request)) is not None:
        return outcome
    try:
        usage = view_usage_of(request, view)
        organization = None if usage is None else resolve()
        if usage is None or organization is None:
            return None
        outcome = _consume(request, organization, usage)
    except Exception:
        outcome = failed(request)
    setattr(request, ATTRIBUTE, outcome)
    return outcome


def failed(request: HttpRequest) -> Outcome:
    """Log the exception being handled and return the outcome that ON_COUNTER_ERROR wants."""
    logger.exception("A request to %s could not be counted.", request.path)
    try:
        refuse = usage_settings.ON_COUNTER_ERROR == CounterError.REFUSE
    except Exception:  # noqa: BLE001 - the settings themselves may be what failed; their error is in the log above
        refuse = False
    outcome = Outcome(unavailable=refuse)
    setattr(request, ATTRIBUTE, outcome)
    return outcome


def may_give_back(request: HttpRequest, response: HttpResponseBase) -> bool:
    """Return whether `finish` may need the database for this response."""
    return outcome_of(request) is not None and response.status_code >= SERVER_ERROR


def lacks_feature(request: HttpRequest, feature: str | None) -> None:
    """Note (or with None, take back) that a 403 of this request means a missing feature."""
    setattr(request, MISSING_FEATURE, feature)


def finish(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Turn the outcome into the response: refusal, refund and header fields, the same through every door."""
    feature = getattr(request, MISSING_FEATURE, None)
    if feature is not None and response.status_code == FORBIDDEN:
        response = problems.write(response, problems.feature_missing(feature))
    outcome = outcome_of(request)
    if outcome is None:
        return response
    if outcome.unavailable:
        return problems.write(response, problems.counter_unavailable())
    decision = outcome.decision
    if decision is None:
        return response
    try:
        return _finish(outcome, decision, response, timezone.now())
    except Exception:
        logger.exception("The response to %s could not be told its usage.", request.path)
        return response


def _finish(outcome: Outcome, decision: Decision, response: HttpResponseBase, now: datetime) -> HttpResponseBase:
    if not decision.allowed:
        response = problems.write(response, problems.quota_exceeded(decision, now))
        seconds = problems.retry_after(decision, now)
        response.headers.pop("Retry-After", None)
        if seconds is not None:
            response.headers["Retry-After"] = str(seconds)
    elif response.status_code >= SERVER_ERROR and usage_settings.REFUND_SERVER_ERRORS:
        if outcome.still_charged():
            give_back(decision, now=now)
        return response
    for name, value in headers.fields(decision.usage, now).items():
        response.headers[name] = value
    return response


# -- whose transaction -------------------------------------------------------------------------------------------------


def _consume(request: HttpRequest, organization: UsageTrackedOrganization, usage: ViewUsage) -> Outcome:
    amount = usage.amount_for(request)
    home = database_of(organization)
    using = _charge_alias(home)
    joins = connections[using].in_atomic_block
    # A failed statement would break the transaction it joins: a savepoint keeps that to ourselves.
    with transaction.atomic(using=using) if joins else nullcontext():
        decision = consume(organization, amount, usage.meter, using=using)
    outcome = Outcome(organization=organization, decision=decision)
    if joins:
        outcome.still_charged = _survival_of(connections[using])
    return outcome


def _charge_alias(home: str) -> str:
    """Return the alias to charge on: CHARGE_DATABASE inside a view's own transaction, if there is one to use."""
    connection = connections[home]
    alias = usage_settings.CHARGE_DATABASE
    separate = (
        alias is not None
        and connection.in_atomic_block
        # SQLite has one writer at a time: a second connection would wait for the first for good.
        and connection.vendor != "sqlite"
        and not _in_test_case(connection)
    )
    return alias if separate and alias is not None else home


def _in_test_case(connection: BaseDatabaseWrapper) -> bool:
    # What the test case wrote is invisible to every other connection.
    return any(getattr(block, "_from_testcase", False) for block in connection.atomic_blocks)


def _survival_of(connection: BaseDatabaseWrapper) -> Callable[[], bool]:
    """Return a function that tells whether the running transaction has been kept, so far."""
    committed: list[bool] = []

    def kept() -> None:
        committed.append(True)

    transaction.on_commit(kept, using=connection.alias)
    # A rolled-back savepoint drops its callbacks; under a test case the outermost block never commits.
    return lambda: bool(committed) or any(callback is kept for _, callback, *_ in connection.run_on_commit)


def limit_lock_waits(*, connection: BaseDatabaseWrapper, **_: Any) -> None:
    """Receiver of `connection_created`: on CHARGE_DATABASE nobody waits for a row for more than two seconds.

    The view's own transaction may hold that very row, and no database sees a deadlock between two connections.
    """
    if connection.alias != usage_settings.CHARGE_DATABASE or connection.settings_dict.get("ATOMIC_REQUESTS"):
        return
    statements = {
        "postgresql": f"SET lock_timeout = '{LOCK_WAIT_SECONDS}s'",
        "mysql": f"SET SESSION innodb_lock_wait_timeout = {LOCK_WAIT_SECONDS}",
    }
    if statement := statements.get(connection.vendor):
        with connection.cursor() as cursor:
            cursor.execute(statement)
