"""The list of organizations: usage at a glance, whatever it is."""

from datetime import timedelta

import pytest
from django.contrib import admin
from django.core import checks
from django.utils import timezone
from django.utils.translation import override

from tests.factories import Organization, OrganizationFactory
from tests.host_admin import OrganizationAdmin
from usage_tracking.entitlements import update_limits
from usage_tracking.metering import adjust, consume, record

DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("limit", "used", "words"),
    [
        (1000, 300, ["300 of 1,000", 'width="30"']),
        (1000, 800, ["800 of 1,000", "near the limit", 'width="80"']),
        (1000, 1000, ["1,000 of 1,000", "limit reached", 'width="100"']),
        (1000, 1250, ["1,250 of 1,000", "250 over the limit", 'width="80"', 'x="80" width="20"']),
        (0, 0, ["0 of 0", "nothing allowed"]),
        (0, 5, ["5 of 0", "5 over the limit"]),
        (None, 1234, ["1,234, unlimited"]),
    ],
)
def test_each_state_has_words(operator, pages, organization, limit, used, words):
    """Used, limit and what it means are text; the bar only shows the same."""
    update_limits(organization, limits={"api": limit})
    adjust(organization, used=used)
    content = operator.get(pages.list).content.decode()
    assert [word for word in words if word not in content] == []


def test_calm_usage_has_no_remark(operator, pages, organization):
    """Nothing is said about what is all right."""
    consume(organization)
    assert "usage-state" not in operator.get(pages.list).content.decode()


def test_an_expired_period_says_since_when_it_waits(operator, pages, organization, freeze):
    """Under scheduled reset the old count stays, marked, until the job comes."""
    now = timezone.now()
    update_limits(organization, reset_mode="scheduled", reset_period="daily")
    record(organization, 7)
    freeze(now + 2 * DAY)
    content = operator.get(pages.list).content.decode()
    assert "7 of 10" in content
    assert "waits for its reset" in content


def test_history_is_a_line_with_a_text_alternative(operator, pages, organization, freeze):
    """The sparkline says in words what it shows."""
    now = timezone.now()
    freeze(now - DAY)
    record(organization, 5)
    freeze(now)
    record(organization, 2)
    content = operator.get(pages.list).content.decode()
    assert 'role="img" aria-label="Last 30 days: 7 in total, at most 5 on' in content
    assert 'aria-label="Last 30 days: nothing used"' in content  # the other meter


def test_no_decimal_comma_gets_into_an_svg(operator, pages, organization, settings):
    """Coordinates are those of SVG in every language; numbers in the text are the reader's."""
    settings.LANGUAGE_CODE = "de"
    update_limits(organization, limits={"api": 3000})
    adjust(organization, used=1000)
    content = operator.get(pages.list).content.decode()
    assert 'width="33.33"' in content
    assert "1.000" in content


def test_one_organization_that_cannot_be_told_does_not_hide_the_others(operator, pages, monkeypatch):
    """A plan that raises costs its own organization's bars, not the page."""
    broken, sound = OrganizationFactory(name="Broken"), OrganizationFactory(name="Sound")
    record(sound, 3)
    monkeypatch.setattr(
        Organization, "get_usage_plan", lambda self: {}["plan"] if self.pk == broken.pk else self.usage_plan
    )
    content = operator.get(pages.list).content.decode()
    assert content.count("cannot be told") == 1
    assert "3 of 10" in content
    assert "cannot be told" in operator.get(pages.change(broken)).content.decode()


def test_what_the_host_lists_stays_in_its_place(rf, staff):
    """`usage_overview` is added at the end, unless the host has placed it."""

    class Placed(OrganizationAdmin):
        list_display = ["usage_overview", "name"]
        list_filter = ["name"]
        actions = None

    request = rf.get("/")
    request.user = staff("view_usage")
    placed, plain = (kind(Organization, admin.site) for kind in (Placed, OrganizationAdmin))
    assert placed.get_list_display(request) == ["usage_overview", "name"]
    assert plain.get_list_display(request) == ["name", "usage_overview"]
    assert placed.get_list_filter(request)[0] == "name"
    assert placed.actions is None


def test_a_list_that_could_be_edited_without_a_reason_is_an_error():
    """`list_editable` with a usage field is named by the system checks."""

    class Editable(OrganizationAdmin):
        list_display = ["name", "usage_plan"]
        list_editable = ["usage_plan"]

    assert [error.id for error in Editable(Organization, admin.site).check()] == ["usage_tracking.E016"]
    assert [one for one in checks.run_checks(tags=[checks.Tags.admin]) if one.level >= checks.ERROR] == []


# -- filters -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def crowd(db):
    """One organization for each filter."""
    now = timezone.now()
    crowd = {name: OrganizationFactory(name=name) for name in ("calm", "near", "exceeded", "expired", "manual", "pro")}
    adjust(crowd["near"], used=9)
    adjust(crowd["exceeded"], used=10)
    update_limits(crowd["expired"], reset_mode="scheduled", reset_period="hourly", now=now - DAY)
    record(crowd["expired"], 1, now=now - DAY)
    update_limits(crowd["manual"], reset_mode="manual")
    update_limits(crowd["pro"], plan="pro")
    return crowd


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("usage=near", {"near"}),
        ("usage=exceeded", {"exceeded"}),
        ("usage=expired", {"expired"}),
        ("plan=pro", {"pro"}),
        ("plan=free", {"calm", "near", "exceeded", "expired", "manual"}),
        ("reset_mode=manual", {"manual"}),
        ("reset_mode=scheduled", {"expired"}),
        ("usage=near&plan=pro", set()),
        ("_facets=True", {"calm", "near", "exceeded", "expired", "manual", "pro"}),
    ],
)
def test_the_list_can_be_narrowed_down(operator, pages, crowd, query, names):
    """Near the limit, exceeded, expired, by plan, by reset mode, and together."""
    response = operator.get(f"{pages.list}?{query}")
    assert {one.name for one in response.context["cl"].result_list} == names


@pytest.mark.parametrize("query", ["usage=full", "plan=gold", "reset_mode=never", "usage=%00", "plan="])
def test_a_filter_that_does_not_exist_is_no_list(operator, pages, crowd, query):
    """Django's answer to a wrong lookup, not all organizations as if nothing had been asked."""
    response = operator.get(f"{pages.list}?{query}")
    assert (response.status_code, response.url) == (302, f"{pages.list}?e=1")


def test_a_right_to_left_page(operator, pages, organization, settings):
    """In Arabic the page runs from right to left, and our texts say their own direction."""
    settings.LANGUAGE_CODE = "ar"
    adjust(organization, used=9)
    with override("ar"):
        content = operator.get(pages.change(organization)).content.decode()
    assert 'dir="rtl"' in content
    assert '<span class="usage-text" dir="auto">9 of 10</span>' in content
