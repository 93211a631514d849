"""A real browser, where the machine has one."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.chromium import CHROMIUM, FLAGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser


@pytest.fixture(scope="module", autouse=True)
def _async_unsafe() -> Iterator[None]:
    """Let tests use the database: Playwright keeps an event loop in their thread, though nothing runs in it."""
    before = os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    yield
    if before is None:
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture(scope="module")  # its event loop must not outlive it
def browser() -> Iterator[Browser]:
    """Chromium, driven by Playwright; skips (or fails, where services are required) without them."""
    reason = (
        "No Chromium, or no Playwright. To run these tests: `apt-get install chromium` and `pip install playwright`, "
        "or name yours in CHROMIUM=/path/to/chromium."
    )
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415 - an environment without it skips
    except ImportError:
        sync_playwright = None
    if sync_playwright is None or CHROMIUM is None or shutil.which(CHROMIUM) is None:
        if os.environ.get("USAGE_TRACKING_REQUIRE_SERVICES") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()
