"""Leases whose holders have died."""

import logging
from datetime import timedelta
from typing import Final

from django.utils import timezone

from usage_tracking.deadlocks import retried
from usage_tracking.exceptions import OrganizationGone, UnknownMeter
from usage_tracking.ledger import locked
from usage_tracking.models import UsageLease

__all__ = ["bury_lost_leases"]

logger = logging.getLogger(__name__)

TOMBSTONE: Final = timedelta(days=7)
"""How long a holder that was only stopped may take to come back and settle after all."""


def bury_lost_leases(using: str) -> int:
    """Give up the leases that nobody has renewed in time, by the real clock; return how many units were on them.

    Each slow path that is short of room does so for its own meter; this is for those that nobody visits. A lease that
    cannot be given up (its organization's `get_usage_plan()` raises, say) is logged and stands in nobody's way.
    """
    now = timezone.now()
    leases = UsageLease.objects.using(using)
    leases.filter(lost_at__lte=now - TOMBSTONE).delete()
    expired = leases.filter(lost_at=None, expires_at__lte=now).values_list("organization_id", "meter")
    amount = 0
    for organization_id, meter in expired.distinct().order_by("organization_id", "meter"):
        try:
            amount += _bury(organization_id, meter, using)
        except (OrganizationGone, UnknownMeter):
            pass  # gone with its usage, or not counted any more
        except Exception:
            logger.exception("The lost leases of organization %s were not given up.", organization_id)
    return amount


@retried
def _bury(organization_id: object, meter: str, using: str) -> int:
    with locked(organization_id, meter, now=timezone.now(), using=using) as [ledger]:
        return ledger.bury_lost()
