"""A page in React, bundled from the packages of npm for this test only."""

import os
import re
import subprocess

import pytest

from tests.browser.conftest import CHECKOUT


@pytest.fixture
def bundled(site):
    """Bundle the page as a host's build step would."""
    folder = CHECKOUT / "tests" / "js"
    command = [folder / "node_modules" / ".bin" / "esbuild", "react-page.jsx", "--bundle", "--format=esm"]
    options = ["--jsx=automatic", '--define:process.env.NODE_ENV="production"', f"--outfile={site['react']}"]
    # The module lies outside of the folder that has the packages.
    environment = os.environ | {"NODE_PATH": str(folder / "node_modules")}
    subprocess.run([*command, *options], cwd=folder, env=environment, check=True, capture_output=True)


def test_stores_and_elements_work_in_react(visit, bundled):
    """`useStore` follows the store, also of a computed one; properties and the event pass through React."""
    page = visit("eve").open("/react/")
    remaining, card = page.locator("#remaining"), page.locator("api-usage-card section")
    assert remaining.inner_text() == "nothing yet"
    page.get_by_role("button", name="Fetch").click()
    page.locator("#remaining").filter(has_text=re.compile("^0$")).wait_for()
    assert card.get_attribute("data-level") == "normal"
    page.get_by_role("button", name="Use").click()
    card.filter(has_text="80%").wait_for()
    assert card.get_attribute("data-level") == "warning"
    page.get_by_role("button", name="Upgrade").click()
    page.locator("#upgrades").filter(has_text="1").wait_for()
    page.context.clear_cookies()
    page.get_by_role("button", name="Fetch").click()
    page.locator("#remaining").filter(has_text="credentials").wait_for()
