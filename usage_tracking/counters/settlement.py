"""Settling many leases at once: four statements for a thousand organizations.

Most leases have nothing to tell but a number: their bucket is still open, and what was spent reaches no threshold.
Those are settled here, as the ledger would have settled them one by one. All others are left to it.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.db import DatabaseError, Error, transaction
from django.db.models import F
from django.utils import timezone

from usage_tracking import lending
from usage_tracking.conf import usage_settings
from usage_tracking.databases import locking
from usage_tracking.deadlocks import retried
from usage_tracking.inserts import Among
from usage_tracking.models import UsageLease, UsagePeriod
from usage_tracking.quotas import Enforcement, ceiling_of, next_announcement, next_checkpoint
from usage_tracking.updates import update_each

__all__ = ["CommitUnknown", "Offer", "Settled", "write"]


class CommitUnknown(DatabaseError):
    """The database did not say whether it has committed a settlement: it is to be repeated, and nothing else."""


class Offer(NamedTuple):
    """What a process says of one of its leases, in totals since it was lent."""

    pk: int
    period_id: int
    bucket_start: datetime
    spent: int
    granted: int
    """What it keeps; if that is no more than it has spent and it wants nothing, the lease ends."""
    wanted: int
    """What it would like to have on top."""


class Settled(NamedTuple):
    """What was written for one lease."""

    granted: int | None
    """None if the lease has ended."""
    used: int
    limit: int | None
    is_called_back: bool
    """Whether what is left had better be returned at once: somebody was refused for want of it."""


class _Row(NamedTuple):
    pk: int
    is_open: bool | None
    bucket_start: datetime
    used: int
    used_before_bucket: int
    on_lease: int
    limit: int | None
    enforcement: str
    called_back_at: datetime | None


@retried
def write(offers: Sequence[Offer], *, expires_at: datetime, using: str) -> dict[int, Settled | None]:
    """Settle the leases that are plain, in one transaction; return what became of each by its key.

    None stands for one that somebody else has locked, or its period: it waits for the next time. Those that are
    missing belong to the ledger. Raises a database error if nothing was written, CommitUnknown if the commit itself
    failed.
    """
    committing = False
    try:
        with transaction.atomic(using=using):
            results = _write(offers, expires_at, using)
            committing = True
    except Error as error:
        if committing:
            raise CommitUnknown from error
        raise
    return results


def _write(offers: Sequence[Offer], expires_at: datetime, using: str) -> dict[int, Settled | None]:
    rows = _locked_rows([offer.period_id for offer in offers], using)
    stored = _stored([offer.pk for offer in offers if offer.period_id in rows], using)
    results: dict[int, Settled | None] = dict.fromkeys(
        _live([offer.pk for offer in offers if offer.pk not in stored], using)
    )
    periods: dict[int, list[int]] = {}
    leases: dict[int, list[int]] = {}
    ended: list[int] = []
    real = timezone.now()
    for offer in offers:
        lease = stored.get(offer.pk)
        # Two leases of one period there are where the host once names the organization by a str, say, for an int.
        if lease is None or offer.period_id in periods:
            continue
        if plan := _plan(offer, rows[offer.period_id], lease, real):
            settled, periods[offer.period_id] = plan
            results[offer.pk] = settled
            if settled.granted is None:
                ended.append(offer.pk)
            else:
                leases[offer.pk] = [offer.spent, settled.granted]
    update_each(UsagePeriod, periods, ["used", "on_lease", "checkpoint_used"], using=using)
    update_each(UsageLease, leases, ["settled", "granted"], using=using, expires_at=expires_at)
    if ended:
        UsageLease.objects.using(using).filter(_among(ended)).delete()
    return results


def _plan(offer: Offer, row: _Row, lease: tuple[int, int], real: datetime) -> tuple[Settled, list[int]] | None:
    """Return what becomes of a lease and its period's numbers; None if that is not all there is to do."""
    granted, settled = lease
    used = row.used + offer.spent - settled
    thresholds = usage_settings.THRESHOLDS
    if (
        not row.is_open
        or row.bucket_start != offer.bucket_start
        or not row.used_before_bucket <= used < next_announcement(row.used, row.limit, thresholds)
    ):
        return None
    enforcement = Enforcement(row.enforcement)
    on_lease = row.on_lease - (granted - settled) + (offer.granted - offer.spent)
    called_back = lending.is_called_back(row.called_back_at, real, usage_settings.LEASE.settle_seconds)
    free = ceiling_of(row.limit, enforcement) - used - on_lease
    more = 0 if called_back else lending.share(offer.wanted, free, on_lease=on_lease)
    on_lease += more
    total = offer.granted + more
    checkpoint = next_checkpoint(used, row.limit, enforcement, thresholds, on_lease=on_lease)
    answer = Settled(
        granted=total if total > offer.spent else None,
        used=used,
        limit=row.limit,
        is_called_back=called_back and total > offer.spent,
    )
    return answer, [used, on_lease, checkpoint]


def _locked_rows(keys: Sequence[int], using: str) -> dict[int, _Row]:
    rows = locking(UsagePeriod.objects.using(using).filter(_among(keys)).order_by("pk"), skip_locked=True)
    return {values[0]: _Row._make(values) for values in rows.values_list(*_Row._fields)}


def _stored(keys: Sequence[int], using: str) -> Mapping[int, Any]:
    """Return {key: (granted, settled)} of the leases that are not lost, but for those that somebody else has locked."""
    # Locked only because MariaDB reads what is committed if it locks: whoever changes them locks their period first.
    # An exception is the end of an organization, whose transaction may be a long one.
    live = UsageLease.objects.using(using).filter(_among(keys), lost_at=None)
    leases = locking(live.order_by("pk"), skip_locked=True)
    return {pk: (granted, settled) for pk, granted, settled in leases.values_list("pk", "granted", "settled")}


def _live(keys: Sequence[int], using: str) -> Iterable[int]:
    """Return those of some leases that are there, and not lost, as far as is committed."""
    return UsageLease.objects.using(using).filter(_among(keys), lost_at=None).values_list("pk", flat=True)


def _among(keys: Sequence[int]) -> Among:
    return Among(F("pk"), keys)
