"""Elements and API together: usage moves, the network fails, people sign out."""

import re
from datetime import UTC, datetime, timedelta

import pytest

CARD = "<api-usage-card refresh-seconds='5'></api-usage-card>"
NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
DASHBOARD = "<usage-dashboard refresh-seconds='5'></usage-dashboard>"


def says(page, text):
    """Wait until a card says so."""
    page.locator("api-usage-card section").filter(has_text=re.compile(text)).first.wait_for()


def send_requests(page, count):
    """Call the example's API as the page's user, and return the last status."""
    for _ in range(count):
        status = page.context.request.get(page.url.split("/playground")[0] + "/api/forecast/").status
    return status


def act_as_manager(page, site, method, path, **data):
    """Do something as the administrator, with a session and a token of their own."""
    browser = page.context.browser.new_context()
    session = site["users"]["admin"]["session"]
    browser.add_cookies([{"name": "sessionid", "value": session, "url": site["url"]}])
    other = browser.new_page()
    other.goto(f"{site['url']}/")
    answer = other.evaluate(
        """async ({method, path, data}) => {
            const token = document.querySelector("[name=csrfmiddlewaretoken]").value;
            const headers = {"X-CSRFToken": token, "Content-Type": "application/json"};
            return (await fetch(path, {method, headers, body: JSON.stringify(data)})).status;
        }""",
        {"method": method, "path": path, "data": data},
    )
    browser.close()
    return answer


def test_a_card_goes_from_79_percent_to_refused(visit):
    """Real requests are sent meanwhile; the card follows by itself, with a level for each state."""
    page = visit("ada").show(CARD)
    says(page, "79%")
    assert page.locator("section[data-level=normal]").count() == 1
    send_requests(page, 1)
    says(page, "80%.*Getting close")
    assert send_requests(page, 20) == 200
    assert send_requests(page, 1) == 429
    says(page, "100 of 100 requests.*Limit reached")
    assert page.locator("section[data-level=exceeded]").count() == 1


def test_a_manager_resets_and_the_card_follows(visit, site):
    """A reset in another session is seen at the next refresh."""
    page = visit("rita").show(CARD)
    says(page, "95 of 100")
    organization = site["users"]["rita"]["organization"]
    path = f"/usage/organizations/{organization}/reset/"
    assert act_as_manager(page, site, "POST", path, reason="goodwill") == 200
    says(page, "0 of 100")


def test_elements_survive_the_network(visit):
    """What was seen stays, with a word about it; connected again, they recover without a click."""
    page = visit("olga").show(CARD + "<usage-history-chart></usage-history-chart>")
    says(page, "10 of 100")
    page.context.set_offline(True)
    page.get_by_text("This is not up to date. There is no connection.").first.wait_for()
    assert "10 of 100" in page.locator("api-usage-card").locator("section").first.inner_text().replace("\n", " ")
    send_requests(page, 1)
    page.context.set_offline(False)
    says(page, "11 of 100")
    page.get_by_text("This is not up to date.").first.wait_for(state="detached")


def test_a_server_that_is_down_is_tried_again(visit):
    """An error with a button, never an endless skeleton; one click brings all elements back."""
    window = visit("olga")
    window.page.route("**/usage/**", lambda route: route.fulfill(status=502, body="<h1>Bad gateway"))
    page = window.show("<api-usage-card></api-usage-card><feature-access-card></feature-access-card>")
    page.get_by_text("Usage cannot be shown right now.").nth(1).wait_for()
    page.unroute("**/usage/**")
    page.get_by_role("button", name="Try again").first.click()
    page.get_by_text("Try again").first.wait_for(state="detached")
    says(page, "of 100")
    page.locator("feature-access-card li").first.wait_for()


def test_who_signs_out_sees_nothing_any_more(visit):
    """401 is said as such, and the numbers are gone."""
    page = visit("sam").show(DASHBOARD)
    says(page, "10 of 100")
    page.context.clear_cookies()
    page.get_by_text("Sign in to see the usage.").first.wait_for()
    assert "10 of 100" not in page.locator("main").inner_text()


def test_another_organization_does_not_exist(visit, site):
    """404 is said as such, for another's as for one that there is not."""
    for key in (site["users"]["ada"]["organization"], 999_999):
        page = visit("bob").show(f"<usage-dashboard organization='{key}'></usage-dashboard>")
        page.get_by_text("There is no such organization.").wait_for()


def test_who_has_chosen_no_organization_is_told_by_the_api(visit):
    """Its words are shown."""
    page = visit("dora").show("<api-usage-card></api-usage-card>")
    page.locator("[part=error]").wait_for()
    assert "organization" in page.locator("[part=error]").inner_text()


