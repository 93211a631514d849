"""P7: bad input gets an error with the field's name, and changes nothing."""

from collections.abc import Callable, Collection
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Group, User

from tests.factories import Organization, OrganizationFactory
from usage_tracking.decorators import usage_amount
from usage_tracking.entitlements import explain, feature, has_feature, sync_limits, update_limits
from usage_tracking.exceptions import InvalidAmount, InvalidChange, InvalidInput, UnknownMeter, UsageTrackingError
from usage_tracking.metering import adjust, consume, history_of, record, refund, usage_of, would_allow
from usage_tracking.models import UsageEvent, UsageHistory, UsagePeriod
from usage_tracking.quotas import MAX_AMOUNT
from usage_tracking.resets import reset, reset_expired

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
NAIVE = datetime(2026, 3, 10, 12)  # noqa: DTZ001 - that is what is wrong with it

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "consume": consume,
    "record": partial(record, amount=1),
    "would_allow": would_allow,
    "refund": lambda organization, amount=1, **rest: refund(organization, amount, **rest),
    "adjust": partial(adjust, used=3),
    "usage_of": usage_of,
    "history_of": history_of,
    "reset": reset,
    "update_limits": partial(update_limits, limits={"api": 1}),
    "sync_limits": sync_limits,
    "explain": explain,
    "feature": partial(feature, name="export"),
    "has_feature": partial(has_feature, name="export"),
    "reset_expired": lambda organization, **rest: reset_expired(organizations=[organization], **rest),
}
# What an organization may have is asked of its instance, saved or not, and whenever.
IN_MEMORY = {"explain", "feature", "has_feature"}

NUMBERS = [-1, True, False, 1.0, 1.5, float("nan"), float("inf"), Decimal(1), "1", b"1", [1], 2**53, 10**30]
AMOUNTS = [0, None, *NUMBERS]
INSTANTS = [NAIVE, date(2026, 3, 10), "2026-03-10T12:00Z", 0, datetime.min.replace(tzinfo=UTC), NOW + timedelta(90_000)]

COUNTING = ["consume", "record", "would_allow", "refund"]
METERED = [*COUNTING, "adjust", "usage_of", "history_of", "reset", "explain"]
SIGNED = ["refund", "adjust", "reset", "update_limits"]

# Of update_limits(): (the error, the field it names, the argument, its bad values)
UPDATES: list[tuple[type[UsageTrackingError], str, str, list[Any]]] = [
    (InvalidChange, "limits.api", "limits", [{"api": limit} for limit in ["", "unlimited", *NUMBERS]]),
    (InvalidChange, "limits.api", "limits", [{"tokens": 1, "api": -1}]),
    (InvalidChange, "limits", "limits", [None, 5, "api", [("api", 5)]]),
    (UnknownMeter, "limits", "limits", [{"calls": 5}, {None: 5}, {"api": 5, "": 5}]),
    (InvalidChange, "features", "features", [None, "export", ["export"], {"": True}, {"x" * 65: True}]),
    (InvalidChange, "features", "features", [{f"feature-{number}": True for number in range(201)}]),
    (InvalidChange, "features", "features", [{1: True}, {None: True}, {"ex\0port": True}]),
    (InvalidChange, "features.seats", "features", [{"seats": value} for value in [None, [1], {}, Decimal(1)]]),
    (InvalidChange, "features.seats", "features", [{"seats": float(value)} for value in ("nan", "inf", "-inf")]),
    (InvalidChange, "features.seats", "features", [{"export": True, "seats": "\0"}, {"seats": "\ud800"}]),
    (InvalidChange, "plan", "plan", ["gold", "Free", " ", None, 5, ["free"]]),
    (InvalidChange, "reset_mode", "reset_mode", ["sometimes", "LAZY", None, 5, True]),
    (InvalidChange, "reset_period", "reset_period", ["fortnightly", "month", None, 30]),
    (InvalidChange, "anchor", "anchor", ["31 January", "2026-02-30", "1001-01-01", "2026-01-01T25:00", None, 31]),
    (InvalidChange, "time_zone", "time_zone", ["Mars/Olympus", "+02:00", "../passwd", "europe/berlin", None, 2]),
    (InvalidChange, "enforcement", "enforcement", ["firm", "HARD", None, 1]),
]

