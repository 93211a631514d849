"""The admin in a real browser: under a strict policy, by keyboard, for a screen reader, in both directions."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.admin.utils import quote
from django.urls import reverse

from tests.factories import Organization, OrganizationFactory
from usage_tracking.entitlements import update_limits
from usage_tracking.metering import adjust, consume, usage_of
from usage_tracking.resets import reset

pytestmark = pytest.mark.django_db(transaction=True)

POLICY = "default-src 'self'"
PREFIX = f"admin:{Organization._meta.app_label}_organization"
IS_STOCK = settings.MODEL_ADMIN.startswith("django.")

RECORDS = ("period", "history", "event")

AXE = (
    Path(find_spec("axe_playwright_python").origin).with_name("axe.min.js")
    if find_spec("axe_playwright_python")
    else None
)


class Policy:
    """Sends the policy with every page."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        response = self.get_response(request)
        if IS_STOCK:  # unfold's own pages need more
            response["Content-Security-Policy"] = POLICY
        return response


@pytest.fixture
def bolt(configure):
    """An organization near its limit, among others in each state."""
    configure(
        METERS={"api": {"label": "API requests"}, "tokens": {"label": "Tokens"}},
        PLANS={"free": {"features": {"export": False, "seats": 2}}, "pro": {"limits": {"api": 5000}}},
    )
    for limit, used in ((1000, 10), (1000, 1000), (1000, 1200), (0, 0), (None, 7)):
        organization = OrganizationFactory()
        update_limits(organization, limits={"api": limit})
        adjust(organization, used=used)
    bolt = OrganizationFactory(name="Bolt Robotics")
    adjust(bolt, used=900)
    return bolt


@pytest.fixture
def visit(browser, live_server, settings, client, admin_user, bolt):
    """Open a page as a superuser; in the end nothing may have offended the policy."""
    settings.MIDDLEWARE = [f"{__name__}.Policy", *settings.MIDDLEWARE]
    client.force_login(admin_user)
    contexts, offences = [], []

    def visit(path, *, scheme="light", width=1280):
        context = browser.new_context(
            base_url=live_server.url, color_scheme=scheme, viewport={"width": width, "height": 800}
        )
        contexts.append(context)
        context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": live_server.url}])
        page = context.new_page()
        page.on("console", lambda message: offences.append(message.text) if "Security Policy" in message.text else None)
        page.on("pageerror", lambda error: offences.append(str(error)))
        assert page.goto(path).ok
        return page

    yield visit
    for context in contexts:
        context.close()
    if IS_STOCK:
        assert offences == []


def addresses(bolt):
    """The pages we render, or render into."""
    key = quote(bolt.pk)
    return {
        "list": reverse(f"{PREFIX}_changelist"),
        "change": reverse(f"{PREFIX}_change", args=[key]),
        "limits": reverse(f"{PREFIX}_usage", args=[key, "limits"]),
        "reset": reverse(f"{PREFIX}_usage", args=[key, "reset"]),
        "happened": reverse("admin:usage_tracking_usageevent_change", args=[bolt.usage_events.latest("pk").pk]),
        **{name: reverse(f"admin:usage_tracking_usage{name}_changelist") for name in RECORDS},
    }


def violations(page):
    """What axe-core finds in our parts of the page (Django's and unfold's own are theirs to mend)."""
    page.evaluate(AXE.read_text())  # not a <script>: the policy would refuse it
    found = page.evaluate(
        "async () => document.querySelector('.usage') ? (await axe.run({include: [['.usage']]})).violations : []"
    )
    return [(violation["id"], [node["html"][:200] for node in violation["nodes"]]) for violation in found]


@pytest.mark.parametrize(("scheme", "language"), [("light", "en"), ("dark", "ar")])
def test_axe_finds_nothing(visit, bolt, settings, scheme, language):
    """On every page of ours, light and dark, from left to right and from right to left."""
    settings.LANGUAGE_CODE = language
    found = {}
    for name, path in addresses(bolt).items():
        page = visit(path, scheme=scheme)
        assert page.evaluate("document.documentElement.dir || 'ltr'") == ("rtl" if language == "ar" else "ltr")
        if name not in RECORDS:
            assert page.locator(".usage").count()
        if bad := violations(page):
            found[name] = bad
    page = visit(addresses(bolt)["limits"], scheme=scheme)
    page.locator("#id_number-api").fill("-1")
    page.locator("[value=review]").click()
    assert page.locator(".usage-errors").count()
    if bad := violations(page):
        found["errors"] = bad
    assert found == {}


@pytest.mark.parametrize("name", ["list", "change", "limits", "reset"])
def test_nothing_sticks_out_of_a_narrow_window(visit, bolt, name):
    """At 360 pixels our parts stay within the page or scroll by themselves."""
    page = visit(addresses(bolt)[name], width=360)
    assert page.evaluate(
        """() => [...document.querySelectorAll('.usage-page, .usage-panel')]
            .every(element => element.scrollWidth <= element.clientWidth + 1)"""
    )


@pytest.mark.parametrize("language", ["en", "de"])
@pytest.mark.parametrize("name", RECORDS)
def test_records_fit_a_window_of_1280_pixels(visit, bolt, settings, name, language):
    """Between the admin's own bars no column is cut off, however many numbers and words a row has."""
    settings.LANGUAGE_CODE = language
    consume(bolt, 1_000_000)
    update_limits(bolt, limits={"api": None}, reason="A reason of several words, as people do write them. " * 5)
    adjust(bolt, used=1_234_567)
    reset(bolt)
    page = visit(addresses(bolt)[name])
    assert page.evaluate(
        "() => { const list = document.querySelector('#result_list').parentElement;"
        " return list.scrollWidth <= list.clientWidth; }"
    )


def test_limits_are_changed_by_keyboard_alone(visit, bolt):
    """From the organization's page through form and confirmation, without a pointer."""
    page = visit(addresses(bolt)["change"])
    page.locator(".usage-button").first.focus()
    page.keyboard.press("Enter")
    page.locator("#id_limit-api").wait_for()
    page.locator("#id_limit-api").focus()
    page.keyboard.type("this number")
    page.keyboard.press("Tab")
    page.keyboard.type("2500")
    page.locator("#id_reason").focus()
    page.keyboard.type("They have grown.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator(".usage-steps").wait_for()
    assert page.locator(".usage-steps tbody tr").all_inner_texts() == [
        "Limit: API requests\t1,000\tthe settings\t2,500\tthis organization"
    ]
    page.keyboard.press("Escape")
    page.locator("[value=confirm]").focus()
    page.keyboard.press("Enter")
    page.locator(".usage-panel").wait_for()
    assert "900 of 2,500" in page.inner_text(".usage-panel")
    assert usage_of(bolt).limit == 2500


def test_the_states_differ_without_colour(visit, bolt):
    """Each has words and a shape of its own."""
    page = visit(addresses(bolt)["list"])
    states = page.locator(".usage-state").all()
    shapes = {state.inner_text(): state.locator("svg").inner_html() for state in states}
    assert {"near the limit", "limit reached", "200 over the limit"} <= set(shapes)
    assert len({shapes[words] for words in ("near the limit", "limit reached", "200 over the limit")}) == 3
