"""Counting: consume, record, refund, adjust and what is told about it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from tests.factories import Organization, OrganizationFactory
from usage_tracking import entitlements, history, metering, refusals, resets
from usage_tracking.entitlements import sync_limits, update_limits
from usage_tracking.exceptions import InvalidAmount, InvalidInput, OrganizationGone
from usage_tracking.metering import (
    adjust,
    consume,
    flush_refusals,
    give_back,
    record,
    refund,
    usage_of,
    usages_of,
    would_allow,
)
from usage_tracking.models import UsageEvent, UsageHistory, UsagePeriod
from usage_tracking.periods import Period
from usage_tracking.quotas import MAX_AMOUNT, Enforcement
from usage_tracking.resets import reset, reset_expired

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
MARCH = Period(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def _limit(configure):
    """Ten requests a month, and tokens without a limit."""
    configure(DEFAULT_LIMIT=10, METERS={"tokens": {}})


# -- consume -----------------------------------------------------------------------------------------------------------


def test_what_is_consumed_is_used(organization):
    """A decision says what is used, what is left and of which period."""
    decision = consume(organization, 3, now=NOW)
    assert decision
    assert (decision.amount, decision.usage.used, decision.usage.limit, decision.usage.remaining) == (3, 3, 10, 7)
    assert (decision.usage.meter, decision.usage.period, decision.usage.resets_at) == ("api", MARCH, MARCH.end)
    assert usage_of(organization, now=NOW) == decision.usage
    assert consume(organization, now=NOW).usage.used == 4


def test_hard_refuses_what_does_not_fit(organization):
    """Under hard enforcement the last unit is admitted, the next is refused, and a smaller amount still fits."""
    assert consume(organization, 8, now=NOW)
    refused = consume(organization, 3, now=NOW)
    assert not refused
    assert (refused.usage.used, refused.charge) == (8, None)
    assert consume(organization, 2, now=NOW)
    assert not consume(organization, now=NOW)
    assert usage_of(organization, now=NOW).used == 10
    assert UsagePeriod.objects.get().refused == 2


@pytest.mark.parametrize("enforcement", ["soft", "shadow"])
def test_soft_and_shadow_count_the_overage(organization, configure, enforcement, caplog):
    """Past the limit soft and shadow go on counting; shadow says in the log what hard would have refused."""
    configure(ENFORCEMENT=enforcement)
    assert consume(organization, 10, now=NOW)
    assert not caplog.records
    decision = consume(organization, 5, now=NOW)
    assert decision
    assert (decision.usage.used, decision.usage.overage, decision.usage.percentage) == (15, 5, 150)
    logged = [record.getMessage() for record in caplog.records if record.name == "usage_tracking.shadow"]
    expected = f"Organization {organization.pk} used 15 of 10 api; hard enforcement would have refused 5."
    assert logged == ([expected] if enforcement == "shadow" else [])


def test_what_is_recorded_is_nothing_hard_would_have_refused(organization, configure, caplog):
    """Shadow does not log what `record()` counts: that is never refused."""
    configure(ENFORCEMENT="shadow")
    record(organization, 15, now=NOW)
    assert not caplog.records


def test_unlimited_counts_all(organization):
    """Without a limit everything is admitted, up to the largest number that can be counted."""
    assert consume(organization, MAX_AMOUNT, "tokens", now=NOW).usage.used == MAX_AMOUNT
    for count in (consume, record):
        with pytest.raises(InvalidAmount) as caught:
            count(organization, 1, "tokens", now=NOW)
        assert caught.value.field == "amount"
    assert usage_of(organization, "tokens", now=NOW).used == MAX_AMOUNT


def test_limit_zero_allows_nothing(organization, configure):
    """At limit 0 the first request is refused, and 100 % are used."""
    configure(DEFAULT_LIMIT=0)
    assert not consume(organization, now=NOW)
    assert usage_of(organization, now=NOW).percentage == 100


def test_meters_and_organizations_do_not_share(organization):
    """Each meter of each organization has its own period and limit."""
    other = OrganizationFactory()
    consume(organization, 10, now=NOW)
    assert consume(organization, 100, "tokens", now=NOW).usage.limit is None
    assert consume(other, 10, now=NOW)
    assert not consume(organization, now=NOW)


def test_the_next_period_begins_at_zero(organization):
    """The first use after the end of a lazy period closes it and opens the next."""
    consume(organization, 10, now=NOW)
    assert not consume(organization, now=MARCH.end - timedelta(microseconds=1))
    decision = consume(organization, 4, now=MARCH.end)
    assert decision.usage.used == 4
    assert decision.usage.period == Period(MARCH.end, datetime(2026, 5, 1, tzinfo=UTC))
    closed, opened = UsagePeriod.objects.order_by("start")
    assert (closed.used, closed.closed_by, closed.is_open, opened.used) == (10, "lazy", None, 4)


def test_a_clock_that_lags_counts_in_the_open_period(organization):
    """A server whose clock is behind neither reopens what others have closed nor writes into its past."""
    consume(organization, 4, now=MARCH.end)
    decision = consume(organization, 3, now=MARCH.end - timedelta(seconds=5))
    assert (decision.usage.used, decision.usage.period.start) == (7, MARCH.end)
    assert not consume(organization, 4, now=MARCH.end - timedelta(seconds=5))


def test_a_rolled_back_charge_never_happened(organization):
    """Inside the caller's transaction a charge shares its fate, also when it was the first of its period."""
    with transaction.atomic():
        assert consume(organization, 4, now=NOW)
        transaction.set_rollback(True)
    assert usage_of(organization, now=NOW).used == 0
    assert not UsagePeriod.objects.exists()
    assert consume(organization, 10, now=NOW)


