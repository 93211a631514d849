"""Closing many expired periods at once: a few statements for a thousand organizations.

Most expired periods differ in nothing but their numbers: nothing was used after their end, and one calendar and one
limit make the same next period of all of them. Those are closed here, as the ledger would have closed them one by one
(what is written comes from there). All others are left to it: what went on past its end, and whatever somebody holds a
lock on.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

from django.db import connections, transaction
from django.db.models import CharField, F, Model, QuerySet, Value
from django.db.models.functions import Cast, Concat, JSONObject

from usage_tracking import events, refusals
from usage_tracking.conf import usage_settings
from usage_tracking.databases import home_of, locking
from usage_tracking.deadlocks import retried
from usage_tracking.ledger import bucket_of, closing_of, lock_organizations, opened
from usage_tracking.models import UsageEvent, UsageHistory, UsagePeriod, UsageTrackedOrganization
from usage_tracking.periods import ResetMode
from usage_tracking.plans import Terms, terms_of

__all__ = ["Closings", "close_alike", "expired_periods"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Closings:
    """What became of some organizations' expired periods."""

    closed: int
    organizations: int
    """Those with a closed period."""
    failed: int = 0


class _Columns:
    """A row whose attributes are the columns: what is computed from a row is computed from many by the database."""

    def __getattr__(self, name: str) -> F:
        return F(name)


COLUMNS: Final = _Columns()


@dataclass(frozen=True, slots=True)
class _Expired:
    """One row to close."""

    pk: int
    organization_id: object
    meter: str
    end: datetime


def expired_periods(now: datetime, using: str) -> QuerySet[UsagePeriod]:
    """Return the open periods that have ended by `now`, of meters that have terms to open a next period under."""
    return UsagePeriod.objects.using(using).filter(is_open=True, end__lte=now, meter__in=list(usage_settings.METERS))


@retried
def close_alike(organizations: Sequence[object], now: datetime, using: str) -> Closings:
    """Close the expired periods of the organizations with these keys, in one transaction; leave out what is not plain.

    An organization's periods are closed all or none. Those whose rows are locked by somebody else are left out too, so
    that nobody waits and several runs share the work.
    """
    with transaction.atomic(using=using):
        locked = {organization.pk: organization for organization in lock_organizations(organizations, using)}
        rows = _plain_rows(locked, now, using)
        groups = _alike(rows, locked)
        closed = [row for group in groups.values() for row in group]
        if closed:
            _close(groups, now, using)
            events.dispatch_after_commit(using)
            transaction.on_commit(partial(_forget_refusals, closed, home_of(using)), using=using)
    return Closings(closed=len(closed), organizations=len({row.organization_id for row in closed}))


def _plain_rows(organizations: Iterable[object], now: datetime, using: str) -> list[_Expired]:
    """Lock and return the expired rows of those organizations of which all are free, and unused since their end."""
    expired = expired_periods(now, using).filter(organization_id__in=list(organizations))
    counts = Counter(expired.values_list("organization_id", flat=True))
    plain = locking(expired.filter(bucket_start__lt=F("end"), checkpoint_at__lte=F("end")), skip_locked=True)
    rows = [_Expired(*row) for row in plain.values_list("pk", "organization_id", "meter", "end")]
    found = Counter(row.organization_id for row in rows)
    # What this process has refused from memory is counted by the ledger.
    refusing = {key for alias, key, _ in refusals.waiting() if alias == home_of(using)}
    whole = {key for key, count in counts.items() if found[key] == count and key not in refusing}
    return [row for row in rows if row.organization_id in whole]


def _alike(
    rows: Iterable[_Expired], organizations: Mapping[object, UsageTrackedOrganization]
) -> dict[tuple[Terms, datetime], list[_Expired]]:
    """Return the rows by all that decides what follows them: their organization's terms, and where they end."""
    meters = usage_settings.METERS
    groups: defaultdict[tuple[Terms, datetime], list[_Expired]] = defaultdict(list)
    unusable = set()
    for row in rows:
        try:
            groups[terms_of(organizations[row.organization_id], meters[row.meter]), row.end].append(row)
        except Exception:  # noqa: BLE001 - a host's own code; the ledger meets it again, and it is logged there
            unusable.add(row.organization_id)
    return {key: [row for row in group if row.organization_id not in unusable] for key, group in groups.items()}


def _close(groups: Mapping[tuple[Terms, datetime], Sequence[_Expired]], now: datetime, using: str) -> None:
    closing = _rows_of([row for group in groups.values() for row in group], using)
    in_bucket = closing.exclude(used=F("used_before_bucket"), refused=F("refused_before_bucket"))
    _insert_for_each(in_bucket, UsageHistory, bucket_of(COLUMNS, F("checkpoint_at")))
    closing.update(**closing_of(COLUMNS, ResetMode.SCHEDULED, now))
    for (terms, end), group in groups.items():
        if group:
            _open_next(_rows_of(group, using), opened(terms, terms.interval_at(now, end), now), terms.plan, now)


def _open_next(closed: QuerySet[UsagePeriod], example: UsagePeriod, plan: str, now: datetime) -> None:
    """Open a row like the example, and record a reset, for each closed row."""
    own = {"organization_id": F("organization_id")}
    _insert_for_each(closed, UsagePeriod, {**_values_of(example), **own})
    key = Concat(Value(events.RESET_KEY), Cast("pk", CharField()))
    details = events.reset_details(key, ResetMode.SCHEDULED, F("used"))
    event = events.described(UsageEvent.Kind.RESET, state=example, plan=plan, now=now, **details)
    own |= {"period_id": F("pk"), "data": JSONObject(**{name: _expression(value) for name, value in event.data.items()})}
    _insert_for_each(closed, UsageEvent, {**_values_of(event), **own})


def _rows_of(rows: Iterable[_Expired], using: str) -> QuerySet[UsagePeriod]:
    return UsagePeriod.objects.using(using).filter(pk__in=[row.pk for row in rows])


def _values_of(instance: Model) -> dict[str, Any]:
    return {
        field.attname: getattr(instance, field.attname)
        for field in instance._meta.concrete_fields
        if not field.primary_key
    }


def _expression(value: Any, field: Any = None) -> Any:
    return value if hasattr(value, "resolve_expression") else Value(value, output_field=field)


def _insert_for_each(rows: QuerySet[Any], model: type[Model], values: Mapping[str, Any]) -> None:
    """Insert a row of `model` for each of `rows`, in one statement; expressions among the values are about these."""
    connection = connections[rows.db]
    fields = [model._meta.get_field(name) for name in values]
    selected = rows.order_by("pk").values_list(*map(_expression, values.values(), fields))
    sql, parameters = selected.query.get_compiler(connection=connection).as_sql()
    quote = connection.ops.quote_name
    columns = ", ".join(quote(field.column) for field in fields)
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {quote(model._meta.db_table)} ({columns}) {sql}", parameters)


def _forget_refusals(closed: Iterable[_Expired], home: str) -> None:
    if refusals.known():
        for row in closed:
            refusals.forget((home, row.organization_id, row.meter))
