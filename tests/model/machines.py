"""What is done to the engine and to the model, side by side, and what holds after every step."""

from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.db import transaction
from django.db.models import Sum
from django.test import override_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from tests.factories import Organization, OrganizationFactory
from tests.model.book import BEGINNING, DEFAULT_LIMITS, THRESHOLDS, TICK, Book, Config
from usage_tracking.entitlements import sync_limits, update_limits
from usage_tracking.metering import (
    adjust,
    consume,
    give_back,
    history_of,
    record,
    refund,
    usage_of,
    would_allow,
)
from usage_tracking.models import UsageEvent, UsageHistory, UsagePeriod
from usage_tracking.resets import reset, reset_expired

METERS = st.sampled_from(["api", "api", "api", "tokens"])
AMOUNTS = st.integers(1, 12)
LIMITS = st.one_of(st.none(), st.integers(0, 20))
DELTAS = st.one_of(
    st.timedeltas(timedelta(minutes=1), timedelta(hours=2)),
    st.timedeltas(timedelta(hours=6), timedelta(days=3)),
    st.timedeltas(timedelta(days=20), timedelta(days=130)),
)
SCALARS: dict[str, st.SearchStrategy[str]] = {
    "reset_mode": st.sampled_from(["", "lazy", "scheduled", "scheduled", "manual"]),
    "reset_period": st.sampled_from(["", "hourly", "daily", "weekly", "monthly", "quarterly", "yearly"]),
    "anchor": st.sampled_from(["", "2001-01-31", "2020-02-29T12:30", "2001-01-01T09:15+02:00"]),
    "time_zone": st.sampled_from(["", "UTC", "Europe/Berlin", "Asia/Kolkata", "Pacific/Apia", "America/New_York"]),
    "enforcement": st.sampled_from(["", "hard", "soft", "shadow"]),
}
# Few at a time: a step that changes everything at once shrinks to nothing one understands.
EDITS = st.one_of(
    *(st.fixed_dictionaries({name: values}) for name, values in SCALARS.items()),
    st.fixed_dictionaries({}, optional=SCALARS),
)