def test_a_deleted_organization_is_gone(organization):
    """Whoever still holds a deleted organization is told, and nothing is written for it."""
    key = organization.pk
    Organization.objects.filter(pk=key).delete()
    for count in (consume, refund):
        with pytest.raises(OrganizationGone, match=str(key)):
            count(organization, 1, now=NOW)
    assert not UsagePeriod.objects.exists()


def test_switched_off_nothing_is_counted(organization, configure):
    """With ENABLED = False everything is allowed and nothing is taken; what was counted stays."""
    consume(organization, 4, now=NOW)
    configure(ENABLED=False)
    for count in (consume, record):
        decision = count(organization, 100, now=NOW)
        assert decision
        assert (decision.usage.used, decision.charge) == (4, None)
        assert refund(decision, now=NOW) == 0
    assert would_allow(organization, 100, now=NOW)


# -- record and would_allow --------------------------------------------------------------------------------------------


def test_record_never_refuses(organization):
    """What is known only afterwards is counted past a hard limit, and consume refuses from there on."""
    assert record(organization, 15, now=NOW).usage.overage == 5
    assert not consume(organization, now=NOW)


def test_would_allow_asks_and_takes_nothing(organization):
    """The answer is that of `consume()` for the same amount; nothing is written, not even a period."""
    assert would_allow(organization, 10, now=NOW)
    assert not would_allow(organization, 11, now=NOW)
    assert not UsagePeriod.objects.exists()
    consume(organization, 6, now=NOW)
    assert would_allow(organization, 4, now=NOW)
    assert not would_allow(organization, 5, now=NOW)
    assert would_allow(organization, 10, now=MARCH.end)
    assert would_allow(organization, 5, "tokens", now=NOW)


def test_would_allow_knows_limits_that_were_written_past_us(organization):
    """Past the rails of the open period both look at what is stored: a raised limit is there for both at once."""
    consume(organization, 10, now=NOW)
    assert not would_allow(organization, now=NOW)
    Organization._base_manager.filter(pk=organization.pk).update(usage_limits={"api": 11})
    assert would_allow(organization, now=NOW)
    assert not would_allow(organization, 2, now=NOW)
    assert consume(organization, now=NOW)
    Organization._base_manager.filter(pk=organization.pk).update(usage_limits={"api": None})
    assert would_allow(organization, 1_000, now=NOW)
    organization.delete()
    organization.pk = 0
    with pytest.raises(OrganizationGone):
        would_allow(organization, now=NOW)


