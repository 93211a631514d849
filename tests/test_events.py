"""Being told: what is recorded, once, and delivered after the commit."""

import logging
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from tests.factories import Organization, OrganizationFactory, UserFactory
from usage_tracking import events, resets, signals
from usage_tracking.entitlements import sync_limits, update_limits
from usage_tracking.events import deliver_events
from usage_tracking.metering import adjust, consume, record, refund
from usage_tracking.models import UsageEvent
from usage_tracking.periods import Period
from usage_tracking.resets import reset, reset_expired
from usage_tracking.signals import limit_exceeded, limits_updated, usage_reset, usage_warning

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
MARCH, APRIL, MAY = (datetime(2026, month, 1, tzinfo=UTC) for month in (3, 4, 5))
DAY = timedelta(days=1)

SIGNALS = {
    "warning": usage_warning,
    "exceeded": limit_exceeded,
    "reset": usage_reset,
    "limits_updated": limits_updated,
}


@pytest.fixture(autouse=True)
def _limit(configure):
    """Ten requests, announced at 50, 80 and 120 percent."""
    configure(DEFAULT_LIMIT=10, THRESHOLDS=[80, 120, 50], METERS={"tokens": {}})


@pytest.fixture
def committed(django_capture_on_commit_callbacks):
    """Do what a commit does at the end of the block: deliver."""
    return lambda: django_capture_on_commit_callbacks(execute=True)


@pytest.fixture
def received(connected):
    """What each signal brought, in order: (kind, keyword arguments)."""
    calls = []
    for kind, signal in SIGNALS.items():
        connected(signal, lambda kind=kind, **arguments: calls.append((kind, arguments)))
    return calls


def told():
    """Return (kind, threshold, limit) of the announcements on record, in order."""
    return list(UsageEvent.objects.exclude(threshold=None).order_by("pk").values_list("kind", "threshold", "limit"))


# -- what is recorded --------------------------------------------------------------------------------------------------


def test_each_threshold_is_announced_as_it_is_reached(organization):
    """Not before, not again, and the limit itself as exceeded."""
    seen = []
    for _ in range(10):
        consume(organization, now=NOW)
        seen.append(len(told()))
    assert seen == [0, 0, 0, 0, 1, 1, 1, 2, 2, 3]
    assert told() == [("warning", 50, 10), ("warning", 80, 10), ("exceeded", 100, 10)]


@pytest.mark.parametrize(
    "jump", [consume, record, lambda organization, used, now: adjust(organization, used=used, now=now)]
)
def test_a_jump_announces_all_it_passes(organization, jump):
    """One amount that passes several thresholds records each of them, lowest first."""
    jump(organization, 9, now=NOW)
    assert told() == [("warning", 50, 10), ("warning", 80, 10)]


def test_what_happens_at_once_is_delivered_at_once(organization, committed, monkeypatch):
    """One transaction asks for one delivery, however many events it has recorded: each asks a broker, or the outbox."""
    deliveries = []
    monkeypatch.setattr(events, "deliver_events", lambda *, using, after: deliveries.append((using, after)))
    with committed():
        consume(organization, 10, now=NOW)
    assert len(told()) == 3
    assert len(deliveries) == 1


def test_a_period_announces_anew(organization):
    """The next period has thresholds of its own."""
    consume(organization, 10, now=NOW)
    consume(organization, 5, now=APRIL)
    assert told()[3:] == [("warning", 50, 10)]
    reset(organization, now=APRIL + DAY)
    consume(organization, 5, now=APRIL + DAY)
    assert told()[4:] == [("warning", 50, 10)]


def test_past_the_limit_thresholds_go_on(organization, configure):
    """Where the overage is counted, 120 % is announced too."""
    configure(ENFORCEMENT="soft")
    for _ in range(15):
        consume(organization, now=NOW)
    assert told()[2:] == [("exceeded", 100, 10), ("warning", 120, 10)]


