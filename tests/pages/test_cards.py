"""What cards say."""

from datetime import UTC, datetime

import pytest
from django.utils import translation

from usage_tracking.cards import Level, features_of, number, numbers, usage_cards
from usage_tracking.entitlements import update_limits
from usage_tracking.exceptions import UnknownMeter
from usage_tracking.metering import consume, record

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


def card_of(organization, **options):
    """Return the card of the meter `api`."""
    (card,) = usage_cards(organization, ["api"], now=NOW, **options)
    return card


@pytest.mark.parametrize(
    ("used", "level", "badge", "status"),
    [
        (0, Level.NORMAL, "0%", ""),
        (799, Level.NORMAL, "79%", ""),
        (800, Level.WARNING, "80%", "Getting close to the limit"),
        (899, Level.WARNING, "89%", "Getting close to the limit"),
        (900, Level.CRITICAL, "90%", "Almost used up"),
        (999, Level.CRITICAL, "99%", "Almost used up"),
        (1000, Level.EXCEEDED, "100%", "Limit reached"),
        (2500, Level.EXCEEDED, "250%", "1,500 over the limit"),
    ],
)
def test_each_level_has_words_of_its_own(organization, used, level, badge, status):
    """Below the warning threshold, from it, from 90 % and at the limit: told by words, not by colour alone."""
    if used:
        record(organization, used, now=NOW)
    card = card_of(organization)
    assert (card.level, card.badge, card.status) == (level, badge, status)


def test_a_card_says_used_limit_rest_and_reset(organization):
    """Numbers are grouped; the date is the organization's own."""
    update_limits(organization, limits={"api": 12_000}, time_zone="America/New_York", now=NOW)
    consume(organization, 1_234, now=NOW)
    card = card_of(organization)
    assert (card.used, card.limit, card.remaining) == ("1,234", "of 12,000 requests", "10,766 left")
    assert card.reset == "Resets April 1, 2026"
    assert card.summary == "1,234 of 12,000 requests, 10%"
    assert (card.share, card.limit_mark) == (10.28, None)


def test_the_reset_has_its_time_unless_it_is_midnight(organization):
    """A period that begins at nine says so."""
    update_limits(organization, anchor="2001-01-01T09:00", now=NOW)
    assert card_of(organization).reset == "Resets April 1, 2026, 9 a.m."


def test_unlimited_has_no_percentage_and_no_rest(organization):
    """There is nothing to be near to."""
    update_limits(organization, limits={"api": None}, now=NOW)
    consume(organization, 5, now=NOW)
    card = card_of(organization)
    assert (card.level, card.badge, card.limit, card.remaining, card.status) == (
        Level.UNLIMITED,
        "Unlimited",
        "requests",
        "",
        "",
    )


def test_a_limit_of_nothing_is_not_included_rather_than_used_up(organization):
    """Limit 0 is no alarm, until something was used all the same."""
    update_limits(organization, limits={"api": 0}, now=NOW)
    card = card_of(organization)
    assert (card.level, card.badge, card.share, card.status) == (Level.EXCLUDED, "Not included", 0, "")
    record(organization, 3, now=NOW)
    card = card_of(organization)
    assert (card.level, card.badge, card.share, card.status) == (Level.EXCEEDED, "100%", 100, "3 over the limit")
    assert card.limit_mark == 0


def test_past_the_limit_the_bar_marks_where_it_was(organization):
    """The bar is full, and a mark stands at limit / used."""
    record(organization, 1250, now=NOW)
    card = card_of(organization)
    assert (card.share, card.limit_mark) == (100, 80)


def test_what_waits_for_its_job_says_so(organization, configure):
    """An expired scheduled period is shown as it is."""
    configure(RESET_MODE="scheduled", RESET_PERIOD="daily")
    consume(organization, 7, now=datetime(2026, 3, 8, 12, tzinfo=UTC))
    card = card_of(organization)
    assert (card.used, card.reset) == ("7", "Ended March 9, 2026, waiting for its reset")


def test_a_manual_period_has_no_date(organization, configure):
    """Somebody resets it, nobody knows when."""
    configure(RESET_MODE="manual")
    assert card_of(organization).reset == "No automatic reset"


@pytest.mark.parametrize(
    ("thresholds", "asked", "level"),
    [([50, 95], None, Level.WARNING), ([95], None, Level.NORMAL), ([], None, Level.NORMAL), ([95], 60, Level.WARNING)],
)
def test_the_warning_begins_at_the_lowest_threshold(organization, configure, thresholds, asked, level):
    """Unless it is asked for another; 80 without any."""
    configure(THRESHOLDS=thresholds)
    record(organization, 700, now=NOW)
    assert card_of(organization, threshold=asked).level == level


def test_numbers_are_in_the_language_of_the_page(organization):
    """German groups with a point."""
    record(organization, 1_000_000, now=NOW)
    with translation.override("de"):
        assert card_of(organization).used == "1.000.000"


@pytest.mark.parametrize("language", ["en", "de", "de-ch", "hi", "ar", "fr", "es", "ja", "sw"])
def test_many_numbers_are_written_as_each_alone(language):
    """Whether digits are grouped in threes, otherwise or not at all."""
    values = [0, 7, 999, 1_000, 12_345, 1_234_567, 2**53 - 1]
    with translation.override(language):
        assert numbers(values) == [number(value) for value in values]


def test_all_meters_are_one_query(organization, configure, django_assert_num_queries):
    """However many meters there are."""
    configure(METERS={f"meter{number}": {} for number in range(20)})
    with django_assert_num_queries(1):
        assert len(usage_cards(organization, now=NOW)) == 21


def test_an_unknown_meter_is_an_error(organization):
    """It is the template that is wrong."""
    with pytest.raises(UnknownMeter):
        usage_cards(organization, ["tokns"])


def test_features_are_those_of_plan_and_overrides(organization, configure):
    """Labelled ones first; what only has a label is not included."""
    configure(PLANS={"pro": {"features": {"export": True, "seats": 2500, "beta": False, "support": "phone"}}})
    update_limits(organization, plan="pro", features={"seats": 3000, "note": "", "robots": 0})
    plan = features_of(organization, {"seats": "Seats", "sso": "Single sign-on"})
    assert plan.name == "pro"
    assert [(each.label, each.included, each.value) for each in plan.features] == [
        ("Seats", True, "3,000"),
        ("Single sign-on", False, "Not included"),
        ("export", True, "Included"),
        ("beta", False, "Not included"),
        ("support", True, "phone"),
        ("note", False, "Not included"),
        ("robots", False, "Not included"),
    ]
