"""What a counter promises."""

from abc import ABC, abstractmethod
from datetime import datetime

from usage_tracking.models import UsagePeriod, UsageTrackedOrganization
from usage_tracking.quotas import Charge, Decision

__all__ = ["Counter"]


class Counter(ABC):
    """Takes amounts from the open period of an organization's meter, never more than hard enforcement allows."""

    @abstractmethod
    def take(
        self,
        organization: UsageTrackedOrganization,
        amount: int,
        meter: str,
        *,
        now: datetime,
        using: str,
        refusable: bool = True,
    ) -> Decision:
        """Take a valid `amount`, or refuse it if it does not fit and is `refusable`.

        Raises UnknownMeter, InvalidAmount (past MAX_AMOUNT), OrganizationGone or a database error; nothing was taken
        then.
        """

    @abstractmethod
    def give_back(self, charge: Charge, *, now: datetime) -> int:
        """Return a charge to the period and bucket it came from; return how much came back.

        Raises OrganizationGone or a database error.
        """

    def unsettled(self, row: UsagePeriod) -> int:  # noqa: ARG002
        """Return how much this process has taken from an open period that its row does not count yet."""
        return 0

    def unspent(self, row: UsagePeriod) -> int:  # noqa: ARG002
        """Return how much of what is on lease in an open period this process has left."""
        return 0