def test_an_upgrade_announces_its_own(organization):
    """80 % of the higher limit are news again; back at the lower one there is nothing to add."""
    consume(organization, 8, now=NOW)
    update_limits(organization, limits={"api": 20}, now=NOW)
    assert told() == [("warning", 50, 10), ("warning", 80, 10)]
    consume(organization, 8, now=NOW)
    assert told()[2:] == [("warning", 50, 20), ("warning", 80, 20)]
    update_limits(organization, limits={"api": 10}, now=NOW)
    assert told()[4:] == [("exceeded", 100, 10), ("warning", 120, 10)]
    count = len(told())
    update_limits(organization, limits={"api": 20}, now=NOW)
    update_limits(organization, limits={"api": 10}, now=NOW)
    sync_limits(organization, now=NOW)
    assert len(told()) == count


@pytest.mark.parametrize("limit", [7, 3, 0])
def test_a_limit_lowered_to_what_is_used_is_exceeded(organization, limit):
    """Also to 0, and also behind our back once it is noticed."""
    consume(organization, 7, now=NOW)
    Organization.objects.update(usage_limits={"api": limit})
    sync_limits(organization, now=NOW)
    assert ("exceeded", 100, limit) in told()


def test_a_limit_lowered_to_nothing_is_exceeded_before_the_first_request(organization):
    """Nothing is used, and nothing may be."""
    update_limits(organization, limits={"api": 0}, now=NOW)
    assert told() == [("exceeded", 100, 0)]


def test_limit_zero_is_exceeded_by_the_first_refusal(organization, configure):
    """Once; that there is such a limit is no news in itself."""
    configure(DEFAULT_LIMIT=0)
    refund(organization, 1, now=NOW)
    assert told() == []
    for _ in range(3):
        assert not consume(organization, now=NOW)
    assert told() == [("exceeded", 100, 0)]


def test_an_amount_that_never_fits_is_exceeded_once(organization):
    """The first refusal of the period announces it, though the limit is not reached; reaching it adds nothing."""
    for _ in range(3):
        assert not consume(organization, 11, now=NOW)
    assert told() == [("exceeded", 100, 10)]
    consume(organization, 10, now=NOW)
    assert told() == [("exceeded", 100, 10), ("warning", 50, 10), ("warning", 80, 10)]


def test_a_refund_rearms_nothing(organization):
    """What is reached again after a refund has been announced before."""
    decision = consume(organization, 9, now=NOW)
    refund(decision, now=NOW)
    consume(organization, 9, now=NOW)
    adjust(organization, used=0, now=NOW)
    adjust(organization, used=9, now=NOW)
    assert told() == [("warning", 50, 10), ("warning", 80, 10)]


def test_without_limit_there_is_nothing_to_announce(organization):
    """Unlimited is never reached."""
    consume(organization, 10**9, "tokens", now=NOW)
    assert told() == []


def test_a_carried_period_announces_what_it_carries(organization, configure):
    """Usage that a late job gives to the new period counts towards its thresholds."""
    configure(RESET_MODE="scheduled")
    consume(organization, 1, now=NOW)
    consume(organization, 6, now=APRIL + DAY)
    assert told() == [("warning", 50, 10)]
    reset_expired(APRIL + 2 * DAY)
    assert told() == [("warning", 50, 10), ("warning", 50, 10)]
    assert UsageEvent.objects.exclude(threshold=None).values("period").distinct().count() == 2


def test_the_crossing_and_its_record_share_a_transaction(organization):
    """Rolled back, neither happened, and the threshold is announced when it is really crossed."""
    with transaction.atomic():
        consume(organization, 9, now=NOW)
        transaction.set_rollback(True)
    assert told() == []
    consume(organization, 9, now=NOW)
    assert len(told()) == 2


# -- what is sent ------------------------------------------------------------------------------------------------------

COMMON = {"signal", "sender", "organization", "meter", "plan", "used", "limit", "percentage", "period", "event"}
EXTRA = {"reset": {"mode", "previous_used"}, "limits_updated": {"changes", "actor", "reason"}}


