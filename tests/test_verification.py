"""Proving the books: what is sound passes, whatever happened; what somebody broke is found, and mended on request."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from tests.factories import Organization, OrganizationFactory
from usage_tracking import selections
from usage_tracking.entitlements import update_limits
from usage_tracking.exceptions import InvalidInput, UnknownMeter
from usage_tracking.metering import adjust, consume, record, refund, usage_of
from usage_tracking.models import UsageEvent, UsageHistory, UsageLease, UsagePeriod
from usage_tracking.quotas import MAX_AMOUNT
from usage_tracking.resets import reset, reset_expired
from usage_tracking.verification import Finding, Problem, verify_usage

NOW = datetime(2026, 6, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def used(organization):
    """An organization with two closed periods and an open one, of 30, 31 and 10 days of 2."""
    for days in range(70, -1, -1):
        consume(organization, 2, now=NOW - days * DAY)
    assert found() == []
    return organization


def found(**options):
    """Return (problem, stored, expected) of each finding."""
    return [(str(one.problem), one.stored, one.expected) for one in verify_usage(now=NOW, **options)]


def earliest():
    """Return the earliest period, closed."""
    return UsagePeriod.objects.order_by("start")[:1].get()


def current():
    """Return the open period."""
    return UsagePeriod.objects.get(is_open=True)


def lend(period, **numbers):
    """Lend of a period, behind the engine's back, until a time that does not come in these tests."""
    owner = {name: getattr(period, name) for name in ("organization_id", "meter", "bucket_start")}
    return UsageLease.objects.create(period=period, expires_at=timezone.now() + DAY, holder="x", **owner, **numbers)


def rows(*periods):
    """Return these periods as a queryset, to change them behind the engine's back."""
    return UsagePeriod.objects.filter(pk__in=[period.pk for period in periods])