class UsageMachine(RuleBasedStateMachine):
    """Drives the engine and the model side by side, in a transaction that is rolled back."""

    decisions: Bundle[Any] = Bundle("decisions")

    def __init__(self) -> None:
        super().__init__()
        self.transaction = transaction.atomic()
        self.transaction.__enter__()
        self.now = BEGINNING

    @initialize(bucket=st.sampled_from(["day", "hour"]), mode=SCALARS["reset_mode"], period=SCALARS["reset_period"])
    def begin(self, bucket, mode, period):
        """An organization, and the settings that it lives under."""
        self.settings = override_settings(
            USAGE_TRACKING={
                "METERS": {"tokens": {}},
                "DEFAULT_LIMIT": DEFAULT_LIMITS["api"],
                "THRESHOLDS": THRESHOLDS,
                "HISTORY_BUCKET": bucket,
            }
        )
        self.settings.enable()
        self.bucket = bucket
        self.config = Config(reset_mode=mode, reset_period=period)
        self.books = {meter: Book(self.config, meter, bucket) for meter in DEFAULT_LIMITS}
        self.organization = OrganizationFactory(usage_reset_mode=mode, usage_reset_period=period)

    def teardown(self) -> None:
        """Leave nothing behind."""
        if hasattr(self, "settings"):
            self.settings.disable()
        transaction.set_rollback(True)
        self.transaction.__exit__(None, None, None)

    # -- time --

    @rule(delta=DELTAS)
    def wait(self, delta):
        """Let time pass."""
        self.now += delta

    @rule(meter=METERS, offset=st.sampled_from([-TICK, 0 * TICK, TICK, timedelta(hours=5)]))
    def wait_for_boundary(self, meter, offset):
        """Go to where the open period ends, or next to it."""
        book = self.books[meter]
        if book.open is not None and book.open.end is not None and book.open.end > self.now:
            self.now = max(self.now, book.open.end + offset)

    # -- amounts --

    @rule(target=decisions, meter=METERS, amount=AMOUNTS, lag=st.sampled_from([0, 0, 0, 90]))
    def consume(self, meter, amount, lag):
        """Consume, at times by a clock that lags behind."""
        now = self.now - timedelta(seconds=lag)
        expected = would_allow(self.organization, amount, meter, now=now)
        decision = consume(self.organization, amount, meter, now=now)
        assert decision.allowed == self.books[meter].count(now, amount)
        assert lag or decision.allowed == expected
        assert decision.usage.used == self.books[meter].current.used
        if decision.allowed and decision.usage.enforcement == "hard" and decision.usage.limit is not None:
            assert decision.usage.used <= decision.usage.limit
        return decision

    @rule(target=decisions, meter=METERS, amount=AMOUNTS)
    def record(self, meter, amount):
        """Count afterwards."""
        decision = record(self.organization, amount, meter, now=self.now)
        assert decision.allowed
        assert self.books[meter].count(self.now, amount, refusable=False)
        return decision

    @rule(decision=decisions, quietly=st.booleans())
    def refund_decision(self, decision, quietly):
        """Give back what a decision took, perhaps for the second time."""
        charge = decision.charge
        still_open = charge is not None and UsagePeriod.objects.filter(pk=charge.period_id, is_open=True).exists()
        given = (give_back if quietly else refund)(decision, now=self.now)
        if charge is None:
            assert given == 0
            return
        book = self.books[charge.meter]
        filling = book.current.buckets[-1]
        # One statement gives back to an open bucket; nothing is closed by it.
        fast = quietly and still_open and filling.start == charge.bucket_start and filling.used >= charge.amount
        assert given == book.refund_bucket(self.now, charge.bucket_start, charge.amount, visit=not fast)

    @rule(meter=METERS, amount=AMOUNTS)
    def refund_amount(self, meter, amount):
        """Give back to the open period."""
        given = refund(self.organization, amount, meter, now=self.now)
        assert given == self.books[meter].refund_newest(self.now, amount)

    @rule(meter=METERS, used=st.integers(0, 30))
    def adjust(self, meter, used):
        """Correct what was used."""
        assert adjust(self.organization, used=used, meter=meter, now=self.now).used == used
        self.books[meter].adjust(self.now, used)

    # -- resets --

    @rule(meter=METERS)
    def reset(self, meter):
        """Reset by hand."""
        usage = reset(self.organization, meter, now=self.now)
        self.books[meter].reset(self.now)
        assert usage.used == 0

    @rule(narrow=st.booleans())
    def reset_expired(self, narrow):
        """The scheduled job comes."""
        closed = sum(len(book.closed) for book in self.books.values())
        report = reset_expired(self.now, [self.organization] if narrow else None)
        for book in self.books.values():
            if book.open is not None and book.open.has_ended(self.now):
                book.visit(self.now, "scheduled")
        assert report.closed == sum(len(book.closed) for book in self.books.values()) - closed
        assert report.organizations_affected == bool(report.closed)
        assert reset_expired(self.now).closed == 0

    # -- terms --

    @rule(edits=EDITS, limits=st.dictionaries(METERS, st.one_of(LIMITS, st.just("inherit")), max_size=2))
    def update_limits(self, edits, limits):
        """Change quotas the documented way: what has ended is closed under the old terms."""
        about = next(iter(limits), "api")
        changes = update_limits(self.organization, limits=limits, **edits, now=self.now)
        visited = [book for book in self.books.values() if book.meter == about or book.open is not None]
        for book in visited:
            book.visit(self.now)
        before = {**vars(self.config), "limits": dict(self.config.limits)}
        self._configure(limits, edits)
        assert {name: change["new"] for name, change in changes.items()} == {
            name: value for name, value in vars(self.config).items() if value != before[name]
        }
        for book in visited:
            book.visit(self.now)

    @rule(edits=EDITS, limits=st.dictionaries(METERS, LIMITS, max_size=2), how=st.sampled_from(["save", "sync"]))
    def edit(self, edits, limits, how):
        """Change the organization behind the engine's back."""
        self._configure(limits, edits)
        fields = {f"usage_{name}": value for name, value in vars(self.config).items()}
        if how == "save":
            for name, value in fields.items():
                setattr(self.organization, name, value)
            self._at_now(self.organization.save)
            noticed = any(book.is_behind(self.now) for book in self.books.values())
        else:
            Organization._base_manager.filter(pk=self.organization.pk).update(**fields)
            sync_limits(self.organization, now=self.now)
            self.organization.refresh_from_db()
            noticed = True
        for book in self.books.values():
            if noticed and book.open is not None:
                book.visit(self.now)

    def _configure(self, limits, edits):
        for meter, limit in limits.items():
            if limit == "inherit":
                self.config.limits.pop(meter, None)
            else:
                self.config.limits[meter] = limit
        for name, value in edits.items():
            setattr(self.config, name, value)

    def _at_now(self, call):
        with pytest.MonkeyPatch.context() as patch:
            # Django's own fields read the clock elsewhere: only ours is moved.
            patch.setattr("usage_tracking.ledger.timezone.now", lambda: self.now)
            call()

    # -- what holds after every step --

    @invariant()
    def the_tables_are_sound(self):
        """P2, and periods and history in order."""
        if not hasattr(self, "organization"):
            return
        check_tables(self.organization)

    @invariant()
    def the_tables_say_what_the_model_says(self):
        """The same periods, the same history, the same announcements."""
        if hasattr(self, "organization"):
            self.compare_tables()

    def compare_tables(self):
        """Compare them row by row."""
        events = list(UsageEvent.objects.filter(organization=self.organization).select_related("period"))
        for meter, book in self.books.items():
            expected = sorted([*book.closed, *([book.open] if book.open else [])], key=lambda stretch: stretch.start)
            rows = list(UsagePeriod.objects.filter(meter=meter).order_by("start").prefetch_related("history"))
            assert [(row.start, row.end, row.used, row.refused, row.limit) for row in rows] == [
                (each.start, each.end, each.used, each.refused, each.limit) for each in expected
            ]
            for row, stretch in zip(rows, expected, strict=True):
                stored = [
                    # A bucket from which everything came back unspent is empty.
                    (each.start, each.end, each.used, each.refused)
                    for each in row.history.all()
                    if each.used or each.refused
                ]
                buckets = stretch.buckets
                if row.is_open:
                    *buckets, filling = buckets
                    assert (row.bucket_start, row.checkpoint_at) == (filling.start, filling.end)
                    assert (row.enforcement, row.reset_mode) == (book.enforcement, book.mode)
                assert sorted(stored) == [
                    (each.start, each.end, each.used, each.refused) for each in buckets if each.used or each.refused
                ]
                told = [(event.limit, event.threshold) for event in events if event.period == row and event.threshold]
                assert len(told) == len(set(told)), "announced once"
                self.compare_announcements(set(told), stretch)

    def compare_announcements(self, told, stretch):
        """Everything was announced when it was reached."""
        assert told == stretch.told

    @invariant()
    def readers_see_what_the_model_says(self):
        """`usage_of` and `history_of` agree with the model, and write nothing."""
        if not hasattr(self, "organization"):
            return
        for meter, book in self.books.items():
            assert usage_of(self.organization, meter, now=self.now).used == book.used_at(self.now)
            points = history_of(
                self.organization, meter, since=BEGINNING - timedelta(days=400), until=self.now + TICK, bucket="month"
            )
            stretches = [*book.closed, *([book.open] if book.open else [])]
            assert sum(point.used for point in points) == sum(stretch.used for stretch in stretches)
            assert sum(point.refused for point in points) == sum(stretch.refused for stretch in stretches)


