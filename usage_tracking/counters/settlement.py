"""Settling many leases at once: three statements for a thousand organizations.

Most leases have nothing to tell but a number: their bucket is still open, and what was spent reaches no threshold.
Those are settled here, as the ledger would have settled them one by one. All others are left to it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from django.db import DatabaseError, Error, transaction
from django.db.models import F, QuerySet
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


LEASE_COLUMNS: Final = {"pk", "granted", "settled", "period_id"}


class CommitUnknown(DatabaseError):
    """The database did not say whether it has committed a settlement: it is to be repeated, and nothing else."""


class Offer(NamedTuple):
    """What a process says of one of its leases, in totals since it was lent."""

    pk: int
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
    """A lease, and its period."""

    pk: int
    granted: int
    settled: int
    period_id: int
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
    rows = _locked_rows([offer.pk for offer in offers], using)
    results: dict[int, Settled | None] = dict.fromkeys(
        _plain([offer.pk for offer in offers if offer.pk not in rows], using).values_list("pk", flat=True)
    )
    periods: dict[int, list[int]] = {}
    leases: dict[int, list[int]] = {}
    ended: list[int] = []
    real = timezone.now()
    for offer in offers:
        row = rows.get(offer.pk)
        # Two leases of one period there are where the host once names the organization by a str, say, for an int.
        if row is not None and row.period_id not in periods and (plan := _plan(offer, row, real)):
            settled, periods[row.period_id] = plan
            results[offer.pk] = settled
            if settled.granted is None:
                ended.append(offer.pk)
            else:
                leases[offer.pk] = [offer.spent, settled.granted]
    update_each(UsagePeriod, periods, ["used", "on_lease", "checkpoint_used"], using=using)
    update_each(UsageLease, leases, ["settled", "granted"], using=using, expires_at=expires_at)
    if ended:
        UsageLease.objects.using(using).filter(Among(F("pk"), ended)).delete()
    return results


def _plan(offer: Offer, row: _Row, real: datetime) -> tuple[Settled, list[int]] | None:
    """Return what becomes of a lease and its period's numbers; None if that is not all there is to do."""
    used = row.used + offer.spent - row.settled
    thresholds = usage_settings.THRESHOLDS
    if not row.used_before_bucket <= used < next_announcement(row.used, row.limit, thresholds):
        return None
    enforcement = Enforcement(row.enforcement)
    on_lease = row.on_lease - (row.granted - row.settled) + (offer.granted - offer.spent)
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
    """Return those of some leases that are plain, by their keys, but for those that somebody else has locked.

    Nobody is waited for, so the order of the locks is of no account: everybody else locks the period first.
    """
    columns = [name if name in LEASE_COLUMNS else f"period__{name}" for name in _Row._fields]
    rows = locking(_plain(keys, using).order_by("pk"), skip_locked=True).values_list(*columns)
    return {row.pk: row for row in map(_Row._make, rows)}


def _plain(keys: Sequence[int], using: str) -> QuerySet[UsageLease]:
    """Return those of some leases that are there, not lost, and of a bucket that is still open.

    A closed period is past its last bucket.
    """
    leases = UsageLease.objects.using(using)
    return leases.filter(Among(F("pk"), keys), lost_at=None, bucket_start=F("period__bucket_start"))