@pytest.mark.parametrize("enforcement", ["soft", "shadow"])
def test_would_allow_what_is_only_counted(organization, configure, enforcement):
    """Soft and shadow would allow everything."""
    configure(ENFORCEMENT=enforcement)
    assert would_allow(organization, 11, now=NOW)


# -- refund ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("give", [refund, give_back])
def test_a_refund_makes_room(organization, give):
    """What a decision took comes back to its period, and can be consumed again."""
    decision = consume(organization, 8, now=NOW)
    assert give(decision, now=NOW) == 8
    assert usage_of(organization, now=NOW).used == 0
    assert consume(organization, 10, now=NOW)


@pytest.mark.parametrize("give", [refund, give_back])
def test_a_refund_goes_to_the_day_and_period_that_were_charged(organization, give):
    """Days and periods later, the closed ones that were charged shrink and the open ones stay as they are."""
    first = consume(organization, 4, now=NOW)
    consume(organization, 2, now=NOW + DAY)
    consume(organization, 5, now=MARCH.end)
    assert give(first, now=MARCH.end + DAY) == 4
    closed, opened = UsagePeriod.objects.order_by("start")
    assert (closed.used, opened.used) == (2, 5)
    assert list(closed.history.order_by("start").values_list("used", flat=True)) == [0, 2]


@pytest.mark.parametrize("give", [refund, give_back])
def test_a_refund_goes_to_its_day_within_the_period_too(organization, give):
    """The next day it is yesterday's usage that shrinks, and not today's."""
    decision = consume(organization, 4, now=NOW)
    consume(organization, 2, now=NOW + DAY)
    assert give(decision, now=NOW + DAY) == 4
    points = history.history_of(organization, since=NOW, until=NOW + DAY)
    assert [point.used for point in points] == [0, 2]
    assert usage_of(organization, now=NOW + DAY).used == 2


@pytest.mark.parametrize("give", [refund, give_back])
def test_a_refund_is_never_below_zero(organization, give):
    """A decision that is given back twice gives back what is there: at most its amount, from its own day."""
    decision = consume(organization, 4, now=NOW)
    consume(organization, 1, now=NOW)
    assert [give(decision, now=NOW) for _ in range(3)] == [4, 1, 0]
    assert usage_of(organization, now=NOW).used == 0


def test_nothing_comes_back_from_a_refusal(organization):
    """A refused decision took nothing."""
    consume(organization, 10, now=NOW)
    refused = consume(organization, now=NOW)
    assert refund(refused, now=NOW) == give_back(refused, now=NOW) == 0
    assert usage_of(organization, now=NOW).used == 10


def test_an_amount_comes_back_from_the_newest_days_first(organization):
    """`refund(organization, amount)` empties the open period's days, newest first, and no closed period."""
    consume(organization, 5, now=MARCH.start - DAY)
    for days, amount in enumerate([3, 2, 4]):
        consume(organization, amount, now=NOW + days * DAY)
    now = NOW + 2 * DAY
    assert refund(organization, 5, now=now) == 5
    assert [point.used for point in history.history_of(organization, since=NOW, until=now)] == [3, 1, 0]
    assert refund(organization, 100, now=now) == 4
    assert usage_of(organization, now=now).used == 0
    assert UsagePeriod.objects.get(is_open=None).used == 5