# -- what is sound -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["lazy", "scheduled", "manual"])
@pytest.mark.parametrize("bucket", ["day", "hour"])
def test_whatever_the_engine_does_passes(organization, configure, mode, bucket):
    """Charges, refunds, corrections, resets by hand, late jobs and changes of calendar leave nothing to find."""
    configure(RESET_MODE=mode, RESET_PERIOD="weekly", HISTORY_BUCKET=bucket, METERS={"tokens": {}}, DEFAULT_LIMIT=30)
    decisions = []
    for step in range(40):
        moment = NOW - timedelta(hours=17 * (40 - step))
        decisions.append(consume(organization, 3, now=moment))
        record(organization, step + 1, "tokens", now=moment)
        match step % 10:
            case 3:
                refund(decisions[step // 2], now=moment)
            case 5:
                reset(organization, "tokens", now=moment)
            case 6:
                adjust(organization, used=2, now=moment)
            case 7:
                update_limits(organization, time_zone=["Asia/Kolkata", ""][step % 20 // 10], now=moment)
                assert found() == []
            case 9:
                reset_expired(moment)
                assert found() == []


def test_a_late_scheduled_period_passes(organization, configure):
    """Its history goes past its end until the job comes."""
    configure(RESET_MODE="scheduled")
    for days in range(70, -1, -1):
        consume(organization, now=NOW - days * DAY)
    assert found() == []
    reset_expired(NOW)
    assert found() == []


def test_periods_without_usage_between_them_pass(organization):
    """Months that nobody used are not invented, so that they are not missed."""
    consume(organization, now=NOW - 300 * DAY)
    consume(organization, now=NOW)
    assert found() == []


# -- what is broken ----------------------------------------------------------------------------------------------------


def test_drift_of_a_closed_period_is_found(used):
    """A closed period is the sum of its history."""
    rows(earliest()).update(used=100)
    assert found() == [("drift", 100, 60)]


def test_drift_inside_a_closed_period_is_found(used):
    """What it says of its history is wrong though its sum is right."""
    rows(earliest()).update(used_before_bucket=7)
    assert found() == [("drift", 7, 60)]


def test_lost_history_is_found(used):
    """Rows that somebody deleted, and that pruning did not."""
    UsageHistory.objects.filter(period=current()).order_by("pk").first().delete()
    UsageHistory.objects.filter(period=earliest()).delete()
    assert found() == [("drift", 60, 0), ("drift", 20, 18)]


def test_drift_of_the_open_period_is_found(used):
    """Its history and its open bucket are what it has used."""
    rows(current()).update(used=21, used_before_bucket=19)
    assert found() == [("drift", 21, 20)]


def test_a_negative_number_is_found(used):
    """Of the period and of its history."""
    rows(current()).update(refused=-1)
    UsageHistory.objects.filter(pk=UsageHistory.objects.order_by("pk").first().pk).update(refused=-5)
    assert found() == [("negative", None, None), ("negative", None, None)]


def test_history_outside_of_its_period_is_found(used):
    """A row that begins before its period, that ends after it, or that is somebody else's."""
    first = UsageHistory.objects.order_by("start").first()
    for change in (
        {"start": first.start - 40 * DAY},
        {"end": earliest().end + DAY},
        {"organization": OrganizationFactory()},
        {"meter": "tokens"},
    ):
        UsageHistory.objects.filter(pk=first.pk).update(**change)
        assert found() == [("stray", None, None)]
        first.save()
    assert found() == []


def test_periods_that_overlap_are_found(used):
    """The next begins before the first has ended."""
    rows(earliest()).update(end=earliest().end + DAY)
    assert found() == [("overlap", None, None)]


def test_a_period_that_is_missing_is_found(used):
    """Whoever closed the earliest opened one that contained that moment, and it is gone."""
    middle = UsagePeriod.objects.order_by("start")[1]
    UsageEvent.objects.filter(period=middle).delete()
    UsageHistory.objects.filter(period=middle).delete()
    middle.delete()
    assert found() == [("gap", None, None)]


def test_a_meter_without_an_open_period_is_found(used):
    """A period is closed by opening the next."""
    rows(current()).update(is_open=None, used_before_bucket=20)
    newest = UsageHistory.objects.order_by("-start").first()
    UsageHistory.objects.filter(pk=newest.pk).update(used=4)
    assert found() == [("untold", None, None), ("not-open", None, None)]


def test_a_period_that_was_closed_in_silence_is_found(used):
    """Each closed period has its event."""
    UsageEvent.objects.filter(period=earliest()).delete()
    assert found() == [("untold", None, None)]


def test_what_is_on_lease_is_what_the_leases_have_left(used):
    """In an open period; a lost lease has nothing left, nor has a closed period."""
    lease = lend(current(), granted=9, settled=2)
    assert found() == [("mislent", 0, 7)]
    rows(current()).update(on_lease=7)
    assert found() == []
    UsageLease.objects.filter(pk=lease.pk).update(lost_at=NOW)
    assert found() == [("mislent", 7, 0)]
    rows(current()).update(on_lease=0)
    lend(earliest(), granted=5)
    assert found() == []
    rows(earliest()).update(on_lease=5)
    assert found() == [("mislent", 5, 0)]


def test_findings_name_the_period(used):
    """Whose it is, of which meter, and since when."""
    rows(earliest()).update(used=100)
    (finding,) = verify_usage(now=NOW)
    period = earliest()
    assert finding == Finding(
        problem=Problem.DRIFT,
        organization_id=used.pk,
        meter="api",
        period_id=period.pk,
        start=period.start,
        stored=100,
        expected=60,
    )


# -- repair ------------------------------------------------------------------------------------------------------------


def test_repair_mends_drift_and_leaves_a_record(used):
    """Closed and open periods are what their history says; the events have the old and the new value, and why."""
    rows(earliest()).update(used=100)
    rows(current()).update(used=21, used_before_bucket=19)
    assert [finding.repaired for finding in verify_usage(repair=True, reason="restored a backup", now=NOW)] == [
        True,
        True,
    ]
    assert (earliest().used, earliest().used_before_bucket) == (60, 60)
    assert (current().used, current().used_before_bucket) == (20, 18)
    assert [
        (event.period, event.reason, event.data["previous_used"], event.data["recomputed_used"])
        if event.data["recomputed_period"]["start"] == event.period.start.isoformat()
        else "of another period"
        for event in UsageEvent.objects.filter(kind="adjusted").order_by("pk")
    ] == [(earliest(), "restored a backup", 100, 60), (current(), "restored a backup", 21, 20)]
    assert found() == []
    assert list(verify_usage(repair=True, now=NOW)) == []


def test_repair_sets_the_rails_and_announces(used, configure):
    """Once mended, the open period holds to its limit, and a threshold that it has reached is announced."""
    update_limits(used, limits={"api": 22}, now=NOW)
    UsageEvent.objects.filter(kind="warning").delete()
    rows(current()).update(used=3, used_before_bucket=1)
    (finding,) = verify_usage(repair=True, now=NOW)
    assert (finding.stored, finding.expected) == (3, 20)
    assert UsageEvent.objects.filter(kind="warning").count() == 1
    assert consume(used, 2, now=NOW)
    assert not consume(used, 1, now=NOW)


def test_repair_sets_what_is_on_lease(used):
    """To what the leases have left; the rail follows, and no event says that anything was charged."""
    update_limits(used, limits={"api": 30}, now=NOW)
    lend(current(), granted=9, settled=2)
    rows(earliest()).update(on_lease=5)
    repaired = [(one.problem, one.stored, one.expected, one.repaired) for one in verify_usage(repair=True, now=NOW)]
    assert repaired == [(Problem.MISLENT, 5, 0, True), (Problem.MISLENT, 0, 7, True)]
    assert found() == []
    assert (current().on_lease, earliest().on_lease) == (7, 0)
    assert consume(used, 3, now=NOW)
    assert not consume(used, 1, now=NOW)
    assert not UsageEvent.objects.filter(kind="adjusted").exists()


def test_repair_of_a_period_that_has_just_ended(used):
    """The lock closes it first, and it is mended as a closed one."""
    rows(current()).update(used=21, used_before_bucket=19)
    later = NOW + 30 * DAY
    (finding,) = verify_usage(repair=True, now=later)
    assert (finding.repaired, finding.expected) == (True, 20)
    assert usage_of(used, now=later).used == 0
    assert list(verify_usage(now=later)) == []


def test_repair_tells_what_it_cannot_mend(used, configure, caplog):
    """A meter that METERS no longer names has no terms; other problems than drift are for a person."""
    configure(METERS={"tokens": {}})
    consume(used, 5, "tokens", now=NOW - 40 * DAY)
    consume(used, 5, "tokens", now=NOW)
    UsagePeriod.objects.filter(meter="tokens", is_open=None).update(used=6)
    configure(METERS={})
    UsageEvent.objects.filter(period=earliest()).delete()
    findings = list(verify_usage(repair=True, now=NOW))
    assert sorted((str(one.problem), one.repaired) for one in findings) == [("drift", False), ("untold", False)]
    assert "was not repaired" in caplog.text


def test_without_repair_nothing_changes(used):
    """Looking is free."""
    rows(earliest()).update(used=100)
    before = [list(model.objects.order_by("pk").values()) for model in (UsagePeriod, UsageHistory, UsageEvent)]
    assert len(list(verify_usage(now=NOW))) == 1
    assert [list(model.objects.order_by("pk").values()) for model in (UsagePeriod, UsageHistory, UsageEvent)] == before


# -- which -------------------------------------------------------------------------------------------------------------


def test_verification_can_be_narrowed_down(used, configure):
    """To some organizations, and to one meter."""
    configure(METERS={"tokens": {}})
    other = OrganizationFactory()
    consume(other, now=NOW)
    record(other, MAX_AMOUNT, "tokens", now=NOW)
    UsagePeriod.objects.filter(is_open=True).update(used_before_bucket=1)
    everyone = {(finding.organization_id, finding.meter) for finding in verify_usage(now=NOW)}
    assert everyone == {(used.pk, "api"), (other.pk, "api"), (other.pk, "tokens")}
    assert {one.organization_id for one in verify_usage(Organization.objects.filter(pk=used.pk), now=NOW)} == {used.pk}
    assert {one.meter for one in verify_usage(meter="tokens", now=NOW)} == {"tokens"}


@pytest.mark.parametrize("organizations", [3, 20])
def test_verification_reads_in_batches(db, organizations, monkeypatch, django_assert_num_queries):
    """Two queries for each batch of organizations, whatever they hold; progress is told after each."""
    monkeypatch.setattr(selections, "BATCH", 2)
    for organization in OrganizationFactory.create_batch(organizations):
        consume(organization, now=NOW - 40 * DAY)
        consume(organization, now=NOW)
    told = []
    with django_assert_num_queries(2 * -(-organizations // 2) + 1):
        assert list(verify_usage(now=NOW, progress=told.append)) == []
    assert sum(told) == organizations


@pytest.mark.parametrize(
    ("options", "error", "field"),
    [
        ({"meter": "calls"}, UnknownMeter, "meter"),
        ({"reason": None}, InvalidInput, "reason"),
        ({"reason": "\0"}, InvalidInput, "reason"),
        ({"now": datetime(2026, 6, 10)}, InvalidInput, "now"),  # noqa: DTZ001 - that is what is wrong with it
    ],
)
def test_bad_input_is_named_at_once(used, options, error, field):
    """Not when the first finding is asked for."""
    with pytest.raises(error) as caught:
        verify_usage(**options)
    assert caught.value.field == field
