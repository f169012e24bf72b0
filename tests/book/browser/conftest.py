"""Fixtures of the browser's tests: the site on localhost, one Chromium, and one context for each way of loading a page."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from looking import LOADED, MODES, SITE, browsing, serving  # noqa: E402


@pytest.fixture(scope="session")
def site():
    with serving(SITE) as address:
        yield address


@pytest.fixture(scope="session")
def browser():
    with browsing() as started:
        yield started


@pytest.fixture(scope="session")
def contexts(browser):
    """One browser context for each way of loading a page."""
    opened = {name: browser.new_context(**MODES[name]) for name in LOADED}
    for context in opened.values():
        context.set_default_timeout(10_000)
        context.set_default_navigation_timeout(60_000)
    yield opened
    for context in opened.values():
        context.close()
