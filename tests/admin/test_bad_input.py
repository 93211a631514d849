"""What nobody should send: an error at the field, nothing changed, never a 500."""

import re

import pytest

from tests.admin.forms import filled
from tests.factories import Organization
from usage_tracking.metering import record, usage_of
from usage_tracking.models import UsageEvent
from usage_tracking.quotas import MAX_AMOUNT

NO_AMOUNT = ["", "-1", "true", "NaN", "1.5", "1e30", str(10**30), str(MAX_AMOUNT + 1), "9" * 5000, "\0", "four", "0x1f"]
NO_NUMBER = ["NaN", "Infinity", "-Infinity", "1e400", str(10**30), "true", "\0", "four", "9" * 5000]

TABLE = [
    *(("refund", "amount", value) for value in [*NO_AMOUNT, "0"]),
    *(("adjust", "used", value) for value in NO_AMOUNT),
    *((name, "meter", value) for name in ("refund", "adjust") for value in ("", "calls", "\0", "api,tokens")),
    *(("reset", "meters", value) for value in ([], ["calls"], ["api", "calls"], ["\0"])),
    *(
        (name, "reason", value)
        for name in ("reset", "refund", "adjust", "limits")
        for value in ("", "  ", "\0", "x" * 501)
    ),
    *(("limits", "plan", value) for value in ("gold", "\0", "PRO")),
    *(("limits", "reset_mode", value) for value in ("never", "\0")),
    *(("limits", "reset_period", value) for value in ("biweekly", "1")),
    *(("limits", "enforcement", value) for value in ("strict",)),
    *(("limits", "time_zone", value) for value in ("Mars/Olympus", "../../etc/passwd", "localtime")),
    *(("limits", "anchor", value) for value in ("yesterday", "2026-02-30", "2026-13-01", "1-1-1", "\0", "9" * 5000)),
    *(("limits", "limit-api", value) for value in ("", "none", "\0")),
    *(("limits", "feature-export", value) for value in ("", "maybe", "1")),
]


@pytest.mark.parametrize(("name", "field", "value"), TABLE)
def test_a_bad_value_is_an_error_at_its_field(operator, pages, organization, name, field, value):
    """The form comes back with the error; nothing has changed and no event was written."""
    record(organization, 7)
    entered = {"refund": {"amount": 1}, "adjust": {"used": 3}, "limits": {"plan": "pro"}}.get(name, {})
    data = filled(name, organization, **entered) | {field: value, "usage_step": "confirm"}
    response = operator.post(pages.operation(organization, name), data)
    assert response.status_code == 200
    assert list(response.context["form"].errors) == [field]
    assert f'id="id_{field}_error"' in response.content.decode()
    _nothing_has_changed(organization)


@pytest.mark.parametrize("value", NO_AMOUNT)
def test_a_limit_is_a_whole_number(operator, pages, organization, value):
    """Of each meter: from 0 to 2^53 - 1, and there when it was chosen."""
    record(organization, 7)
    data = filled("limits", organization, **{"limit-api": "own", "number-api": value, "usage_step": "confirm"})
    response = operator.post(pages.operation(organization, "limits"), data)
    assert list(response.context["form"].errors) == ["number-api"]
    _nothing_has_changed(organization)


@pytest.mark.parametrize("value", ["", *NO_NUMBER])
def test_a_numeric_feature_is_a_number(operator, pages, organization, value):
    """JSON has no NaN and no infinity."""
    record(organization, 7)
    data = filled("limits", organization, **{"feature-seats": "own", "value-seats": value, "usage_step": "confirm"})
    response = operator.post(pages.operation(organization, "limits"), data)
    assert list(response.context["form"].errors) == ["value-seats"]
    _nothing_has_changed(organization)


def test_a_number_without_its_choice_is_not_lost_silently(operator, pages, organization):
    """Who enters a number and leaves "inherit" is asked what was meant."""
    data = filled("limits", organization, **{"number-api": "5", "usage_step": "review"})
    response = operator.post(pages.operation(organization, "limits"), data)
    errors = response.context["form"].errors
    assert list(errors) == ["limit-api"]
    assert errors["limit-api"][0].startswith("You have entered 5, but chosen “inherit (10)”. Choose “this number”")


def test_what_is_required_is_marked(operator, pages, organization):
    """As Django's own forms mark it, and for a screen reader."""
    for name, required in (("limits", {"Reason"}), ("refund", {"Meter", "Amount", "Reason"})):
        content = operator.get(pages.operation(organization, name)).content.decode()
        assert set(re.findall(r'<label for="\w+" class="required">([^<]+)<', content)) == required
        assert content.count('aria-required="true"') == len(required)


def test_each_field_says_what_an_empty_one_means(operator, pages, organization):
    """The anchor too, though it has no choices."""
    organization.usage_anchor = "2026-02-03"
    organization.save()
    content = operator.get(pages.operation(organization, "limits")).content.decode()
    assert "Empty: inherit (2001-01-01 00:00:00)." in content


def test_a_form_without_a_change_is_told_so(operator, pages, organization):
    """An event about nothing would be noise in the audit trail."""
    data = filled("limits", organization) | {"usage_step": "confirm"}
    assert "Nothing would change." in operator.post(pages.operation(organization, "limits"), data).content.decode()
    assert not UsageEvent.objects.exists()


@pytest.mark.parametrize("body", [{}, {"usage_step": "confirm"}, {"usage_step": "explode"}, {"usage_step": "review"}])
@pytest.mark.parametrize("name", ["reset", "refund", "adjust", "limits"])
def test_an_empty_body_does_nothing(operator, pages, organization, name, body):
    """Whatever the step."""
    record(organization, 7)
    assert operator.post(pages.operation(organization, name), body).status_code == 200
    _nothing_has_changed(organization)


def test_a_body_of_ten_megabytes_is_refused(operator, pages, organization):
    """By Django, before any field is read."""
    data = filled("reset", organization, reason="x" * 10_000_000) | {"usage_step": "confirm"}
    response = operator.post(
        pages.operation(organization, "reset"),
        "&".join(f"{key}={value}" for key, value in data.items()),
        content_type="application/x-www-form-urlencoded",
    )
    assert response.status_code == 400


@pytest.mark.parametrize(
    ("content_type", "body"), [("application/json", '{"usage_step": "confirm"}'), ("text/csv", ",")]
)
def test_another_content_type_is_an_empty_form(operator, pages, organization, content_type, body):
    """Nothing happens."""
    record(organization, 7)
    response = operator.post(pages.operation(organization, "reset"), body, content_type=content_type)
    assert response.status_code == 200
    _nothing_has_changed(organization)


@pytest.mark.parametrize(
    "query",
    [
        "organization=none-of-these",
        "organization=%00",
        "organization=99999999999999999999",
        "meter=calls",
        "start__gte=yesterday",
        "start__gte=2026-02-30",
        "state=perhaps",
        "nonsense=1",
    ],
)
@pytest.mark.parametrize("page", ["changelist", "export"])
def test_a_wrong_lookup_of_records_is_no_list(operator, pages, organization, query, page):
    """Django's answer, for the list and its export."""
    response = operator.get(f"{pages.records('period', page)}?{query}")
    assert (response.status_code, response.url) == (302, f"{pages.records('period')}?e=1")


def _nothing_has_changed(organization):
    usage = usage_of(organization)
    assert (usage.used, usage.limit) == (7, 10)
    stored = Organization.objects.get(pk=organization.pk)
    assert (stored.usage_plan, stored.usage_limits, stored.usage_features, stored.usage_anchor) == ("", {}, {}, "")
    assert not UsageEvent.objects.exists()
