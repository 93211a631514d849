"""What happens when usage tracking has something to say: the organization gets a notice."""

from typing import Any

from django.dispatch import receiver

from accounts.models import Notice, Organization
from usage_tracking.models import UsageEvent
from usage_tracking.signals import limit_exceeded, limits_updated, usage_reset, usage_warning


@receiver(usage_warning)
@receiver(limit_exceeded)
def tell_of_usage(
    *, organization: Organization, meter: str, used: int, limit: int, percentage: int, event: UsageEvent, **_: Any
) -> None:
    """Tell how much is gone."""
    _notify(organization, event, f"{used} of {limit} {meter} used ({percentage} %).")


@receiver(usage_reset)
def tell_of_reset(*, organization: Organization, meter: str, previous_used: int, event: UsageEvent, **_: Any) -> None:
    """Tell that there is room again."""
    _notify(organization, event, f"A new period of {meter} has begun; {previous_used} were used in the last one.")


@receiver(limits_updated)
def tell_of_new_limits(*, organization: Organization, changes: dict[str, Any], event: UsageEvent, **_: Any) -> None:
    """Tell what is different from now on."""
    _notify(organization, event, f"New terms: {', '.join(changes)}.")


def _notify(organization: Organization, event: UsageEvent, text: str) -> None:
    Notice.objects.get_or_create(
        event_id=event.pk,
        defaults={"organization": organization, "kind": event.kind, "text": text, "created_at": event.created_at},
    )
