"""The custom elements, as a browser shows them."""

import json
import re
from html import escape

import pytest

CARD, CHART = "<api-usage-card></api-usage-card>", "<usage-history-chart></usage-history-chart>"
POINTS = [
    {"start": f"2026-03-{day:02}T00:00:00+01:00", "end": f"2026-03-{day + 1:02}T00:00:00+01:00", "used": day * 10}
    for day in range(1, 31)
]


def card(**attributes):
    """Return the HTML of a card."""
    written = " ".join(f'{name}="{escape(str(value))}"' for name, value in attributes.items())
    return f"<api-usage-card {written}></api-usage-card>"


def text_of(page, tag="api-usage-card"):
    """Return what an element says, in one line."""
    return re.sub(r"\s+", " ", page.locator(f"{tag} section").first.inner_text())


# -- cards -------------------------------------------------------------------------------------------------------------


CARDS = [
    ({"used": 1234, "limit": 50000}, "normal", "API requests 2% 1,234 of 50,000 requests 48,766 left"),
    ({"used": 79, "limit": 100}, "normal", "API requests 79% 79 of 100 requests 21 left"),
    ({"used": 80, "limit": 100}, "warning", "80% 80 of 100 requests Getting close to the limit 20 left"),
    ({"used": 60, "limit": 100, "warning-threshold": 60}, "warning", "60%"),
    ({"used": 90, "limit": 100}, "critical", "90% 90 of 100 requests Almost used up 10 left"),
    ({"used": 100, "limit": 100}, "exceeded", "100% 100 of 100 requests Limit reached"),
    ({"used": 250, "limit": 100}, "exceeded", "250% 250 of 100 requests 150 over the limit"),
    ({"used": 0, "limit": 0}, "excluded", "Not included 0 of 0 requests"),
    ({"used": 3, "limit": 0}, "exceeded", "100% 3 of 0 requests 3 over the limit"),
    ({"used": 5000, "limit": "unlimited"}, "unlimited", "Unlimited 5,000 requests"),
    ({"used": 5000, "limit": "null"}, "unlimited", "Unlimited 5,000 requests"),
    ({"used": 5000}, "unlimited", "Unlimited 5,000 requests"),
    ({"used": 5, "limit": 10, "meter": "ai_tokens"}, "normal", "Ai tokens 50% 5 of 10"),
    ({"used": -5, "limit": 10}, None, "used cannot be -5."),
    ({"used": "1e3", "limit": 10}, None, "used cannot be 1e3."),
    ({"used": 5, "limit": "<b>"}, None, "limit cannot be <b>."),
    ({"used": 5, "strings": "{"}, None, "strings cannot be {."),
]


def test_a_card_is_drawn_from_its_attributes(visit):
    """It asks nobody, and says what it cannot draw."""
    window = visit()
    requests = []
    window.page.on("request", lambda request: requests.append(request.url))
    page = window.show("".join(card(**attributes) for attributes, _, _ in CARDS))
    drawn = page.locator("api-usage-card section")
    for nth, (_, level, says) in enumerate(CARDS):
        assert says in re.sub(r"\s+", " ", drawn.nth(nth).inner_text())
        assert drawn.nth(nth).get_attribute("data-level") == level
    assert not [url for url in requests if "/usage/current" in url]


def test_properties_are_attributes_in_camel_case(visit):
    """Set one after another, they are drawn together; undefined gives the card back to the API."""
    page = visit().show(card(used=1, limit=10))
    page.evaluate("""() => Object.assign(document.querySelector("api-usage-card"),
        {used: 12345, limit: null, warningThreshold: 50, strings: {unlimited: "no end"}})""")
    page.get_by_text("no end").wait_for()
    assert "12,345" in text_of(page)
    assert page.evaluate("document.querySelector('api-usage-card').warningThreshold") == 50


def test_text_is_read_of_properties_too(visit):
    """React sets `used="842"` as a property: it is what the attribute would be, and named when it cannot be used."""
    page = visit().show(card(used=1, limit=10))
    page.evaluate("""() => Object.assign(document.querySelector("api-usage-card"),
        {used: "842", limit: "1000", warningThreshold: "50", strings: '{"warning": "careful"}'})""")
    page.get_by_text("careful").wait_for()
    assert "842 of 1,000" in text_of(page)
    page.evaluate("() => { document.querySelector('api-usage-card').used = '1e3' }")
    page.get_by_text("used cannot be 1e3.").wait_for()


def test_numbers_are_those_of_the_pages_language(visit):
    """The nearest `lang` counts, not the browser's."""
    page = visit().show(f'<div lang="de">{card(used=1234567, limit=2000000)}</div>')
    assert "1.234.567" in text_of(page)
    assert "61\N{NO-BREAK SPACE}%" in page.locator("[part=badge]").inner_text()


