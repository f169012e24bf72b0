"""Every page of the built site, looked at in a real browser: on a screen in light and in dark, and on a phone.

Each page is loaded once on a screen and once on a phone; the tests then ask what was seen there.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from looking import LOADED, MODES, ROOT, SITE, visit

from book import pages

PAGES = [page.name for page in pages(ROOT)]
EXECUTABLE = [page.name for page in pages(ROOT) if page.executable]
PHONE_WIDTH = MODES["phone"]["viewport"]["width"]
CODE_WIDTH = 79  # characters that need no scrolling on a screen

REPORT = {"resultTypes": ["violations"], "preload": False}  # no rule that is asked needs the style sheets fetched again
# What axe asks: everything in light; elsewhere what can be different there.
RULES = {
    "light": {},
    "dark": {"runOnly": ["color-contrast", "link-in-text-block"]},
    "phone": {"runOnly": ["scrollable-region-focusable", "button-name", "link-name", "aria-hidden-focus", "target-size"]},
}

# What a page looks like. A phone's browser widens its own window for a page that is too wide, so widths are held
# against the screen's, never against window.innerWidth.
LOOK = """(screen) => {
    const visible = e => e.checkVisibility({visibilityProperty: true}) && e.getClientRects().length > 0;
    const name = e => `<${e.tagName.toLowerCase()}${e.className ? ` class="${e.className}"` : ""}> ${e.textContent.trim().slice(0, 60)}`;
    const colour = text => (text.match(/[\\d.]+/g) || []).map(Number);
    const lightness = text => { const [r, g, b] = colour(text); return (r + g + b) / 765; };

    const raw = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode())
        if (/\\\\[()\\[\\]]|\\$\\$|\\\\begin\\{/.test(node.data) && visible(node.parentElement)
            && !node.parentElement.closest("pre, code, script, style, mjx-container"))
            raw.push(node.data.trim().slice(0, 80));

    const formulas = [...document.querySelectorAll(".math")];
    const misread = [...document.querySelectorAll("mjx-container")].filter(e =>
        e.querySelector("mjx-merror, merror, [data-mjx-error]")
        || [...e.querySelectorAll("mjx-assistive-mml mtext")].some(text => /^\\\\[A-Za-z]/.test(text.textContent)));

    const fits = e => { const box = e.getBoundingClientRect(); return box.left >= -1 && box.right <= screen + 1; };
    const overflow = e => getComputedStyle(e).overflowX;
    const cut = e => e instanceof HTMLElement && /hidden|clip/.test(overflow(e)) && e.clientWidth > 0 && e.scrollWidth > e.clientWidth + 1;
    // On the screen, or in a box that scrolls and is itself in place; and not cut off on the way.
    const inPlace = e => {
        if (fits(e) && !cut(e)) return true;
        for (let box = e.parentElement; box && box !== document.body; box = box.parentElement) {
            if (/auto|scroll/.test(overflow(box))) return inPlace(box);
            if (cut(box)) return false;
        }
        return false;
    };
    const main = document.querySelector("#main-content");
    const wide = [...main.querySelectorAll("mjx-container, pre, table, img, svg, p, dd, li, h1, h2, h3")];

    const images = [...main.querySelectorAll(".bd-article img")];
    const lines = [...main.querySelectorAll(".cell_input pre")].filter(visible);
    return {
        theme: document.documentElement.dataset.theme,
        background: lightness(getComputedStyle(document.body).backgroundColor),
        formulas: formulas.length,
        notTypeset: formulas.filter(e => !e.querySelector("mjx-container")).map(name),
        misread: misread.map(name),
        raw,
        scrollWidth: document.documentElement.scrollWidth,
        tooWide: wide.filter(e => visible(e) && !inPlace(e)).map(name),
        broken: images.filter(e => !e.complete || e.naturalWidth === 0).map(e => e.src),
        nameless: images.filter(e => !e.alt.trim()).map(e => e.src),
        onDark: images.filter(e => {
            const style = getComputedStyle(e);
            return colour(style.backgroundColor)[3] === 0 || lightness(style.backgroundColor) < 0.9 || style.filter !== "none";
        }).map(e => e.src),
        cramped: lines.filter(e => Math.max(...e.innerText.split("\\n").map(s => s.length)) <= CODE_WIDTH
                                   && e.scrollWidth > e.clientWidth).map(name),
    };
}""".replace("CODE_WIDTH", str(CODE_WIDTH))


# Code is thousands of coloured words, and formulas thousands of boxes; axe weighs each. One of each kind on each ground is
# enough: other words are made invisible, other formulas become an empty box of their width.
THIN_OUT = """() => {
    const kind = e => {
        const style = getComputedStyle(e), grounds = [];
        for (let box = e; box; box = box.parentElement) grounds.push(getComputedStyle(box).backgroundColor);
        return [e.tagName, style.color, style.fontSize, style.fontWeight, style.opacity, ...grounds].join();
    };
    const met = new Set(), again = e => met.size === met.add(kind(e)).size;
    const all = selector => [...document.querySelectorAll(selector)];
    const words = all("pre span:not(:has(*))"), formulas = all("mjx-container:has(*)");
    words.forEach(word => word.style.visibility = "");  // hidden when the page was in other colours
    const hidden = words.filter(again), emptied = formulas.filter(again).map(formula => [formula, formula.scrollWidth]);
    hidden.forEach(word => word.style.visibility = "hidden");
    for (const [formula, width] of emptied) {
        const box = document.createElement("span");
        box.style.cssText = `display: inline-block; height: 1em; width: ${width}px`;
        formula.replaceChildren(box);
    }
}"""


@dataclass
class Seen:
    """What one load of a page showed."""

    look: dict
    errors: list[str]  # in the console, and requests that failed
    elsewhere: list[str]  # requests that left this machine
    violations: list[str]  # serious and critical ones, found by axe


@pytest.fixture(scope="session")
def see(site, contexts):
    """Look at a page in one of the modes; each is loaded once on a screen, light and then dark, and once on a phone."""
    axe = Axe()

    @cache
    def load(name: str, context: str) -> dict[str, Seen]:
        errors, elsewhere = [], []
        page = contexts[context].new_page()

        def requested(request):
            if not request.url.startswith((site, "data:", "blob:")):
                elsewhere.append(request.url)

        page.on("request", requested)
        page.on("console", lambda message: errors.append(f"console: {message.text}") if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(f"script: {error}"))
        page.on("requestfailed", lambda request: errors.append(f"failed: {request.url}"))
        page.on("response", lambda answer: errors.append(f"{answer.status}: {answer.url}") if answer.status >= 400 else None)
        visit(page, f"{site}{name}.html")
        found = {}
        for mode in LOADED[context]:
            page.emulate_media(color_scheme=MODES[mode]["color_scheme"])
            page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))")  # the theme follows
            seen = found[mode] = Seen(page.evaluate(LOOK, MODES[mode]["viewport"]["width"]), errors, elsewhere, [])
            page.evaluate(THIN_OUT)
            for violation in axe.run(page, options={**REPORT, **RULES[mode]}).response["violations"]:
                if violation["impact"] in ("serious", "critical"):
                    seen.violations += [f"{violation['id']}: {node['html'][:150]} ({node['failureSummary'].splitlines()[-1].strip()[:250]})"
                                        for node in violation["nodes"]]
        page.close()
        return found

    def look(name: str, mode: str) -> Seen:
        return load(name, next(context for context, modes in LOADED.items() if mode in modes))[mode]

    return look


def listed(findings: list[str]) -> str:
    return "\n".join(findings)


def of_pages(names: list[str]) -> pytest.MarkDecorator:
    """One test for each page, all tests of a page in one process, for there it is loaded once."""
    return pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in names])


every_page = of_pages(PAGES)
every_mode = pytest.mark.parametrize("mode", MODES)


@every_mode
@every_page
def test_nothing_fails(see, name, mode):
    errors = see(name, mode).errors
    assert not errors, listed(errors)


@every_mode
@every_page
def test_no_request_leaves_this_machine(see, name, mode):
    elsewhere = see(name, mode).elsewhere
    assert not elsewhere, listed(elsewhere)


@every_page
def test_formulas_are_typeset(see, name):
    look = see(name, "light").look
    assert not look["notTypeset"], "not typeset:\n" + listed(look["notTypeset"])
    assert not look["misread"], "MathJax does not understand:\n" + listed(look["misread"])
    assert not look["raw"], "TeX in the text:\n" + listed(look["raw"])


@every_mode
@every_page
def test_accessible(see, name, mode):
    violations = see(name, mode).violations
    assert not violations, listed(violations)


@every_page
def test_fits_a_phone(see, name):
    look = see(name, "phone").look
    assert not look["tooWide"], "wider than the screen, and not in a box that scrolls:\n" + listed(look["tooWide"])
    assert look["scrollWidth"] <= PHONE_WIDTH


@every_page
def test_code_fits_a_screen(see, name):
    cramped = see(name, "light").look["cramped"]
    assert not cramped, f"lines of at most {CODE_WIDTH} characters, and yet a scroll bar:\n" + listed(cramped)


@every_page
def test_dark_mode(see, name):
    look = see(name, "dark").look
    assert look["theme"] == "dark"
    assert look["background"] < 0.2
    assert not look["onDark"], "figures without their white card:\n" + listed(look["onDark"])
    assert see(name, "light").look["background"] > 0.9


@every_page
def test_images(see, name):
    look = see(name, "light").look
    assert not look["broken"], "not loaded:\n" + listed(look["broken"])
    assert not look["nameless"], "without alternative text:\n" + listed(look["nameless"])


# --- links: no browser needed -------------------------------------------------------------------------------------------


class Anchors(HTMLParser):
    """The addresses that a page names and the places in it that can be named."""

    def __init__(self, text: str):
        super().__init__()
        self.links, self.ids = [], Counter()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.links += [attributes[key] for key in ("href", "src") if attributes.get(key)]
        names = {attributes.get("id")} | ({attributes.get("name")} if tag == "a" else set())
        self.ids.update(names - {None})


@cache
def anchors(file: Path) -> Anchors:
    return Anchors(file.read_text(encoding="utf-8"))


def dead_links(file: Path) -> list[str]:
    """The links of one built page that lead nowhere within the site, or to a place that exists twice."""
    found = []
    here = f"http://site/{file.relative_to(SITE)}"
    for link in sorted(set(anchors(file).links)):
        url = urlsplit(urljoin(here, link))
        if url.scheme not in ("http", "https") or url.netloc != "site":
            continue
        target = SITE / unquote(url.path).lstrip("/")
        target = target / "index.html" if target.is_dir() else target
        if not target.is_file():
            found.append(f"{link}: no such file")
        elif url.fragment and target.suffix == ".html" and (count := anchors(target).ids[unquote(url.fragment)]) != 1:
            found.append(f"{link}: {'no such place' if count == 0 else f'{count} places of this name'}")
    return found


@every_page
def test_links(name):
    found = dead_links(SITE / f"{name}.html")
    assert not found, listed(found)


def test_links_of_the_other_files():
    others = [f for f in SITE.rglob("*.html") if str(f.relative_to(SITE).with_suffix("")) not in PAGES and "_static" not in f.parts]
    found = [f"{file.name}: {link}" for file in others for link in dead_links(file)]
    assert not found, listed(found)


@of_pages(EXECUTABLE)
def test_notebook_button(site, contexts, see, name):
    links = anchors(SITE / f"{name}.html").links
    own = [link for link in links if link.endswith(f"_notebooks/{name}.ipynb")]
    assert own, "the page does not offer its notebook"
    for link in own:
        url = urlsplit(link)
        if url.netloc:  # Colab's button: the same file, in the published branch
            assert re.fullmatch(rf"/github/[\w.-]+/[\w.-]+/blob/gh-pages/_notebooks/{name}\.ipynb", url.path)
            assert url.netloc == "colab.research.google.com"
        address = f"{site}_notebooks/{name}.ipynb" if url.netloc else urljoin(f"{site}{name}.html", link)
        answer = contexts["light"].request.get(address)
        assert answer.status == 200, address
        nbformat.validate(nbformat.from_dict(json.loads(answer.text())))


# --- finding one's way ---------------------------------------------------------------------------------------------------


class Words(HTMLParser):
    """The words of a page's text, and those of its two highest headings."""

    def __init__(self, text: str):
        super().__init__()
        self.all, self.headings, self.inside = [], [], []
        self.feed(text[text.index("<article") : text.index("</article>")])

    def handle_starttag(self, tag, attributes):
        if tag in ("h1", "h2", "span", "a"):
            self.inside.append((tag, dict(attributes).get("class") or ""))

    def handle_endtag(self, tag):
        if self.inside and self.inside[-1][0] == tag:
            self.inside.pop()

    def handle_data(self, data):
        if any("math" in kind for _, kind in self.inside):
            return
        words = re.findall(r"\b[a-z]{4,}\b", data.lower())
        self.all += words
        if any(tag in ("h1", "h2") for tag, _ in self.inside):
            self.headings += words