def test_the_signals_bring_what_is_documented(organization, received, committed):
    """Each signal brings exactly the arguments that signals.py documents, with the state when it happened."""
    actor = UserFactory(username="Ada")
    with committed():
        consume(organization, 8, now=NOW)
    with committed():
        consume(organization, 2, now=NOW)
    with committed():
        update_limits(organization, limits={"api": 20}, actor=actor, reason="contract", now=NOW)
    with committed():
        reset(organization, now=NOW)
    kinds = [kind for kind, _ in received]
    assert kinds == ["warning", "warning", "exceeded", "limits_updated", "warning", "reset"]
    source = Path(signals.__file__).read_text()
    general, *each = re.split(r"^(\w+) = Signal\(\)$", source, flags=re.MULTILINE)
    specific = {getattr(signals, name): text for name, text in zip(each[::2], each[1::2], strict=True)}
    for kind, arguments in received:
        assert arguments.keys() == COMMON | EXTRA.get(kind, set())
        for name in COMMON - {"signal"}:
            assert re.search(rf"^([\w, ]+, )?{name}(,|$)", general, re.MULTILINE), name
        for name in EXTRA.get(kind, set()):
            assert f"`{name}`" in specific[SIGNALS[kind]], name
        assert (arguments["sender"], arguments["organization"]) == (Organization, organization)
        assert (arguments["meter"], arguments["plan"]) == ("api", "free")
        assert UsageEvent.objects.get(pk=arguments["event"].pk).kind == kind
    by_kind = dict(received)
    exceeded, updated, restarted = (by_kind[kind] for kind in ("exceeded", "limits_updated", "reset"))
    assert (exceeded["used"], exceeded["limit"], exceeded["percentage"]) == (10, 10, 100)
    assert exceeded["period"] == Period(MARCH, APRIL)
    assert exceeded["event"].threshold == 100
    assert updated["changes"] == {"limits": {"old": {}, "new": {"api": 20}}}
    assert (updated["actor"], updated["reason"], updated["limit"], updated["percentage"]) == (actor, "contract", 20, 50)
    assert (restarted["mode"], restarted["previous_used"], restarted["used"], restarted["percentage"]) == (
        "manual",
        10,
        0,
        0,
    )
    assert restarted["period"] == Period(NOW, APRIL)
    assert restarted["event"].period.end == NOW


def test_a_period_without_end_and_limit(organization, received, committed, configure):
    """Under manual reset and without a limit, period end, limit and percentage are None."""
    configure(RESET_MODE="manual", DEFAULT_LIMIT=None)
    with committed():
        reset(organization, now=NOW)
    ((_, arguments),) = received
    assert (arguments["limit"], arguments["percentage"]) == (None, None)
    assert arguments["period"].end is None


def test_shadow_sends_like_soft(organization, received, committed, configure):
    """In shadow mode the receivers see what they would see."""
    configure(ENFORCEMENT="shadow")
    with committed():
        consume(organization, 12, now=NOW)
    assert [(kind, arguments["event"].threshold) for kind, arguments in received] == [
        ("warning", 50),
        ("warning", 80),
        ("exceeded", 100),
        ("warning", 120),
    ]


def test_refunds_and_corrections_are_on_record_only(organization, received, committed):
    """They have no signal, and never wait in the outbox."""
    with committed():
        refund(consume(organization, 2, now=NOW), now=NOW)
        adjust(organization, used=2, now=NOW)
    assert received == []
    assert set(UsageEvent.objects.values_list("kind", flat=True)) == {"refunded", "adjusted"}
    assert not UsageEvent.objects.filter(delivered_at=None).exists()


# -- when it is sent ---------------------------------------------------------------------------------------------------


def test_nothing_is_sent_before_the_commit(organization, received, committed):
    """Receivers never see what may still be rolled back."""
    with committed():
        consume(organization, 8, now=NOW)
        assert received == []
    assert len(received) == 2
    assert not UsageEvent.objects.filter(delivered_at=None).exists()


@pytest.mark.django_db(transaction=True)
def test_it_is_sent_by_the_commit(received):
    """Without a transaction of the caller it is sent before the call returns; with one, when that ends."""
    organization = OrganizationFactory()
    consume(organization, 5, now=NOW)
    assert len(received) == 1
    with transaction.atomic():
        consume(organization, 3, now=NOW)
        assert len(received) == 1
    assert len(received) == 2
    with transaction.atomic():
        consume(organization, 2, now=NOW)
        transaction.set_rollback(True)
    assert len(received) == 2


def test_it_is_sent_once(organization, received, committed):
    """A second delivery finds nothing."""
    with committed():
        consume(organization, 8, now=NOW)
    assert deliver_events() == 0
    assert len(received) == 2