def test_a_refund_by_hand_is_on_record_and_a_doors_is_not(organization, django_user_model):
    """`refund()` leaves an event with amount, actor and reason; `give_back()`, for every failed request, none."""
    actor = django_user_model.objects.create_user("Ada")
    decision = consume(organization, 2, now=NOW)
    give_back(decision, now=NOW)
    refund(organization, 3, actor=actor, reason="sorry", now=NOW)
    event = UsageEvent.objects.get()
    assert (event.kind, event.actor, event.actor_label, event.reason) == ("refunded", actor, "Ada", "sorry")
    assert (event.data["amount"], event.created_at, event.delivered_at) == (0, NOW, NOW)


def test_a_decision_brings_its_own_amount(organization):
    """`refund(decision, amount)` is a misunderstanding."""
    with pytest.raises(InvalidInput) as caught:
        refund(consume(organization, 2, now=NOW), 1, now=NOW)
    assert caught.value.field == "amount"
    assert usage_of(organization, now=NOW).used == 2


# -- adjust ------------------------------------------------------------------------------------------------------------


def test_adjust_sets_what_is_used(organization, django_user_model):
    """Up, down and to zero, past the limit too; the event says what it was before, who did it and why."""
    actor = django_user_model.objects.create_user("Ada")
    for used in (7, 3, 25, 0):
        usage = adjust(organization, used=used, actor=actor, reason="import", now=NOW)
        assert usage == usage_of(organization, now=NOW)
        assert usage.used == used
    events = UsageEvent.objects.filter(kind="adjusted").order_by("pk")
    assert [(event.data["previous_used"], event.data["used"]) for event in events] == [(0, 7), (7, 3), (3, 25), (25, 0)]
    assert {(event.actor, event.reason) for event in events} == {(actor, "import")}


def test_adjust_down_takes_from_the_newest_days(organization):
    """History keeps adding up to what is used."""
    consume(organization, 4, now=NOW)
    consume(organization, 4, now=NOW + DAY)
    adjust(organization, used=3, now=NOW + DAY)
    assert UsageHistory.objects.get().used == 3
    adjust(organization, used=5, now=NOW + DAY)
    points = history.history_of(organization, since=NOW, until=NOW + DAY)
    assert [point.used for point in points] == [3, 2]


# -- usage_of ----------------------------------------------------------------------------------------------------------


def test_reading_costs_one_query_and_writes_nothing(organization, django_assert_num_queries):
    """An organization without usage has its next period at 0; reading it opens none."""
    with django_assert_num_queries(1):
        usage = usage_of(organization, now=NOW)
    assert (usage.used, usage.limit, usage.period, usage.enforcement) == (0, 10, MARCH, Enforcement.HARD)
    assert not UsagePeriod.objects.exists()


@pytest.mark.parametrize("number", [3, 30])
def test_many_are_read_in_one_query(db, number, django_assert_num_queries):
    """However many organizations and meters there are, their usage is one query, and the same as of each alone."""
    organizations = OrganizationFactory.create_batch(number)
    for index, each in enumerate(organizations[1:]):
        consume(each, index % 10 + 1, now=NOW)
        consume(each, index + 1, "tokens", now=NOW)
    with django_assert_num_queries(1):
        usages = usages_of(organizations, now=NOW)
    assert usages == {
        each.pk: {meter: usage_of(each, meter, now=NOW) for meter in ("api", "tokens")} for each in organizations
    }
    assert list(usages_of(organizations, ["tokens"], now=NOW)[organizations[0].pk]) == ["tokens"]
    assert usages_of([], now=NOW) == {}


def test_a_lazy_period_that_has_ended_reads_as_the_next(organization):
    """Past its end a lazy period is shown as the next one at 0, though nobody has closed it yet."""
    consume(organization, 10, now=NOW)
    usage = usage_of(organization, now=MARCH.end)
    assert (usage.used, usage.period.start, usage.expired) == (0, MARCH.end, False)
    assert UsagePeriod.objects.get().is_open