class ForgetfulMachine(UsageMachine):
    """A host that writes quotas past us and never says so: nothing is foreseen then, but nothing is lost either."""

    def __init__(self) -> None:
        super().__init__()
        self.counted = 0

    @rule(edits=EDITS, limits=st.dictionaries(METERS, LIMITS, max_size=2))
    def edit(self, edits, limits):
        """Change the organization behind the engine's back and leave it to notice."""
        fields = {f"usage_{name}": value for name, value in edits.items()}
        fields["usage_limits"] = {**self.organization.usage_limits, **limits}
        Organization._base_manager.filter(pk=self.organization.pk).update(**fields)
        self.organization.refresh_from_db()

    @rule(target=UsageMachine.decisions, meter=METERS, amount=AMOUNTS)
    def consume(self, meter, amount):
        """Consume."""
        decision = consume(self.organization, amount, meter, now=self.now)
        self.counted += amount if decision.allowed else 0
        return decision

    @rule(target=UsageMachine.decisions, meter=METERS, amount=AMOUNTS)
    def record(self, meter, amount):
        """Count afterwards."""
        self.counted += amount
        return record(self.organization, amount, meter, now=self.now)

    @rule(decision=UsageMachine.decisions, quietly=st.booleans())
    def refund_decision(self, decision, quietly):
        """Give back what a decision took."""
        self.counted -= (give_back if quietly else refund)(decision, now=self.now)

    @rule(meter=METERS, amount=AMOUNTS)
    def refund_amount(self, meter, amount):
        """Give back to the open period."""
        self.counted -= refund(self.organization, amount, meter, now=self.now)

    @rule(meter=METERS, used=st.integers(0, 30))
    def adjust(self, meter, used):
        """Correct what was used."""
        assert adjust(self.organization, used=used, meter=meter, now=self.now).used == used
        others = UsagePeriod.objects.aggregate(total=Sum("used"))
        self.counted = others["total"]

    @rule(meter=METERS)
    def reset(self, meter):
        """Reset by hand."""
        assert reset(self.organization, meter, now=self.now).used == 0

    @rule()
    def reset_expired(self):
        """The scheduled job comes."""
        reset_expired(self.now)
        assert not UsagePeriod.objects.filter(is_open=True, end__lte=self.now).exists()

    @rule(edits=EDITS, limits=st.dictionaries(METERS, st.one_of(LIMITS, st.just("inherit")), max_size=2))
    def update_limits(self, edits, limits):
        """Change quotas the documented way."""
        update_limits(self.organization, limits=limits, **edits, now=self.now)

    @rule(meter=METERS, offset=st.sampled_from([-TICK, 0 * TICK, TICK, timedelta(hours=5)]))
    def wait_for_boundary(self, meter, offset):
        """Go to where the open period ends, or next to it."""
        row = UsagePeriod.objects.filter(meter=meter, is_open=True, end__gt=self.now).first()
        if row is not None:
            self.now = max(self.now, row.end + offset)

    @invariant()
    def the_tables_say_what_the_model_says(self):
        """All that was counted and not given back is in some period."""
        total = UsagePeriod.objects.aggregate(total=Sum("used"))["total"] or 0
        assert total == self.counted

    @invariant()
    def readers_see_what_the_model_says(self):
        """`history_of` has everything."""
        if not hasattr(self, "organization"):
            return
        # Resets in one microsecond follow each other by a tick, so the open bucket may begin a little after now.
        since, until = BEGINNING - timedelta(days=400), self.now + timedelta(days=1)
        points = [
            point
            for meter in DEFAULT_LIMITS
            for point in history_of(self.organization, meter, since=since, until=until, bucket="month")
        ]
        assert sum(point.used for point in points) == self.counted