def test_what_a_crash_left_is_sent_later(organization, received):
    """An event that was committed and never delivered waits in the outbox, oldest first."""
    consume(organization, 8, now=NOW)
    assert deliver_events() == 2
    assert [arguments["event"].threshold for _, arguments in received] == [50, 80]
    assert deliver_events() == 0


def test_a_claim_expires(organization, received, freeze):
    """An event whose deliverer died is sent by another one a minute later, under the same key."""
    freeze(NOW)
    consume(organization, 5)
    event = UsageEvent.objects.get()
    assert events._claim(0, event.pk, "default") == [event]
    assert events._claim(0, event.pk, "default") == []
    freeze(NOW + timedelta(seconds=59))
    assert deliver_events() == 0
    freeze(NOW + timedelta(seconds=60))
    assert deliver_events() == 1
    ((_, arguments),) = received
    assert arguments["event"].pk == event.pk


def test_a_delivery_can_begin_later(organization, connected):
    """What comes before is neither sent nor passed over, and waits for a delivery of all."""
    heard = []
    connected(usage_warning, lambda event, **_: heard.append(event.pk))
    reset(organization, now=NOW)
    consume(organization, 8, now=NOW)
    unheard, first, second = UsageEvent.objects.order_by("pk").values_list("pk", flat=True)
    assert deliver_events(after=second) == 0
    assert deliver_events(after=first) == 1
    assert heard == [second]
    connected(usage_reset, lambda event, **_: heard.append(event.pk))
    assert deliver_events() == 2
    assert heard == [second, unheard, first]


@pytest.mark.parametrize("dispatch", ["inline", "celery"])
@pytest.mark.django_db(transaction=True)
def test_a_job_sends_its_own_and_then_what_was_left(dispatch, received, monkeypatch, request):
    """After each batch the job sends what that has recorded, and at its end what a crash had left."""
    if dispatch == "celery":
        request.getfixturevalue("celery").conf.task_always_eager = True
    monkeypatch.setattr(resets, "BATCH", 1)
    with events.deferred_delivery():
        for organization in OrganizationFactory.create_batch(2):
            consume(organization, 5, now=NOW)
    reset_expired(APRIL)
    assert [kind for kind, _ in received] == ["reset", "reset", "warning", "warning"]


def test_what_nobody_hears_is_not_kept(organization, connected):
    """Events of signals without a receiver count as delivered, in one statement; the others are sent."""
    reset(organization, now=NOW)
    consume(organization, 8, now=NOW)
    heard = []
    connected(usage_warning, lambda event, **_: heard.append(event.threshold))
    assert deliver_events() == 2
    assert heard == [50, 80]
    assert not UsageEvent.objects.filter(delivered_at=None).exists()
    connected(usage_reset, lambda **_: heard.append("reset"))
    assert deliver_events() == 0
    assert heard == [50, 80]


def test_many_events_take_as_few_statements_as_few(db, received):
    """They are claimed, sent and marked together."""
    counts = []
    for size in (3, 30):
        for organization in OrganizationFactory.create_batch(size):
            reset(organization, now=NOW)
        with CaptureQueriesContext(connection) as statements:
            assert deliver_events() == size
        counts.append(len(statements))
    assert counts[0] == counts[1] < 15


def test_slow_receivers_do_not_outlast_the_claim(organization, connected, freeze):
    """However many wait and however long each takes, another deliverer finds none that is still to be sent here."""
    freeze(NOW)
    for day in range(3):
        reset(organization, now=NOW + day * DAY)
    heard = []

    def slow(event, **_):
        heard.append(event.pk)
        freeze(NOW + len(heard) * timedelta(seconds=50))
        if len(heard) == 2:
            assert deliver_events() == 0

    connected(usage_reset, slow)
    assert deliver_events() == 3
    assert len(heard) == len(set(heard)) == 3


def test_a_deliverer_that_is_stopped_loses_nothing(organization, connected):
    """What it had sent is noted, and the rest is there for the next delivery without waiting for a claim."""
    for day in range(3):
        reset(organization, now=NOW + day * DAY)
    heard = []

    def interrupted(event, **_):
        heard.append(event.pk)
        if len(heard) == 2:
            raise KeyboardInterrupt

    connected(usage_reset, interrupted)
    with pytest.raises(KeyboardInterrupt):
        deliver_events()
    first, second, third = UsageEvent.objects.order_by("pk").values_list("pk", flat=True)
    assert deliver_events() == 2
    assert heard == [first, second, second, third]


