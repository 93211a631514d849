"""The dashboard page, as a browser shows it."""

import pytest


def test_range_and_type_are_one_click_away(visit):
    """Each click is a new page with the other chart, and the table behind it has its numbers."""
    page = visit("bob").open("/dashboard/")
    chart = page.locator(".ut-chart").first
    assert chart.get_attribute("data-type") == "bar"
    page.get_by_role("link", name="7 days").click()
    assert page.url.endswith("?range=7d&type=bar")
    assert chart.locator(".ut-mark").count() == 7
    page.get_by_role("link", name="Area").click()
    assert page.url.endswith("?range=7d&type=area")
    chart.get_by_text("Show as a table").click()
    assert chart.get_by_role("row").count() == 8


def test_it_tells_everything_without_javascript(visit):
    """The same page, controls and table included."""
    page = visit("bob", java_script_enabled=False).open("/dashboard/", range="90d")
    assert page.locator(".ut-usage").first.inner_text().split("\n")[0] == "API requests"
    assert "842 of 1,000 requests" in page.locator(".ut-usage").first.inner_text()
    assert page.locator(".ut-mark").count() == 180
    page.get_by_role("link", name="Line").click()
    assert page.locator(".ut-chart").first.get_attribute("data-type") == "line"


def test_a_member_of_several_switches(visit):
    """Without JavaScript, too."""
    page = visit("dora", java_script_enabled=False).open("/dashboard/")
    assert page.get_by_role("heading", level=1).inner_text() == "No organization"
    page.get_by_label("Organization").select_option(label="Delta Freight")
    page.get_by_role("button", name="Switch").click()
    assert page.get_by_role("heading", level=1).inner_text() == "Delta Freight"
    assert "50 of 100 requests" in page.locator(".ut-usage").first.inner_text()


LOOKS = {
    "light": {},
    "dark": {"color_scheme": "dark"},
    "RTL": {"locale": "ar"},
    "320 px": {"viewport": {"width": 320, "height": 700}},
    "dark, RTL, 320 px": {"color_scheme": "dark", "locale": "ar", "viewport": {"width": 320, "height": 700}},
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
@pytest.mark.parametrize("path", ["/dashboard/?type=line", "/live/"])
def test_pages_are_accessible(visit, path, look):
    """axe-core finds nothing, and nothing is wider than the window."""
    window = visit("bob", **look)
    page = window.open(path)
    if path == "/live/":
        page.locator("usage-history-chart [part=plot]").last.wait_for()
    window.check_accessibility()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("user", ["eve", "carol", "zoe", "dora", "max"])
def test_pages_of_the_unusual_are_accessible(visit, user):
    """Overage, unlimited, nothing allowed, nothing chosen, all that numbers and names can be; on a telephone."""
    for scheme in ("light", "dark"):
        window = visit(user, color_scheme=scheme, viewport={"width": 320, "height": 700})
        page = window.open("/dashboard/")
        window.check_accessibility()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