def test_upgrades_are_offered_to_those_who_care(visit):
    """A button once somebody listens, a link where there is an address; the event says about what."""
    page = visit().show(card(used=90, limit=100))
    upgrade = page.locator("api-usage-card [part=upgrade]")
    assert upgrade.count() == 0
    page.evaluate("""() => {
        const card = document.querySelector("api-usage-card");
        window.heard = [];
        window.hear = (event) => { window.heard.push(event.detail); event.preventDefault(); };
        card.addEventListener("upgrade", window.hear);
    }""")
    upgrade.click()
    assert page.evaluate("heard") == [{"meter": "api", "used": 90, "limit": 100}]
    page.evaluate("document.querySelector('api-usage-card').upgradeUrl = '/upgrade/'")
    page.locator("a[part=upgrade]").click()
    assert page.evaluate("heard.length") == 2  # and prevented that the link was followed
    page.evaluate("""() => {
        const card = document.querySelector("api-usage-card");
        card.removeEventListener("upgrade", window.hear);
        card.upgradeUrl = undefined;
    }""")
    upgrade.wait_for(state="detached")


def test_who_listens_to_a_dashboard_hears_of_its_cards(visit):
    """They have a button then, and none before."""
    page = visit("bob").show("<usage-dashboard meters='api'></usage-dashboard>")
    page.locator("api-usage-card [part=badge]").wait_for()
    assert page.locator("[part=upgrade]").count() == 0
    page.evaluate("""() => document.querySelector("usage-dashboard")
        .addEventListener("upgrade", ({detail}) => { window.heard = detail })""")
    page.locator("[part=upgrade]").click()
    assert page.evaluate("heard") == {"meter": "api", "used": 842, "limit": 1000}


def test_a_dashboard_has_all_meters_unless_some_are_named(visit):
    """Named in any order, between commas or spaces; an empty attribute names none."""
    for named, count in [("", 2), (" tokens ", 1), ("tokens,api", 2)]:
        page = visit("bob").show(f"<usage-dashboard meters='{named}'></usage-dashboard>")
        page.locator("[role=slider]").nth(count - 1).wait_for()
        assert page.locator("api-usage-card").count() == count


def test_a_dashboard_exports_the_parts_of_its_children(visit):
    """All that they are ever made of, so that a host can style them from outside."""
    page = visit("bob").show("<usage-dashboard></usage-dashboard>")
    page.evaluate("() => document.querySelector('usage-dashboard').addEventListener('upgrade', () => {})")
    page.locator("[part=upgrade]").first.wait_for()
    page.locator("[role=slider]").nth(1).wait_for()
    children = page.evaluate("""() => {
        const dashboard = document.querySelector("usage-dashboard").shadowRoot;
        return [...dashboard.querySelectorAll("[exportparts]")].map((child) => [
            child.getAttribute("exportparts"),
            [...child.shadowRoot.querySelectorAll("[part]")].map(({part}) => part.value),
        ]);
    }""")
    for exported, there in children:
        assert {*" ".join(there).split()} <= {*exported.split(",")}
        assert {"error", "retry", "skeleton", "line", "mark", "area", "empty", "upgrade"} <= {*exported.split(",")}


def test_a_client_object_feeds_a_card(visit):
    """Whatever has the two methods."""
    page = visit().show(CARD)
    page.evaluate("""() => { document.querySelector("api-usage-card").client = {
        getUsage: async () => ({organization: 1, plan: "pro", features: {}, warning_threshold: 10,
            meters: {api: {used: 11, limit: 100, resets_at: null}}}),
    } }""")
    page.get_by_text("Getting close to the limit").wait_for()
    assert "No automatic reset" in text_of(page)


def test_a_client_that_answers_nonsense_is_no_endless_skeleton(visit):
    """Nor is one that throws, or one that lacks the method."""
    page = visit().show(CARD)
    for client in ("{getUsage: async () => ({})}", "{getUsage: () => { throw new Error() }}", "{}"):
        page.evaluate(f"() => {{ document.querySelector('api-usage-card').client = {client} }}")
        page.get_by_text("Usage cannot be shown right now.").wait_for()
        page.locator("[aria-busy]").wait_for(state="detached")


def test_a_client_that_never_answers_is_no_endless_skeleton(visit):
    """After 15 seconds it is as good as no connection."""
    window = visit()
    window.page.clock.install()
    page = window.show("<p></p>")
    page.evaluate("""() => {
        const card = document.createElement("api-usage-card");
        card.client = {getUsage: () => new Promise(() => {})};
        document.querySelector("p").append(card);
    }""")
    page.locator("[aria-busy]").wait_for()
    page.clock.fast_forward(15_000)
    page.get_by_text("There is no connection.").wait_for()
    assert page.locator("[part=retry]").is_visible()