def check_tables(organization):
    """P2 for every period; periods and history rows in order; each period closed and each threshold told once."""
    periods = list(
        UsagePeriod.objects.filter(organization=organization).order_by("meter", "start").prefetch_related("history")
    )
    events = UsageEvent.objects.filter(organization=organization)
    for row in periods:
        history = sorted(row.history.all(), key=lambda each: each.start)
        assert row.used_before_bucket == sum(each.used for each in history)
        assert row.refused_before_bucket == sum(each.refused for each in history)
        assert row.used >= row.used_before_bucket
        assert row.end is None or row.start < row.end
        for each in history:
            assert row.start <= each.start < each.end
            # An expired period goes on past its end; what is late moves out of it when it is closed.
            assert row.end is None or each.end <= row.end or (row.is_open and each.start >= row.end)
        if row.is_open:
            assert (row.closed_at, row.closed_by) == (None, "")
            assert row.bucket_start < row.checkpoint_at
            assert not history or history[-1].end <= row.bucket_start
        else:
            assert row.used == row.used_before_bucket
            assert row.end is not None
            assert row.closed_at >= row.end
            assert row.closed_by
    for first, second in pairwise(periods):
        if first.meter == second.meter:
            assert not first.is_open, "the open period is the last"
            assert first.end <= second.start
    buckets = list(UsageHistory.objects.filter(organization=organization).order_by("meter", "start"))
    for before, after in pairwise(buckets):
        assert before.meter != after.meter or before.end <= after.start
    told = list(events.exclude(threshold=None).values_list("period_id", "limit", "threshold"))
    assert len(told) == len(set(told))
    closings = list(events.filter(kind="reset").values_list("period_id", flat=True))
    assert sorted(closings) == sorted(row.pk for row in periods if not row.is_open)
