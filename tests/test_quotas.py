"""The arithmetic of limits."""

import pickle
from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from usage_tracking.exceptions import InvalidAmount, InvalidChange
from usage_tracking.periods import Period
from usage_tracking.quotas import (
    MAX_AMOUNT,
    Decision,
    Enforcement,
    Usage,
    amount_at,
    crossed,
    next_checkpoint,
    overage,
    percentage,
    remaining,
    validate_amount,
    validate_count,
    validate_limit,
)

# Small numbers meet each other often, large ones find what is not exact.
numbers = st.one_of(st.integers(0, 50), st.integers(0, MAX_AMOUNT))
limits = st.one_of(st.none(), numbers)
percents = st.lists(st.integers(1, 1000).filter(lambda percent: percent != 100), max_size=4, unique=True)


@given(used=numbers, limit=numbers)
def test_a_limit_is_what_is_left_and_what_was_used_of_it(used, limit):
    """Remaining and overage are never negative, never both there, and add up to the limit."""
    assert remaining(used, limit) + used == limit + overage(used, limit)
    assert remaining(used, limit) >= 0
    assert overage(used, limit) >= 0
    assert remaining(used, limit) == 0 or overage(used, limit) == 0


@given(used=numbers)
def test_unlimited_has_no_share(used):
    """Without a limit nothing is left over, over or a percentage of it."""
    assert remaining(used, None) is None
    assert percentage(used, None) is None
    assert overage(used, None) == 0
    assert crossed(used, None, [1, 80]) == []


@given(used=numbers, limit=numbers.filter(bool))
def test_a_percentage_is_exact_and_rounded_down(used, limit):
    """The percentage is a whole number, at most the true share and less than one percent below it."""
    share = Fraction(used * 100, limit)
    assert share - 1 < percentage(used, limit) <= share


@given(used=numbers)
def test_nothing_of_nothing_is_all_of_it(used):
    """At limit 0 the percentage is 100."""
    assert percentage(used, 0) == 100


@given(limit=numbers, percent=st.integers(1, 1000))
def test_a_threshold_is_the_first_amount_that_reaches_it(limit, percent):
    """The amount of a threshold has reached it and the one below has not; an unused period has reached none."""
    amount = amount_at(limit, percent)
    assert amount >= 1
    assert amount * 100 >= limit * percent
    assert amount == 1 or (amount - 1) * 100 < limit * percent


@given(used=numbers, limit=numbers, thresholds=percents)
def test_the_thresholds_crossed_are_those_the_percentage_has_reached(used, limit, thresholds):
    """Crossed are, lowest first, those up to the percentage; none by an unused period, all at limit 0."""
    reached = sorted(percent for percent in thresholds if used and (limit == 0 or percentage(used, limit) >= percent))
    assert crossed(used, limit, thresholds) == reached


@given(used=numbers, amount=numbers.filter(bool), limit=limits, enforcement=st.sampled_from(Enforcement), th=percents)
def test_nothing_happens_between_the_rails(used, amount, limit, enforcement, th):
    """An amount that stays below the rail crosses no threshold, does not reach the limit, and fits."""
    assume(used + amount < next_checkpoint(used, limit, enforcement, th))
    assert crossed(used + amount, limit, [*th, 100]) == crossed(used, limit, [*th, 100])
    assert used + amount <= MAX_AMOUNT
    if enforcement == Enforcement.HARD and limit is not None:
        assert used + amount <= limit


@given(used=numbers, limit=limits, enforcement=st.sampled_from(Enforcement), th=percents)
def test_the_rail_is_not_nearer_than_need_be(used, limit, enforcement, th):
    """The amount at the rail does cross something, does not fit, or is past what can be counted."""
    rail = next_checkpoint(used, limit, enforcement, th)
    assert (
        rail > MAX_AMOUNT
        or crossed(rail, limit, [*th, 100]) != crossed(used, limit, [*th, 100])
        or (enforcement == Enforcement.HARD and rail == limit + 1)
    )


@pytest.mark.parametrize("enforcement", Enforcement)
@pytest.mark.parametrize(
    ("limit", "rails"),
    [
        (10, {0: 5, 4: 5, 5: 8, 8: 10, 9: 10}),
        (3, {0: 2, 1: 2, 2: 3}),
        (1, {0: 1}),
        (0, {0: 1}),
    ],
)
def test_the_rail_stops_at_each_threshold_and_at_the_limit(limit, rails, enforcement):
    """Thresholds 50 and 80 and the limit itself are each met once, in order."""
    assert {used: next_checkpoint(used, limit, enforcement, [80, 50]) for used in rails} == rails


@pytest.mark.parametrize(("enforcement", "rail"), [("hard", 11), ("soft", 12), ("shadow", 12)])
def test_past_the_limit_only_hard_stops(enforcement, rail):
    """At the limit the next unit is hard's business; the others meet the next threshold, 120 %."""
    assert next_checkpoint(10, 10, Enforcement(enforcement), [80, 120]) == rail
    assert next_checkpoint(10, 10, Enforcement.SOFT, [80]) == MAX_AMOUNT + 1


def test_a_lowered_hard_limit_stops_everything():
    """Far past a limit that was lowered, the rail is below what is used: every request is looked at."""
    assert next_checkpoint(500, 10, Enforcement.HARD, [80]) == 11


@pytest.mark.parametrize("amount", [1, 2, MAX_AMOUNT])
def test_a_whole_number_is_an_amount(amount):
    """Amounts go from 1 to 2^53 - 1, counts and limits from 0; a limit may be none at all."""
    assert validate_amount(amount) == validate_count(amount) == validate_limit(amount) == amount
    assert validate_count(0) == validate_limit(0) == 0
    assert validate_limit(None) is None


@pytest.mark.parametrize("nonsense", [-1, True, False, 1.0, float("nan"), "1", b"1", MAX_AMOUNT + 1, [1], Fraction(1)])
def test_nothing_else_is(nonsense):
    """Everything else is refused with the field's name, booleans and whole floats too."""
    for validate, error in [
        (validate_amount, InvalidAmount),
        (validate_count, InvalidAmount),
        (validate_limit, InvalidChange),
    ]:
        with pytest.raises(error, match=r"^some field must be") as caught:
            validate(nonsense, field="some field")
        assert caught.value.field == "some field"
        assert isinstance(caught.value, ValueError)
    for validate in (validate_amount, validate_count):
        with pytest.raises(InvalidAmount):
            validate(None)
    with pytest.raises(InvalidAmount):
        validate_amount(0)


def test_an_error_crosses_processes_whole():
    """Pickled and back, an error has its class, message and field."""
    error = pickle.loads(pickle.dumps(InvalidAmount("no", field="amount")))  # noqa: S301 - our own
    assert (type(error), str(error), error.field) == (InvalidAmount, "no", "amount")


def test_usage_knows_its_own_arithmetic():
    """A usage answers for what is left, what is over, the percentage and when it resets."""
    period = Period(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))
    usage = Usage(meter="api", used=12, limit=10, period=period, enforcement=Enforcement.SOFT)
    assert (usage.remaining, usage.overage, usage.percentage, usage.resets_at) == (0, 2, 120, period.end)
    assert not Decision(allowed=False, amount=1, usage=usage)
    assert Decision(allowed=True, amount=1, usage=usage)