def test_a_skeleton_until_the_answer_comes(visit):
    """And it is said to be busy."""
    page = visit().show(CARD)
    page.evaluate("() => { document.querySelector('api-usage-card').client = {getUsage: () => new Promise(() => {})} }")
    page.locator("api-usage-card [aria-busy=true][aria-label='Loading…']").wait_for()


# -- features ----------------------------------------------------------------------------------------------------------


def test_features_are_drawn_from_attributes(visit):
    """Labelled ones first; what only has a label is not included."""
    features = json.dumps({"seats": 2500, "export": True, "support": "<i>phone", "beta": False})
    labels = json.dumps({"sso": "Single sign-on", "seats": "Seats"})
    page = visit().show(f"<feature-access-card features='{features}' feature-labels='{labels}'></feature-access-card>")
    assert page.locator("feature-access-card li").all_inner_texts() == [
        "Single sign-on\nNot included",
        "Seats\n2,500",
        "export\nIncluded",
        "support\n<i>phone",
        "beta\nNot included",
    ]


# -- charts ------------------------------------------------------------------------------------------------------------


def chart(attributes="", points=POINTS):
    """Return the HTML of a chart that has data."""
    return f"<usage-history-chart {attributes} data='{json.dumps(points)}'></usage-history-chart>"


def test_a_chart_is_drawn_from_its_data(visit):
    """Sum, trend and shape; a date is the one that is written, wherever the browser is."""
    page = visit(timezone_id="Pacific/Apia").show(chart("chart-type='area'"))
    assert "API requests over time Up" in text_of(page, "usage-history-chart")
    assert "4,650 requests" in text_of(page, "usage-history-chart")
    assert page.locator("path[part=area]").count() == page.locator("path[part=line]").count() == 1
    assert page.get_by_role("slider").get_attribute("aria-valuetext") == "Mar 30, 2026: 300"


def test_data_that_is_none_is_named(visit):
    """An error, not an empty chart."""
    wrong = ["[{}]", "7", '[{"start": "x", "end": "y", "used": 1}]', "[{]"]
    page = visit().show("".join(f"<usage-history-chart data='{points}'></usage-history-chart>" for points in wrong))
    drawn = page.locator("usage-history-chart section").all_inner_texts()
    assert [text.partition(" be")[0] for text in drawn] == ["data cannot"] * 4


def test_no_usage_is_said(visit):
    """Instead of a flat line; no points at all are the same."""
    page = visit().show(chart(points=[]) + chart(points=[{**POINTS[0], "used": 0}]))
    assert page.get_by_text("Nothing was used in this time.").count() == 2


def test_more_than_ninety_points_are_added_up(visit):
    """Never more than 90 marks, and nothing is lost."""
    points = [
        {"start": f"20{year:02}-{month:02}-01T00:00:00Z", "end": f"20{year:02}-{month:02}-28T00:00:00Z", "used": 1}
        for year in range(10, 26)
        for month in range(1, 13)
    ]
    page = visit().show(chart("chart-type='bar'", points))
    assert int(page.get_by_role("slider").get_attribute("aria-valuemax")) <= 90
    assert "192 requests" in text_of(page, "usage-history-chart")


def test_the_keyboard_reads_the_chart(visit):
    """It is a slider: arrows, Home and End move, Escape hides the tooltip."""
    page = visit().show(chart())
    slider, tip = page.get_by_role("slider"), page.locator("[part=tooltip]")
    page.keyboard.press("Tab")
    assert tip.inner_text() == "Mar 30, 2026: 300"
    page.keyboard.press("ArrowLeft")
    assert (tip.inner_text(), slider.get_attribute("aria-valuenow")) == ("Mar 29, 2026: 290", "29")
    page.keyboard.press("Home")
    assert slider.get_attribute("aria-valuetext") == "Mar 1, 2026: 10"
    page.keyboard.press("ArrowLeft")
    assert tip.inner_text() == "Mar 1, 2026: 10"
    page.keyboard.press("End")
    assert tip.inner_text() == "Mar 30, 2026: 300"
    page.keyboard.press("Escape")
    assert not tip.is_visible()


def test_the_pointer_reads_the_chart(visit):
    """What it points at is said, within the chart, until it leaves."""
    page = visit().show(chart())
    box = page.get_by_role("slider").bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 50)
    assert page.locator("[part=tooltip]").inner_text() == "Mar 1, 2026: 10"
    tip = page.locator("[part=tooltip]").bounding_box()
    assert tip["x"] >= box["x"]
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 50)
    assert page.locator("[part=tooltip]").inner_text() == "Mar 30, 2026: 300"
    tip = page.locator("[part=tooltip]").bounding_box()
    assert tip["x"] + tip["width"] <= box["x"] + box["width"] + 1
    page.mouse.move(0, 0)
    assert not page.locator("[part=tooltip]").is_visible()


