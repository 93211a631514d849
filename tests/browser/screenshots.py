"""The pictures of the manual: `python -m tests.browser.screenshots` takes them anew, into docs/images.

Look at them before you commit them.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import sync_playwright

from tests.chromium import CHROMIUM, FLAGS

CHECKOUT = Path(__file__).resolve().parents[2]
PICTURES = CHECKOUT / "docs" / "images"
ARGUMENTS = [*FLAGS, "--hide-scrollbars", "--force-color-profile=srgb"]

WIDE, PHONE = {"width": 1000, "height": 700}, {"width": 320, "height": 640}
CARDS = "".join(
    f"<p><api-usage-card {attributes}></api-usage-card></p>"
    for attributes in (
        'used="421" limit="1000"',
        'used="842" limit="1000" upgrade-url="#"',
        'used="978" limit="1000" upgrade-url="#"',
        'used="1250" limit="1000" upgrade-url="#"',
        'used="5400"',
        'used="0" limit="0"',
    )
)
CARDS_TOGETHER = f'<div id="cards">{CARDS}</div>'
FEATURES = (
    """<feature-access-card features='{"export": true, "seats": 25, "support": "phone"}' """
    """feature-labels='{"export": "Export", "seats": "Seats", "support": "Support", "sso": "Single sign-on"}'>"""
    "</feature-access-card>"
)
CHART = "<usage-history-chart chart-type='bar' time-range-controls chart-type-controls></usage-history-chart>"
SHOTS = {
    # name: path, part of the page (None: all), browser
    "dashboard": ("/dashboard/?type=area", None, {"viewport": WIDE}),
    "dashboard-dark": ("/dashboard/?type=area", None, {"viewport": WIDE, "color_scheme": "dark"}),
    "dashboard-rtl": ("/dashboard/", None, {"viewport": WIDE, "locale": "ar"}),
    "dashboard-phone": ("/dashboard/", None, {"viewport": PHONE}),
    "usage-dashboard": ("/live/", "usage-dashboard", {"viewport": WIDE}),
    "usage-dashboard-phone-dark": ("/live/", None, {"viewport": PHONE, "color_scheme": "dark"}),
    "api-usage-card": (
        f"/playground/?{urlencode({'body': CARDS_TOGETHER})}",
        "#cards",
        {"viewport": {"width": 380, "height": 700}},
    ),
    "api-usage-card-dark": (
        f"/playground/?{urlencode({'body': CARDS_TOGETHER})}",
        "#cards",
        {"viewport": {"width": 380, "height": 700}, "color_scheme": "dark"},
    ),
    "feature-access-card": (
        f"/playground/?{urlencode({'body': FEATURES})}",
        "feature-access-card",
        {"viewport": {"width": 420, "height": 500}},
    ),
    "usage-history-chart": (f"/playground/?{urlencode({'body': CHART})}", "usage-history-chart", {"viewport": WIDE}),
    "usage-history-chart-rtl": (
        f"/playground/?{urlencode({'body': CHART})}",
        "usage-history-chart",
        {"viewport": WIDE, "locale": "ar", "color_scheme": "dark"},
    ),
}


def main():
    """Serve the site and take them all."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "PYTHONPATH": str(CHECKOUT),
            "EXAMPLE_DATABASE": f"{folder}/db.sqlite3",
            "STATIC_ROOT": f"{folder}/static",
        }
        command = [sys.executable, "-m", "tests.browser.serve"]
        with subprocess.Popen(command, env=environment, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as server:
            try:
                take(json.loads(server.stdout.readline()))
            finally:
                server.kill()


def take(site):
    """Take them as a member of Bolt Robotics sees them."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for name, (path, part, options) in SHOTS.items():
            context = browser.new_context(reduced_motion="reduce", **options)
            session = site["users"]["bob"]["session"]
            context.add_cookies([{"name": "sessionid", "value": session, "url": site["url"]}])
            page = context.new_page()
            page.goto(site["url"] + path)
            page.wait_for_load_state("networkidle")
            target = PICTURES / f"{name}.png"
            if part:
                if part == "usage-history-chart":
                    page.locator("[role=slider]").hover()
                page.locator(part).screenshot(path=target)
            else:
                page.screenshot(path=target, full_page=True)
            context.close()
        browser.close()


if __name__ == "__main__":
    main()