def test_elements_share_their_requests_and_ask_at_most_every_five_seconds(visit):
    """A dashboard is one request for usage, and showing the tab again and again adds none."""
    window = visit("bob")
    asked = []
    window.page.on("request", lambda request: asked.append(request.url))
    page = window.show("<usage-dashboard></usage-dashboard><api-usage-card></api-usage-card>")
    page.locator("[role=slider]").nth(1).wait_for()
    page.evaluate("for (let n = 0; n < 9; n++) document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_load_state("networkidle")
    # For the two histories the active organization is looked up: that it is the same may not be known yet.
    assert len([url for url in asked if url.endswith("/usage/current/")]) <= 3
    assert len([url for url in asked if "/history/" in url]) == 2


def still(window):
    """Open a page whose clock goes on when it is told to."""
    window.page.clock.install(time=NOW)
    page = window.show("<p></p>")
    page.clock.pause_at(NOW + timedelta(hours=1))
    return page


COUNTED = """() => {
    window.asked = 0;
    const card = document.createElement("api-usage-card");
    card.client = {getUsage: async () => ({plan: "pro", meters: {api: {used: ++asked, limit: 9, resets_at: null}}})};
    document.querySelector("p").append(card);
    window.card = card;
}"""


def test_it_refreshes_in_a_page_that_is_never_still(visit):
    """A host that sets properties again and again, as React does, does not put the next refresh off."""
    page = still(visit())
    page.evaluate(COUNTED)
    page.evaluate("() => { card.refreshSeconds = 1 }")
    says(page, "1 of 9")
    for _ in range(6):
        page.evaluate("() => { card.strings = {} }")
        page.clock.run_for(1_000)
    assert page.evaluate("asked") == 2
    says(page, "2 of 9")


@pytest.mark.parametrize("event", ["usage-changed", "visibilitychange"])
def test_what_changes_after_an_answer_is_asked_for_all_the_same(visit, event):
    """The host says so, or the tab is shown again: they ask once more, but not within five seconds."""
    page = still(visit())
    page.evaluate(COUNTED)
    says(page, "1 of 9")
    for _ in range(3):
        page.evaluate("(event) => document.dispatchEvent(new Event(event))", event)
        page.clock.run_for(1_000)
    assert page.evaluate("asked") == 1
    page.clock.run_for(5_000)
    says(page, "2 of 9")
    page.clock.run_for(60_000)
    assert page.evaluate("asked") == 2


def test_an_error_names_what_is_wrong(visit):
    """Of an answer that has `errors`, these are shown."""
    page = visit("bob").show("<usage-history-chart meter='nope'></usage-history-chart>")
    page.get_by_text("There is no meter “nope”.").wait_for()


def test_another_cookie_is_not_the_token(visit, site):
    """Whatever its name ends with."""
    page = visit().show("<p></p>")
    sent = page.evaluate("""async () => {
        document.cookie = "site_csrftoken=theirs; path=/";
        document.cookie = "csrftoken=ours; path=/";
        const {createUsageClient} = await import(document.querySelector("script[type=module]").src);
        let sent;
        const fetch = async (_, options) => { sent = options.headers["X-CSRFToken"]; return Response.json({}) };
        await createUsageClient({fetch}).resetUsage({organization: 1});
        return sent;
    }""")
    assert sent == "ours"


def test_the_client_of_the_page_changes_limits(visit, site):
    """With the page's CSRF token; the elements follow at once; a stale `ifMatch` is a conflict."""
    window = visit("admin")
    key = site["users"]["carol"]["organization"]
    page = window.open("/")
    module = page.evaluate(
        """async () => {
            const html = await (await fetch("/live/")).text();
            return /src="([^"]*usage-tracking[^"]*)"/.exec(html)[1];
        }"""
    )
    outcome = page.evaluate(
        """async ([module, organization]) => {
            const {createUsageClient} = await import(module);
            const client = createUsageClient();
            const card = document.createElement("api-usage-card");
            card.organization = organization;
            document.querySelector("main").append(card);
            const {etag} = await client.getLimits({organization});
            const set = (api, more) => client.updateLimits({organization, limits: {api}, ...more});
            const changed = await set(9000, {ifMatch: etag, reason: "contract"});
            const again = await set(1, {ifMatch: etag}).catch((error) => error);
            const wrong = await set(-1).catch((error) => error);
            return [changed.limits, again.name, again.status, wrong.name, Object.keys(wrong.errors)];
        }""",
        [module, key],
    )
    assert outcome == [{"api": 9000}, "ConflictError", 412, "InvalidInputError", ["limits.api"]]
    says(page, "8,236 of 9,000")


@pytest.mark.parametrize("path", ["/dashboard/", "/live/", "/"])
def test_pages_of_the_example_say_the_same(visit, path):
    """Whoever draws it: the page, the elements and the home page show the same number."""
    page = visit("eve").open(path)
    page.get_by_text("25 over the limit").first.wait_for()