@cache
def words(name: str) -> Words:
    return Words((SITE / f"{name}.html").read_text(encoding="utf-8"))


@every_page
def test_search_finds_a_term(site, contexts, name):
    """The word of its headings that the fewest pages use finds the page."""
    used = Counter(word for other in PAGES for word in set(words(other).all))
    term = min(words(name).headings, key=used.__getitem__)
    page = contexts["light"].new_page()
    page.goto(f"{site}search.html?q={term}")
    page.wait_for_function("() => /finished|found|did not match/i.test(document.querySelector('.search-summary')?.textContent ?? '')")
    found = page.eval_on_selector_all("#search-results a[href]", "links => links.map(link => link.href.split(/[?#]/)[0])")
    page.close()
    assert f"{site}{name}.html" in found, f"{term!r} finds {found}"


def test_one_search_box(site, contexts):
    page = contexts["light"].new_page()
    visit(page, f"{site}{PAGES[0]}.html")
    shown = page.locator(".search-button__button:visible, input[type=search]:visible")
    assert shown.count() == 1
    page.locator("button.primary-toggle:visible").click()
    page.wait_for_timeout(500)
    assert shown.count() == 1, "with the sidebar away there is no other way to search"
    page.close()


def test_keyboard(site, contexts):
    """Tab leads to the link that skips to the text, then to the search, which works without a mouse."""
    page = contexts["light"].new_page()
    visit(page, f"{site}{PAGES[-1]}.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#main-content"
    page.wait_for_function("document.activeElement.getBoundingClientRect().top >= 0")  # it slides in
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.search-button__button')"):
            break
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.matches('input[type=search]')"), "Tab does not lead to the search"
    page.keyboard.type("book")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=book")
    page.close()


def test_buttons_on_a_phone(site, contexts):
    """Contents, notebook, colours and search are within reach of a thumb."""
    page = contexts["phone"].new_page()
    visit(page, f"{site}{(EXECUTABLE or PAGES)[0]}.html")
    for button in [".primary-toggle", ".theme-switch-button", ".search-button"] + [".btn-download-notebook-button"] * bool(EXECUTABLE):
        places = page.locator(f".bd-header-article {button}")
        assert places.count() > 0, f"there is no {button}"
        for place in places.all():
            box = place.bounding_box()
            assert box is not None, f"{button} is not shown"
            assert box["x"] >= 0, button
            assert box["x"] + box["width"] <= PHONE_WIDTH, button
            assert min(box["width"], box["height"]) >= 24, f"{button} is too small to hit"
    page.locator(".bd-header-article .primary-toggle").click()
    page.locator("#pst-primary-sidebar-modal a.reference:visible").first.wait_for()
    page.close()
