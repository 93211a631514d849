"""The same machines, counted by the leased counter."""

from datetime import timedelta
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from django.db.models import Sum
from django.test import override_settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from tests.model.book import BEGINNING, DEFAULT_LIMITS, THRESHOLDS
from tests.model.machines import AMOUNTS, METERS, SCALARS, ForgetfulMachine, UsageMachine, check_tables
from usage_tracking import lending, refusals
from usage_tracking.counters import leased_counter
from usage_tracking.entitlements import sync_limits
from usage_tracking.ledger import locked
from usage_tracking.metering import usage_of
from usage_tracking.models import UsageLease, UsagePeriod
from usage_tracking.quotas import crossed

HOUR = 3600


class OnLease(UsageMachine):
    """Everything is busy, and the settler comes when it likes; all of it in the transaction of the test."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        # The counter keeps out of the caller's transaction otherwise.
        self.patch.setattr("usage_tracking.counters.leased.must_be_joined", lambda using: False)
        self.patch.setattr("usage_tracking.counters.leased.apart", lambda using, work, **_: work())
        self.patch.setattr(
            "usage_tracking.counters.leased.connections", {"default": SimpleNamespace(in_atomic_block=False)}
        )
        self.patch.setattr(leased_counter._settler, "ensure_running", lambda: None)
        self.patch.setattr(lending, "BUSY", 1)
        self.patch.setattr(lending, "AHEAD", 5)
        self.patch.setattr(lending, "PORTION", 1)
        # A clock by which some leases run out of time, in the same steps of each run.
        clock = count(0, HOUR // 60).__next__
        self.patch.setattr("usage_tracking.counters.leased.monotonic", clock)
        self.patch.setattr("usage_tracking.counters.accounts.monotonic", clock)
        # Refusals that are answered from memory are counted later.
        self.patch.setattr(refusals, "MEMORY", 0)
        leased_counter.forget()

    @initialize(bucket=st.sampled_from(["day", "hour"]), mode=SCALARS["reset_mode"], period=SCALARS["reset_period"])
    def begin(self, bucket, mode, period):
        """An organization, and the settings that it lives under."""
        super().begin(bucket, mode, period)
        self.settings.disable()
        leased = {"COUNTER": "leased", "LEASE": {"EXPIRE_SECONDS": HOUR}}
        self.settings = override_settings(USAGE_TRACKING={**self.settings.options["USAGE_TRACKING"], **leased})
        self.settings.enable()

    def teardown(self) -> None:
        """Leave nothing behind."""
        try:
            self.check()
        finally:
            leased_counter.forget()
            self.patch.undo()
            super().teardown()

    @rule()
    def settle(self):
        """The settler comes, and goes on with what is in use."""
        leased_counter.settle_all(self.now)

    @rule()
    def check(self):
        """Once all leases have come back, the tables say what the model says."""
        if hasattr(self, "organization"):
            self.return_everything()
            assert not UsageLease.objects.exists()
            assert not UsagePeriod.objects.exclude(on_lease=0).exists()

    def return_everything(self):
        """Settle and end all leases."""
        leased_counter.settle_all(self.now, closing=True)

    @invariant()
    def the_tables_are_sound(self):
        """P2, and what is on lease adds up."""
        if not hasattr(self, "organization"):
            return
        check_tables(self.organization)
        for row in UsagePeriod.objects.all():
            live = UsageLease.objects.filter(period=row, lost_at=None)
            assert row.on_lease == (sum(lease.granted - lease.settled for lease in live) if row.is_open else 0)


class LeasedMachine(OnLease):
    """One process: it sees its leases when it decides, so that it decides what the model does."""

    @rule()
    def check(self):
        """Once all leases have come back, the tables say what the model says."""
        super().check()
        if not hasattr(self, "organization"):
            return
        # Who settles also closes what has ended; the model does not know when that was.
        sync_limits(self.organization, now=self.now)
        for book in self.books.values():
            if book.open is not None:
                book.visit(self.now)
        self.compare_tables()

    def compare_announcements(self, told, stretch):
        """Announced is what a settlement finds: not what was reached and given back before it."""
        reached = {(stretch.limit, percent) for percent in crossed(stretch.used, stretch.limit, [*THRESHOLDS, 100])}
        assert reached & stretch.told <= told <= stretch.told

    @invariant()
    def nothing_is_lent_past_the_limit(self):
        """P1, if every lease is spent to its end."""
        for row in UsagePeriod.objects.filter(is_open=True, enforcement="hard").exclude(limit=None):
            assert row.used + row.on_lease <= row.limit or not row.on_lease

    @invariant()
    def the_tables_say_what_the_model_says(self):
        """They do after `check`."""

    @invariant()
    def readers_see_what_the_model_says(self):
        """`usage_of` includes what is not settled yet."""
        if not hasattr(self, "organization"):
            return
        for meter, book in self.books.items():
            assert usage_of(self.organization, meter, now=self.now).used == book.used_at(self.now)


class LeasedProcessesMachine(OnLease, ForgetfulMachine):
    """Two processes that die or are stopped, and a host that changes quotas past them: nothing is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.memories: list[dict[Any, Any]] = [{}, {}]
        self.running = 0
        # Which process has taken a decision that is not given back yet.
        self.takers: dict[int, int] = {}

    @property
    def leases(self):
        """What both processes have in memory, as (lease, its row)."""
        self.memories[self.running] = leased_counter._accounts
        rows = {row.pk: row for row in UsageLease.objects.all()}
        leases = [account.lease for memory in self.memories for account in memory.values() if account.lease]
        return [(lease, rows[lease.pk]) for lease in leases if lease.pk in rows]

    @property
    def unsettled(self):
        """What was counted and is in no table yet; below 0 where more was charged for a lost lease than was spent."""
        return sum(lease.spent - row.settled - row.charged for lease, row in self.leases)

    @rule(process=st.sampled_from([0, 1]))
    def run(self, process):
        """One process runs from now on."""
        self.memories[self.running] = leased_counter._accounts
        leased_counter._accounts = self.memories[process]
        self.running = process

    def return_everything(self):
        """Settle and end all leases."""
        for process in [1 - self.running, self.running]:
            self.run(process)
            super().return_everything()

    @rule(dies=st.booleans(), lost=st.sampled_from(["charge", "forgive"]))
    def expire(self, dies, lost):
        """Nobody has settled for too long. The process that runs has died, or both were only stopped."""
        UsageLease.objects.update(expires_at=BEGINNING - timedelta(days=9000))
        options = self.settings.options["USAGE_TRACKING"]
        with override_settings(USAGE_TRACKING={**options, "LEASE": {"LOST": lost}}):
            for meter in DEFAULT_LIMITS:
                with locked(self.organization.pk, meter, now=self.now, using="default") as [ledger]:
                    ledger.bury_lost()
        if dies:
            before = self.unsettled
            leased_counter.forget()
            # What it had not spent is charged, or what it had spent is forgiven.
            self.counted += self.unsettled - before
            UsageLease.objects.exclude(pk__in=[row.pk for _, row in self.leases]).delete()

    @rule(target=UsageMachine.decisions, meter=METERS, amount=AMOUNTS)
    def consume(self, meter, amount):
        """Consume."""
        return self._taken(super().consume(meter, amount))

    @rule(target=UsageMachine.decisions, meter=METERS, amount=AMOUNTS)
    def record(self, meter, amount):
        """Count afterwards."""
        return self._taken(super().record(meter, amount))

    def _taken(self, decision):
        self.takers[id(decision)] = self.running
        return decision

    @rule(decision=UsageMachine.decisions, quietly=st.booleans())
    def refund_decision(self, decision, quietly):
        """Give back, once and where it was taken: elsewhere it may come out of what others have settled."""
        if (process := self.takers.pop(id(decision), None)) is not None:
            self.run(process)
            super().refund_decision(decision, quietly)

    @rule(meter=METERS, amount=AMOUNTS)
    def refund_amount(self, meter, amount):
        """Give back to the open period, of which all is known."""
        self.return_everything()
        super().refund_amount(meter, amount)

    @rule(meter=METERS, used=st.integers(0, 30))
    def adjust(self, meter, used):
        """Correct what was used, all of which is known."""
        self.return_everything()
        super().adjust(meter, used)

    @invariant()
    def the_tables_say_what_the_model_says(self):
        """All that was counted and not given back is in some period, or on a lease."""
        total = UsagePeriod.objects.aggregate(total=Sum("used"))["total"] or 0
        assert total + self.unsettled == self.counted

    @invariant()
    def readers_see_what_the_model_says(self):
        """`history_of` has all that is settled."""
        self.counted, counted = self.counted - self.unsettled, self.counted
        super().readers_see_what_the_model_says()
        self.counted = counted
