"""Closing many expired periods at once: a few statements for a thousand organizations.

Most expired periods differ in nothing but their numbers: nothing was used after their end, and one calendar and one
limit make the same next period of all of them. Those are closed here, as the ledger would have closed them one by one
(what is written comes from there). All others are left to it: what went on past its end, and whatever somebody holds a
lock on.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

from django.db import transaction
from django.db.models import CharField, F, QuerySet, Value
from django.db.models.functions import Cast, Concat, JSONObject

from usage_tracking import events, refusals
from usage_tracking.conf import usage_settings
from usage_tracking.databases import home_of, locking
from usage_tracking.deadlocks import retried
from usage_tracking.inserts import Among, as_expression, insert_for_each, values_of
from usage_tracking.ledger import bucket_of, closing_of, opened
from usage_tracking.models import UsageEvent, UsageHistory, UsagePeriod, UsageTrackedOrganization
from usage_tracking.organizations import lock_organizations
from usage_tracking.periods import ResetMode
from usage_tracking.plans import Terms, basis_of, terms_of

__all__ = ["Closings", "close_alike", "expired_periods"]


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


Groups = Mapping[tuple[Terms, datetime], Sequence[_Expired]]
"""The rows to close by all that decides what follows them: their organization's terms, and where they end."""


def expired_periods(now: datetime, using: str) -> QuerySet[UsagePeriod]:
    """Return the open periods that have ended by `now`, of meters that have terms to open a next period under."""
    return UsagePeriod.objects.using(using).filter(is_open=True, end__lte=now, meter__in=list(usage_settings.METERS))


@retried
def close_alike(organizations: Sequence[Any], now: datetime, using: str) -> Closings:
    """Close the expired periods of the organizations with these keys, in one transaction; leave out what is not plain.

    An organization's periods are closed all or none. Those whose rows are locked by somebody else are left out too, so
    that nobody waits and several runs share the work.
    """
    with transaction.atomic(using=using):
        locked = {organization.pk: organization for organization in lock_organizations(organizations, using)}
        groups = _alike(_plain_rows(locked, now, using), locked)
        closed = [row for group in groups.values() for row in group]
        if closed:
            _close(groups, now, using)
            events.dispatch_after_commit(using)
            transaction.on_commit(partial(_forget_refusals, closed, home_of(using)), using=using)
    return Closings(closed=len(closed), organizations=len({row.organization_id for row in closed}))


def _plain_rows(organizations: Iterable[Any], now: datetime, using: str) -> list[_Expired]:
    """Lock and return the expired rows of those organizations of which all are free, and unused since their end."""
    expired = expired_periods(now, using)
    owners = dict(expired.filter(organization_id__in=list(organizations)).values_list("pk", "organization_id"))
    plain = expired.filter(Among(F("pk"), owners), bucket_start__lt=F("end"), checkpoint_at__lte=F("end"), on_lease=0)
    found = locking(plain, skip_locked=True).values_list("pk", "organization_id", "meter", "end")
    rows = [_Expired(pk, owner, meter, end) for pk, owner, meter, end in found if end is not None]
    # What this process has refused from memory is counted by the ledger.
    left = {key for alias, key, _ in refusals.waiting() if alias == home_of(using)}
    left |= {owners[pk] for pk in owners.keys() - {row.pk for row in rows}}
    return [row for row in rows if row.organization_id not in left]


def _alike(rows: Sequence[_Expired], organizations: Mapping[object, UsageTrackedOrganization]) -> Groups:
    """Group the rows, but for those of organizations whose terms cannot be told: the ledger says why."""
    meters = usage_settings.METERS
    bases: dict[object, Hashable] = {}
    unusable = set()
    for key in dict.fromkeys(row.organization_id for row in rows):
        try:
            bases[key] = basis_of(organizations[key])
        except Exception:  # noqa: BLE001 - the host's own code
            unusable.add(key)
    alike: defaultdict[tuple[Hashable, str, datetime], list[_Expired]] = defaultdict(list)
    for row in rows:
        if row.organization_id in bases:
            alike[bases[row.organization_id], row.meter, row.end].append(row)
    groups: defaultdict[tuple[Terms, datetime], list[_Expired]] = defaultdict(list)
    for (_, meter, end), group in alike.items():
        try:
            terms = terms_of(organizations[group[0].organization_id], meters[meter])
        except Exception:  # noqa: BLE001 - the host's own code and settings
            unusable |= {row.organization_id for row in group}
        else:
            groups[terms, end] += group
    return {key: [row for row in group if row.organization_id not in unusable] for key, group in groups.items()}


def _close(groups: Groups, now: datetime, using: str) -> None:
    closing = _rows_of([row for group in groups.values() for row in group], using)
    in_bucket = closing.exclude(used=F("used_before_bucket"), refused=F("refused_before_bucket"))
    insert_for_each(in_bucket, UsageHistory, bucket_of(COLUMNS, F("checkpoint_at")))
    closing.update(**closing_of(COLUMNS, ResetMode.SCHEDULED, now))
    for (terms, end), group in groups.items():
        if group:
            _open_next(_rows_of(group, using), opened(terms, terms.interval_at(now, end), now), terms.plan, now)


def _open_next(closed: QuerySet[UsagePeriod], example: UsagePeriod, plan: str, now: datetime) -> None:
    """Open a row like the example, and record a reset, for each closed row."""
    own: dict[str, Any] = {"organization_id": F("organization_id")}
    insert_for_each(closed, UsagePeriod, values_of(example) | own)
    key = Concat(Value(events.RESET_KEY), Cast("pk", CharField()))
    details = events.reset_details(key, ResetMode.SCHEDULED, F("used"))
    event = events.described(UsageEvent.Kind.RESET, state=example, plan=plan, now=now, **details)
    own |= {
        "period_id": F("pk"),
        "data": JSONObject(**{name: as_expression(value) for name, value in event.data.items()}),
    }
    insert_for_each(closed, UsageEvent, values_of(event) | own)


def _rows_of(rows: Iterable[_Expired], using: str) -> QuerySet[UsagePeriod]:
    return UsagePeriod.objects.using(using).filter(Among(F("pk"), [row.pk for row in rows]))


def _forget_refusals(closed: Iterable[_Expired], home: str) -> None:
    if refusals.known():
        for row in closed:
            refusals.forget((home, row.organization_id, row.meter))