# (functions, the error, the field it names, the argument, its bad values)
TABLE: list[tuple[Collection[str], type[UsageTrackingError], str, str, list[Any]]] = [
    (FUNCTIONS, InvalidInput, "organization", "organization", [None, 1, "1", object(), Organization, Group(pk=1)]),
    (
        FUNCTIONS.keys() - IN_MEMORY,
        InvalidInput,
        "organization",
        "organization",
        [Organization(pk=None, name="unsaved")],
    ),
    (FUNCTIONS.keys() - IN_MEMORY, InvalidInput, "now", "now", INSTANTS),
    (METERED, UnknownMeter, "meter", "meter", ["calls", "API", "", None, 1, ["api"], {}]),
    (COUNTING, InvalidAmount, "amount", "amount", AMOUNTS),
    # Some are used already, so that many do not fit any more.
    (["record"], InvalidAmount, "amount", "amount", [MAX_AMOUNT, MAX_AMOUNT - 2]),
    (["adjust"], InvalidAmount, "used", "used", [None, *NUMBERS]),
    (["reset_expired"], InvalidAmount, "limit", "limit", [0, *NUMBERS]),
    (SIGNED, InvalidInput, "reason", "reason", [None, 5, b"why", ["why"], "\0", "\ud800"]),
    (SIGNED, InvalidInput, "actor", "actor", ["Ada", 1, AnonymousUser(), User(username="unsaved")]),
    *[(["update_limits"], error, field, argument, values) for error, field, argument, values in UPDATES],
]


def everything():
    """Return every row of the usage tables and of the organizations."""
    return [
        list(model._base_manager.order_by("pk").values())
        for model in (UsagePeriod, UsageHistory, UsageEvent, Organization)
    ]


@pytest.fixture
def used(organization, configure):
    """An organization with history, an open bucket, a refusal, overrides, and a period that wants to be closed."""
    configure(METERS={"tokens": {}}, PLANS={"pro": {}}, DEFAULT_LIMIT=20)
    update_limits(organization, limits={"tokens": 7}, features={"seats": 1}, now=NOW - timedelta(days=40))
    consume(organization, 5, now=NOW - timedelta(days=40))
    consume(organization, 5, now=NOW - timedelta(days=1))
    consume(organization, 3, now=NOW)
    consume(organization, 100, now=NOW)
    consume(OrganizationFactory(), 5, now=NOW - timedelta(days=40))
    return organization


@pytest.mark.parametrize("name", FUNCTIONS)
def test_bad_input_names_its_field_and_changes_nothing(used, name, subtests):
    """Whatever it is, all rows are as before, and the caller reads which argument it was."""
    before = everything()
    rows = [
        (error, field, {argument: value})
        for names, error, field, argument, values in TABLE
        if name in names
        for value in values
    ]
    for error, field, bad in rows:
        arguments = {"organization": used, **({} if name in IN_MEMORY else {"now": NOW}), **bad}
        with subtests.test(**bad):
            with pytest.raises(InvalidInput) as caught:
                FUNCTIONS[name](**arguments)
            assert isinstance(caught.value, error)
            assert caught.value.field == field
            assert everything() == before


@pytest.mark.parametrize("amount", AMOUNTS)
def test_a_view_cannot_cost_nonsense(amount):
    """The decorator refuses it when the module is imported."""
    with pytest.raises(InvalidAmount) as caught:
        usage_amount(amount)
    assert caught.value.field == "amount"


def test_an_error_in_the_callers_transaction_leaves_it_usable(used):
    """After bad input the caller may go on in the same transaction."""
    with pytest.raises(InvalidInput):
        reset(used, actor="Ada", now=NOW)
    assert reset(used, now=NOW).used == 0