def test_a_scheduled_period_that_has_ended_waits_for_its_job(organization, configure):
    """Past its end a scheduled period reads as it is, expired, and goes on counting and refusing."""
    configure(RESET_MODE="scheduled")
    consume(organization, 8, now=NOW)
    assert consume(organization, 2, now=MARCH.end + DAY).usage.expired
    assert not consume(organization, now=MARCH.end + DAY)
    usage = usage_of(organization, now=MARCH.end + DAY)
    assert (usage.used, usage.period, usage.expired) == (10, MARCH, True)


def test_a_manual_period_has_no_end(organization, configure):
    """Under manual reset a period begins with its first use and has no end."""
    configure(RESET_MODE="manual")
    assert consume(organization, 10, now=NOW).usage.period == Period(NOW, None)
    assert not consume(organization, now=NOW + 1000 * DAY)
    assert usage_of(organization, now=NOW + 1000 * DAY).resets_at is None


def test_without_a_clock_it_is_now(organization, freeze):
    """`now` defaults to the current time, everywhere."""
    freeze(NOW)
    decision = consume(organization)
    record(organization, 2)
    assert usage_of(organization).period == MARCH
    assert refund(decision) == 1
    assert adjust(organization, used=4).used == 4
    assert [point.used for point in history.history_of(organization)][-1] == 4
    noon = MARCH.end + DAY / 2
    freeze(noon)
    assert reset_expired().closed == 1
    assert reset(organization).period.start == noon
    assert update_limits(organization, limits={"api": 5})
    sync_limits(organization)
    assert set(UsagePeriod.objects.filter(is_open=None).values_list("closed_at", flat=True)) == {noon}


# -- async -------------------------------------------------------------------------------------------------------------

ARGUMENTS: dict[str, dict[str, Any]] = {
    "consume": {"amount": 3},
    "record": {"amount": 12},
    "would_allow": {"amount": 8},
    "refund": {"amount": 2},
    "adjust": {"used": 5, "reason": "import"},
    "usage_of": {},
    "history_of": {},
    "histories_of": {},
    "reset": {"reason": "goodwill"},
    "explain": {},
    "feature": {"name": "seats", "default": 5},
    "has_feature": {"name": "seats"},
    "sync_limits": {},
    "update_limits": {"limits": {"api": 3}, "plan": ""},
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_async_twin_does_the_same(db, name, freeze):
    """Awaited, each function returns what the plain one returns, and leaves the same usage behind."""
    freeze(NOW)
    module = next(module for module in (metering, resets, entitlements) if hasattr(module, name))
    answers = []
    for call in (getattr(module, name), async_to_sync(getattr(module, f"a{name}"))):
        organization = OrganizationFactory(usage_limits={"api": 9})
        consume(organization, 4)
        answer = call(organization, **ARGUMENTS[name])
        answers.append((getattr(answer, "usage", answer), usage_of(organization)))
    assert answers[0] == answers[1]


def test_reading_many_has_a_twin(organization, freeze):
    """`ausages_of` reads what `usages_of` reads."""
    freeze(NOW)
    consume(organization, 4)
    assert async_to_sync(metering.ausages_of)([organization]) == usages_of([organization])


def test_the_scheduled_reset_has_a_twin(organization):
    """`areset_expired` closes what has expired."""
    consume(organization, now=NOW)
    assert async_to_sync(resets.areset_expired)(MARCH.end).closed == 1
    assert async_to_sync(resets.areset_expired)(MARCH.end).closed == 0


def test_every_public_function_has_a_twin():
    """What is offered sync is offered async, but for the housekeeping of processes and doors."""
    for module, alone in [
        (metering, {"give_back", "flush_refusals", "consume_at_once"}),
        (resets, set()),
        (entitlements, set()),
    ]:
        functions = {name for name in module.__all__ if name[0].islower()}
        plain = {name for name in functions if f"a{name}" in functions}
        assert functions - plain - {f"a{name}" for name in plain} == alone


# -- refusals from memory ----------------------------------------------------------------------------------------------


@pytest.fixture
def forgotten():
    """Nothing remembered of organizations whose keys are used again."""
    refusals.clear()
    yield
    refusals.clear()


@pytest.mark.django_db(transaction=True)
def test_a_refusal_is_remembered_for_a_second(forgotten, django_assert_num_queries):
    """Amounts as large are refused without the database for one second, smaller ones ask it."""
    organization = OrganizationFactory()
    consume(organization, 8, now=NOW)
    refused = consume(organization, 3, now=NOW)
    almost = NOW + timedelta(milliseconds=999)
    with django_assert_num_queries(0):
        assert consume(organization, 3, now=almost) == refused
        assert not consume(organization, 7, now=almost)
    assert consume(organization, 2, now=almost)
    assert not consume(organization, 3, now=NOW + timedelta(seconds=1))
    assert UsagePeriod.objects.get().refused == 4


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "relief",
    [
        lambda organization, decision: refund(decision, now=NOW),
        lambda organization, decision: give_back(decision, now=NOW),
        lambda organization, decision: adjust(organization, used=0, now=NOW),
        lambda organization, decision: reset(organization, now=NOW),
        lambda organization, decision: update_limits(organization, limits={"api": None}, now=NOW),
    ],
    ids=["refund", "give_back", "adjust", "reset", "update_limits"],
)
def test_what_makes_room_is_noticed_at_once(forgotten, relief):
    """The process that made room admits the next request, however lately it was refused."""
    organization = OrganizationFactory()
    decision = consume(organization, 10, now=NOW)
    assert not consume(organization, now=NOW)
    relief(organization, decision)
    assert consume(organization, now=NOW)


