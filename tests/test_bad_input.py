"""P7: bad input gets an error with the field's name, and changes nothing."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from django.contrib.auth.models import AnonymousUser, Group

from tests.factories import Organization, OrganizationFactory, UserFactory
from usage_tracking.decorators import usage_amount
from usage_tracking.entitlements import explain, feature, has_feature, sync_limits, update_limits
from usage_tracking.exceptions import InvalidAmount, InvalidChange, InvalidInput, UnknownMeter, UsageTrackingError
from usage_tracking.metering import adjust, consume, history_of, record, refund, usage_of, would_allow
from usage_tracking.models import UsageEvent, UsageHistory, UsagePeriod
from usage_tracking.quotas import MAX_AMOUNT
from usage_tracking.resets import reset, reset_expired

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
NAIVE = datetime(2026, 3, 10, 12)  # noqa: DTZ001 - that is what is wrong with it

FUNCTIONS = {
    "consume": lambda organization, **rest: consume(organization, **rest),
    "record": lambda organization, **rest: record(organization, **{"amount": 1, **rest}),
    "would_allow": lambda organization, **rest: would_allow(organization, **rest),
    "refund": lambda organization, **rest: refund(organization, **{"amount": 1, **rest}),
    "adjust": lambda organization, **rest: adjust(organization, **{"used": 3, **rest}),
    "usage_of": lambda organization, **rest: usage_of(organization, **rest),
    "history_of": lambda organization, **rest: history_of(organization, **rest),
    "reset": lambda organization, **rest: reset(organization, **rest),
    "update_limits": lambda organization, **rest: update_limits(organization, **{"limits": {"api": 1}, **rest}),
    "sync_limits": lambda organization, **rest: sync_limits(organization, **rest),
    "explain": lambda organization, **rest: explain(organization, **rest),
    "feature": lambda organization: feature(organization, "export"),
    "has_feature": lambda organization: has_feature(organization, "export"),
    "reset_expired": lambda organization=None, **rest: reset_expired(
        organizations=None if organization is None else [organization], **rest
    ),
}

NUMBERS = [-1, True, False, 1.0, 1.5, float("nan"), float("inf"), Decimal(1), "1", b"1", [1], 2**53, 10**30]
AMOUNTS = [0, None, *NUMBERS]
METERS = ["calls", "API", "", None, 1, ["api"], {}]
ORGANIZATIONS = [None, 1, "1", object(), Organization, Organization(), Group(pk=1, name="members")]
INSTANTS = [NAIVE, date(2026, 3, 10), "2026-03-10T12:00Z", 0, datetime.min.replace(tzinfo=UTC), NOW + timedelta(90_000)]
TEXTS = [None, 5, b"why", ["why"], "\0", "\ud800"]

FEATURES = [
    ("features", None),
    ("features", "export"),
    ("features", ["export"]),
    ("features", {"": True}),
    ("features", {"x" * 65: True}),
    ("features", {1: True}),
    ("features", {"ex\0port": True}),
    ("features.seats", {"seats": None}),
    ("features.seats", {"seats": [1]}),
    ("features.seats", {"seats": {}}),
    ("features.seats", {"seats": Decimal(1)}),
    ("features.seats", {"seats": float("nan")}),
    ("features.seats", {"seats": float("-inf")}),
    ("features.seats", {"seats": "\0"}),
    ("features.seats", {"export": True, "seats": "\ud800"}),
]
SCALARS = {
    "plan": ["gold", "Free", " ", None, 5, ["free"]],
    "reset_mode": ["sometimes", "LAZY", None, 5, True],
    "reset_period": ["fortnightly", "month", None, 30],
    "anchor": ["31 January", "2026-02-30", "2026-13-01", "1001-01-01", "2026-01-01T25:00", "01/31/2026", None, 31],
    "time_zone": ["Mars/Olympus", "+02:00", "../etc/passwd", "europe/berlin", None, 2],
    "enforcement": ["firm", "HARD", None, 1],
}


def table():
    """Yield (what it is, the error, the field it names, a call with it)."""

    def row(name, error, field, **bad):
        label = ", ".join(f"{key}={value!r:.40}" for key, value in bad.items())
        return pytest.param(error, field, FUNCTIONS[name], bad, id=f"{name}({label})".replace("\0", "NUL"))

    for name in FUNCTIONS:
        for organization in ORGANIZATIONS:
            if (name, organization) != ("reset_expired", None):
                yield row(name, InvalidInput, "organization", organization=organization)
    for name in ("consume", "record", "would_allow", "refund"):
        for amount in AMOUNTS:
            yield row(name, InvalidAmount, "amount", amount=amount)
    for used in [None, *NUMBERS]:
        yield row("adjust", InvalidAmount, "used", used=used)
    for name in ("record", "adjust"):
        # There are 3 already, and that many do not fit any more.
        argument = "amount" if name == "record" else "used"
        yield row(name, InvalidAmount, argument, **{argument: MAX_AMOUNT - 2 if name == "record" else MAX_AMOUNT + 1})
    for name in FUNCTIONS.keys() - {"update_limits", "sync_limits", "feature", "has_feature", "reset_expired"}:
        for meter in METERS:
            yield row(name, UnknownMeter, "meter", meter=meter)
    for name in FUNCTIONS.keys() - {"explain", "feature", "has_feature"}:
        for now in INSTANTS:
            yield row(name, InvalidInput, "now", now=now)
    for name in ("refund", "adjust", "reset", "update_limits"):
        for reason in TEXTS:
            yield row(name, InvalidInput, "reason", reason=reason)
        for actor in ("Ada", 1, AnonymousUser(), UserFactory.build()):
            yield row(name, InvalidInput, "actor", actor=actor)
    for limit in ["", "unlimited", *NUMBERS]:
        yield row("update_limits", InvalidChange, "limits.api", limits={"api": limit})
        yield row("update_limits", InvalidChange, "limits.api", limits={"tokens": 1, "api": limit}, plan="pro")
    for limits in (None, 5, "api", [("api", 5)]):
        yield row("update_limits", InvalidChange, "limits", limits=limits)
    for limits in ({"calls": 5}, {None: 5}, {"api": 5, "": 5}):
        yield row("update_limits", UnknownMeter, "limits", limits=limits)
    for field, features in FEATURES:
        yield row("update_limits", InvalidChange, field, features=features)
    for field, values in SCALARS.items():
        for value in values:
            yield row("update_limits", InvalidChange, field, **{field: value})


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


@pytest.mark.parametrize(("error", "field", "function", "bad"), table())
def test_bad_input_names_its_field_and_changes_nothing(used, error, field, function, bad):
    """Whatever it is, all rows are as before, and the caller reads which argument it was."""
    before = everything()
    arguments = {"organization": used, **bad}
    if "now" not in bad and function not in (FUNCTIONS["explain"], FUNCTIONS["feature"], FUNCTIONS["has_feature"]):
        arguments["now"] = NOW
    with pytest.raises(error) as caught:
        function(**arguments)
    assert caught.value.field == field
    assert isinstance(caught.value, UsageTrackingError | ValueError)
    assert everything() == before


@pytest.mark.parametrize("amount", [amount for amount in AMOUNTS])
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