def test_a_finger_reads_the_chart(visit):
    """What was tapped is said until something else is."""
    page = visit(has_touch=True).show(chart() + "<button>Elsewhere</button>")
    box = page.get_by_role("slider").bounding_box()
    page.touchscreen.tap(box["x"] + 2, box["y"] + 50)
    assert page.locator("[part=tooltip]").inner_text() == "Mar 1, 2026: 10"
    assert page.locator("[part=tooltip]").get_attribute("dir") == "auto"  # the plot's is ltr, whatever the language
    page.get_by_role("button", name="Elsewhere").tap()
    page.locator("[part=tooltip]").wait_for(state="hidden")


def test_range_and_type_switch_live(visit):
    """Other points and another shape at once; the button keeps the focus, and an event says what was chosen."""
    page = visit("bob").show("<usage-history-chart time-range-controls chart-type-controls></usage-history-chart>")
    slider = page.get_by_role("slider")
    page.evaluate("""() => { window.heard = []; for (const type of ["time-range-change", "chart-type-change"])
        document.addEventListener(type, (event) => window.heard.push([type, event.detail])) }""")
    assert slider.get_attribute("aria-valuemax") == "30"
    for label, count in [("7 days", "7"), ("90 days", "90"), ("1 year", "53"), ("All", "1")]:
        page.get_by_role("button", name=label).click()
        page.locator(f"[role=slider][aria-valuemax^='{count}']").wait_for()
        assert page.get_by_role("button", name=label).get_attribute("aria-pressed") == "true"
    assert page.evaluate("document.activeElement.shadowRoot.activeElement.textContent") == "All"
    page.get_by_role("button", name="Bar").click()
    page.locator("path[part=mark]").wait_for()
    assert page.evaluate("heard") == [
        ["time-range-change", "7d"],
        ["time-range-change", "90d"],
        ["time-range-change", "1y"],
        ["time-range-change", "all"],
        ["chart-type-change", "bar"],
    ]


# -- looks -------------------------------------------------------------------------------------------------------------

ALL = (
    card(**{"used": 42, "limit": 100, "upgrade-url": "/"})
    + card(**{"used": 85, "limit": 100, "upgrade-url": "/"})
    + card(**{"used": 950, "limit": 1000, "upgrade-url": "/"})
    + card(used=150, limit=100)
    + card(used=0, limit=0)
    + card(used=7)
    + card(used="x")
    + card(used=2**53 - 1, limit=2**53 - 1)
    + card(used=2**53 - 1, limit=1, meter="a" * 64)
    + """<feature-access-card features='{"a": true, "b": false}'></feature-access-card>"""
    + chart("time-range-controls chart-type-controls time-range='30d'")
    + chart("chart-type='bar'")
    + CARD  # nobody is signed in: an error, and a button to try again
)


@pytest.mark.parametrize(
    "look",
    [{}, {"color_scheme": "dark"}, {"locale": "ar"}, {"viewport": {"width": 320, "height": 700}}],
    ids=["light", "dark", "RTL", "320 px"],
)
def test_every_state_is_accessible(visit, look):
    """axe-core finds nothing, and nothing is wider than the window."""
    window = visit(**look)
    page = window.show(ALL)
    page.get_by_role("button", name="Try again").wait_for()
    window.check_accessibility()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_dark_is_the_pages_choice_or_the_systems(visit):
    """`:root.dark` is dark in a light system; a custom property is the host's own colour."""
    background = (
        "getComputedStyle(document.querySelector('api-usage-card').shadowRoot.querySelector('section')).backgroundColor"
    )
    assert visit().show(card(used=1)).evaluate(background) == "rgb(255, 255, 255)"
    assert visit(color_scheme="dark").show(card(used=1)).evaluate(background) == "rgb(23, 26, 33)"
    page = visit().show(card(used=1), root="dark")
    page.evaluate("document.querySelector('link[rel=stylesheet]').remove()")  # the module alone is enough
    assert page.evaluate(background) == "rgb(23, 26, 33)"
    page.evaluate("document.documentElement.style.setProperty('--usage-surface', 'rgb(1, 2, 3)')")
    assert page.evaluate(background) == "rgb(1, 2, 3)"


def test_nothing_moves_for_those_who_want_it_still(visit):
    """The skeleton does not pulse under reduced motion."""
    animation = """() => { const card = document.querySelector("api-usage-card");
        card.client = {getUsage: () => new Promise(() => {})};
        return new Promise((resolve) => setTimeout(() => resolve(
            getComputedStyle(card.shadowRoot.querySelector("i")).animationName))) }"""
    assert visit().show(CARD).evaluate(animation) == "pulse"
    assert visit(reduced_motion="reduce").show(CARD).evaluate(animation) == "none"