@pytest.mark.django_db(transaction=True)
def test_the_memory_ends_with_the_period(forgotten):
    """A refusal a moment before the end does not outlive it."""
    organization = OrganizationFactory()
    moment = MARCH.end - timedelta(milliseconds=1)
    consume(organization, 10, now=moment)
    assert not consume(organization, now=moment)
    assert consume(organization, now=MARCH.end)


@pytest.mark.django_db(transaction=True)
def test_refusals_from_memory_are_written_by_and_by(forgotten):
    """They are counted with the next visit to the database, or when the process is told to flush them."""
    organization = OrganizationFactory()
    consume(organization, 10, now=NOW)
    for _ in range(5):
        assert not consume(organization, now=NOW)
    assert UsagePeriod.objects.get().refused == 1
    assert flush_refusals(now=NOW) == 4
    assert flush_refusals(now=NOW) == 0
    assert UsagePeriod.objects.get().refused == 5


@pytest.mark.django_db(transaction=True)
def test_refusals_of_the_deleted_are_dropped(forgotten):
    """An organization that is gone has no row to write them to."""
    organization = OrganizationFactory()
    consume(organization, 10, now=NOW)
    for _ in range(2):
        assert not consume(organization, now=NOW)
    organization.delete()
    assert flush_refusals(now=NOW) == flush_refusals(now=NOW) == 0


@pytest.mark.django_db(transaction=True)
def test_the_memory_is_bounded(forgotten, monkeypatch):
    """Past its size the older half is forgotten, and asks the database again."""
    monkeypatch.setattr(refusals, "SIZE", 4)
    organizations = OrganizationFactory.create_batch(5, usage_limits={"api": 0})
    for organization in organizations:
        assert not consume(organization, now=NOW)
    monkeypatch.undo()
    from_memory = []
    for organization in organizations:
        with CaptureQueriesContext(connection) as queries:
            assert not consume(organization, now=NOW)
        from_memory.append(len(queries) == 0)
    assert from_memory == [False, False, True, True, True]


def test_in_a_transaction_nothing_is_remembered(organization, forgotten):
    """What the caller's transaction has not committed decides nothing for anybody else."""
    assert connection.in_atomic_block
    consume(organization, 10, now=NOW)
    assert not consume(organization, now=NOW)
    assert refusals.waiting() == []
    assert not consume(organization, now=NOW)
    assert UsagePeriod.objects.get().refused == 2
