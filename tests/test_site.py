"""The built site: no dead link, nothing from the net, equations and search in a browser, dark and on a phone.

`sphinx-build -W --keep-going docs docs/_build/html` builds it; without it these tests are left out, but not in CI's.
"""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

import neuralcollapse as nc

ROOT = Path(__file__).parents[1]
SITE = ROOT / "docs" / "_build" / "html"
IS_BUILT = (SITE / "index.html").is_file()
pytestmark = pytest.mark.skipif(
    not IS_BUILT and "NEURALCOLLAPSE_SITE" not in os.environ, reason="the site is not built"
)


class Page(HTMLParser):
    """The links, the anchors and what is loaded of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attributes if value is not None}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif "src" in values:
            self.loaded.append(values["src"])
        elif tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload"):
            self.loaded.append(values["href"])


@pytest.fixture(scope="module")
def pages() -> dict[Path, Page]:
    """All pages but the highlighted source."""
    return {path: Page(path) for path in SITE.rglob("*.html") if "_modules" not in path.parts}


def test_every_link_within_the_site_leads_somewhere(pages: dict[Path, Page]) -> None:
    assert len(pages) > 20
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), f"{path.relative_to(SITE)}: {link}"
            if parts.fragment and target in pages:
                anchor = unquote(parts.fragment)
                assert anchor in pages[target].anchors, f"{path.relative_to(SITE)}: {link}"


def test_nothing_is_loaded_from_the_net(pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        for source in page.loaded:
            assert not urlsplit(source).netloc, f"{path.relative_to(SITE)} loads {source}"
            if not source.startswith("data:"):
                assert (path.parent / unquote(urlsplit(source).path)).is_file(), f"{path.relative_to(SITE)}: {source}"


def test_every_public_name_has_one_entry_in_the_reference(pages: dict[Path, Page]) -> None:
    for name in nc.__all__:
        found = [path for path, page in pages.items() if f"neuralcollapse.{name}" in page.anchors]
        assert len(found) == 1, f"{name}: {found}"


def test_any_statement_of_the_paper_is_two_clicks_from_the_front_page(pages: dict[Path, Page]) -> None:
    start = SITE / "index.html"
    near = {(start.parent / unquote(urlsplit(link).path)).resolve() for link in pages[start].links}
    assert SITE / "equations.html" in near
    text = (SITE / "equations.html").read_text(encoding="utf-8")
    for statement in ("Theorem 1", "Theorem 2", "Theorem 3", "Proposition 1", "Proposition 2", "Corollary 2"):
        assert statement in text


def opened(browser: Any, name: str, **about: Any) -> tuple[Any, list[str]]:
    """A page of the site with the network cut, and the errors and requests to elsewhere that it makes."""
    context = browser.new_context(**about)
    page, wrong = context.new_page(), list[str]()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request", lambda request: wrong.append(request.url) if not request.url.startswith(("file:", "data:")) else None
    )
    file, _, query = name.partition("?")
    page.goto((SITE / file).as_uri() + (f"?{query}" if query else ""))
    context.set_offline(True)
    return page, wrong


def test_equations_are_drawn_without_the_net(browser: Any) -> None:
    page, wrong = opened(browser, "central-path.html")
    boxes = page.eval_on_selector_all("math", "all => all.map(each => each.getBoundingClientRect().height)")
    assert len(boxes) > 10 and min(boxes) > 5
    assert not re.search(
        r"\\(frac|omega|Sigma|tfrac)|\$\$", " ".join(page.locator("article p, article li").all_inner_texts())
    )
    assert page.eval_on_selector("math mfrac", "each => each.getBoundingClientRect().height") > 15
    assert not wrong


@pytest.mark.parametrize("query", ["nc1", "central path", "language model"])
def test_search_finds_without_the_net(browser: Any, query: str) -> None:
    page, wrong = opened(browser, f"search.html?q={query.replace(' ', '+')}")
    page.wait_for_selector("ul.search li a", timeout=20_000)
    assert page.locator("ul.search li").count() > 0
    if query == "nc1":
        assert "neuralcollapse.nc1" in page.inner_text("ul.search") and "NC1" in page.inner_text("ul.search")
    # the lines under the results are fetched, which a browser does from a server only; the results need nothing
    assert not [each for each in wrong if each != "Failed to fetch"]


@pytest.mark.parametrize("name", ["index.html", "read/nc1.html", "api/measuring.html", "commands.html"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone_and_are_readable_in_both_schemes(browser: Any, name: str, scheme: str) -> None:
    page, wrong = opened(browser, name, viewport={"width": 390, "height": 844}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 391
    colors = page.evaluate(
        "[getComputedStyle(document.querySelector('article p')).color, getComputedStyle(document.body).backgroundColor]"
    )
    text, ground = (luminance([int(part) for part in re.findall(r"\d+", color)[:3]]) for color in colors)
    assert (max(text, ground) + 0.05) / (min(text, ground) + 0.05) >= 7, "the contrast that WCAG calls enhanced"
    assert (ground < 0.1) == (scheme == "dark")
    assert not wrong


def luminance(color: list[int]) -> float:
    """Relative luminance of an sRGB color (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (each / 255 for each in color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
