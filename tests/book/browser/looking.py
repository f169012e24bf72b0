"""The built site, served on localhost, and the browser that looks at it.

`BOOK_SITE` names the site's folder (else `_build/html`), `BOOK_ROOT` the folder of its sources (else the repository).
"""

import os
import shutil
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(os.environ.get("BOOK_ROOT") or Path(__file__).parents[3]).resolve()
SITE = Path(os.environ.get("BOOK_SITE") or ROOT / "_build/html").resolve()

MODES = {
    "light": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light", "is_mobile": True, "has_touch": True},
}

# How a page is loaded, and how that load is looked at: a page that is there in light takes the dark colours by itself.
LOADED = {"light": ("light", "dark"), "phone": ("phone",)}

# Everything that a reader can open, opened, for what is hidden is not checked; and at once, for half faded in is too pale.
OPEN_ALL = """() => {
    document.head.append(Object.assign(document.createElement("style"),
        {textContent: "*, ::before, ::after {animation: none !important; transition: none !important}"}));
    document.querySelectorAll("details").forEach(box => box.open = true);
    document.querySelectorAll("button.toggle-button-hidden").forEach(button => button.click());
}"""


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@contextmanager
def serving(folder: Path):
    """Serve ``folder`` on localhost; gives the address."""
    if not (folder / "index.html").is_file():
        raise FileNotFoundError(f"there is no site in {folder}: build the book first (make book), or set BOOK_SITE")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def browsing():
    """A headless Chromium that can reach nothing but this machine."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise FileNotFoundError("Chromium is missing: install it (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        # As root Chromium has no sandbox; no name but this address is resolved.
        browser = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        )
        try:
            yield browser
        finally:
            browser.close()


def visit(page, address: str) -> None:
    """Load a page, wait until its formulas are typeset and its fonts are there, and open every box on it."""
    answer = page.goto(address)
    if answer.status >= 400:
        raise FileNotFoundError(f"{address} answers {answer.status}: the page is not in the site")
    page.evaluate("() => window.MathJax?.startup?.promise")
    page.evaluate(OPEN_ALL)
    page.evaluate("() => document.fonts.ready.then(() => true)")