def test_what_was_claimed_by_another_meanwhile_stays_with_it(organization, connected, freeze):
    """A receiver that outlasts the claim by itself loses the rest of its batch, and does not send it again."""
    freeze(NOW)
    for day in range(2):
        reset(organization, now=NOW + day * DAY)
    first, second = UsageEvent.objects.order_by("pk")
    taken = NOW + timedelta(minutes=3)

    def stuck(event, **_):
        freeze(NOW + timedelta(minutes=2))
        UsageEvent.objects.filter(pk=second.pk).update(claimed_until=taken)

    connected(usage_reset, stuck)
    assert deliver_events() == 1
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.delivered_at is None, second.delivered_at, second.claimed_until) == (False, None, taken)


def test_more_than_one_batch(organization, received, monkeypatch):
    """All that waits is sent, however much."""
    monkeypatch.setattr(events, "BATCH", 2)
    for days in range(5):
        reset(organization, now=NOW + days * DAY)
    assert deliver_events() == len(received) == 5
    pks = [arguments["event"].pk for _, arguments in received]
    assert pks == sorted(pks)


def test_what_receivers_cause_is_left_to_the_next_delivery(organization, connected, received):
    """A receiver that causes events does not keep a delivery going for ever."""
    connected(usage_reset, lambda organization, **_: reset(organization))
    reset(organization)
    assert deliver_events() == 1
    assert UsageEvent.objects.filter(delivered_at=None).count() == 1


def test_a_receiver_that_raises_stops_nothing(organization, connected, committed, caplog):
    """The others are called, the host's request goes on, it is logged, and the event counts as delivered."""
    seen = []

    def broken(**_):
        message = "no mail today"
        raise RuntimeError(message)

    connected(usage_warning, broken)
    connected(usage_warning, lambda event, **_: seen.append(event.threshold))
    with committed():
        assert consume(organization, 8, now=NOW)
    assert seen == [50, 80]
    assert not UsageEvent.objects.filter(delivered_at=None).exists()
    ours = [record for record in caplog.records if record.name == "usage_tracking.events"]
    assert len(ours) == 2
    assert "no mail today" in caplog.text
    assert "broken" in ours[0].getMessage()


def test_the_deleted_are_not_told_about(organization, connected, received):
    """A receiver that deletes the organization takes its waiting events with it."""
    connected(usage_warning, lambda organization, **_: Organization.objects.filter(pk=organization.pk).delete())
    consume(organization, 10, now=NOW)
    assert deliver_events() == 1
    assert len(received) == 1
    assert not UsageEvent.objects.exists()


def test_deliveries_can_be_held_back(organization, received, committed):
    """A door has them made when its response is ready."""
    with events.deferred_delivery() as outboxes, committed():
        consume(organization, 8, now=NOW)
    assert received == []
    assert outboxes == {"default"}
    events.dispatch(outboxes)
    assert len(received) == 2


# -- by Celery ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def celery(configure):
    """A Celery application of the host, and EVENT_DISPATCH = "celery"."""
    celery = pytest.importorskip("celery")
    configure(EVENT_DISPATCH="celery")
    app = celery.Celery("tests", set_as_current=False)
    before = celery._state.default_app
    celery._state.set_default_app(app)
    app.set_current()
    yield app
    celery._state.set_default_app(before)
    celery._state._tls.current_app = None


def test_celery_delivers(celery, organization, received, committed):
    """With EVENT_DISPATCH = "celery" a task is sent after the commit, and delivers."""
    celery.conf.task_always_eager = True
    with committed():
        consume(organization, 8, now=NOW)
        assert received == []
    assert len(received) == 2


def test_a_broker_that_is_down_hurts_nobody(celery, organization, received, committed, caplog):
    """The request goes on, it is logged, and the events wait for the next delivery."""
    celery.conf.broker_url = "amqp://127.0.0.1:1//"
    with caplog.at_level(logging.ERROR, "usage_tracking"), committed():
        assert consume(organization, 8, now=NOW)
    assert "wait in the outbox" in caplog.text
    assert received == []
    assert deliver_events() == 2
