"""The pictures of the manual: `python -m tests.browser.screenshots` takes them anew, into docs/images.

Look at them before you commit them.
"""

import json
import os
import subprocess
import sys
import tempfile
from itertools import product
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
LOOKS = {
    "": {"viewport": WIDE},
    "-dark": {"viewport": WIDE, "color_scheme": "dark"},
    "-rtl": {"viewport": WIDE, "locale": "ar"},
    "-phone": {"viewport": PHONE},
}
SHOTS = {
    # name: path, part of the page (None: all), as wide as that where there is room
    "dashboard": ("/dashboard/?type=area", None, 1000),
    "usage-dashboard": ("/live/", "usage-dashboard", 1000),
    "api-usage-card": (f"/playground/?{urlencode({'body': CARDS_TOGETHER})}", "#cards", 380),
    "feature-access-card": (f"/playground/?{urlencode({'body': FEATURES})}", "feature-access-card", 420),
    "usage-history-chart": (f"/playground/?{urlencode({'body': CHART})}", "usage-history-chart", 1000),
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
        for (name, (path, part, width)), (look, options) in product(SHOTS.items(), LOOKS.items()):
            viewport = {**options["viewport"], "width": min(width, options["viewport"]["width"])}
            context = browser.new_context(reduced_motion="reduce", **{**options, "viewport": viewport})
            session = site["users"]["bob"]["session"]
            context.add_cookies([{"name": "sessionid", "value": session, "url": site["url"]}])
            page = context.new_page()
            page.goto(site["url"] + path)
            page.wait_for_load_state("networkidle")
            target = PICTURES / f"{name}{look}.png"
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
