"""The documentation's site in a real browser: for everybody, on every width, and nobody else is asked."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request
from tests.browser.test_console import _hindrances
from tests.repo.tree import ROOT

PAGES = ("index", "quickstart", "concepts", "moving-from-inngest", "security", "compared")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The built site, served; yields its origin."""
    folder = tmp_path_factory.mktemp("manual")
    command = [sys.executable, "-P", "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    """What pages complain of, and requests that leave the host; there may be none."""
    found: list[str] = []
    yield found
    assert found == []


def opened(browser: Browser, origin: str, complaints: list[str], **options: Any) -> Page:
    """Open a window; what its pages complain of is noted."""

    def hear(message: ConsoleMessage) -> None:
        if message.type == "error":
            complaints.append(message.text)

    def see(request: Request) -> None:
        if not request.url.startswith((origin, "data:", "blob:")):
            complaints.append(request.url)

    page = browser.new_page(**options)
    page.on("console", hear)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", see)
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_anybody_out(
    manual: str, browser: Browser, complaints: list[str], scheme: str
) -> None:
    page = opened(browser, manual, complaints, color_scheme=scheme)
    found = []
    for name in PAGES:
        page.goto(f"{manual}/{name}.html")
        found += [f"{name}: {each}" for each in _hindrances(page)]
    page.close()

    assert found == []


def test_no_page_is_wider_than_a_telephone(
    manual: str, browser: Browser, complaints: list[str]
) -> None:
    page = opened(browser, manual, complaints, viewport={"width": 390, "height": 800})
    wide = []
    for path in sorted((ROOT / "docs").glob("*.md")):
        page.goto(f"{manual}/{path.stem}.html")
        if page.evaluate("document.documentElement.scrollWidth") > 390:
            wide.append(path.stem)
    page.close()

    assert wide == []


def test_the_search_finds_a_page(manual: str, browser: Browser, complaints: list[str]) -> None:
    page = opened(browser, manual, complaints)
    page.goto(f"{manual}/index.html")
    page.click("input.md-search__input")
    page.keyboard.type("encryption", delay=20)
    page.wait_for_selector(".md-search-result__link h1")
    titles = [each.inner_text() for each in page.query_selector_all(".md-search-result__link h1")]
    page.close()

    assert "Middleware" in titles


def test_code_side_by_side_is(manual: str, browser: Browser, complaints: list[str]) -> None:
    page = opened(browser, manual, complaints, viewport={"width": 1300, "height": 900})
    page.goto(f"{manual}/moving-from-inngest.html")
    cells = [each.bounding_box() for each in page.query_selector_all("table.pair td")]
    page.close()

    assert len(cells) >= 28 and len(cells) % 2 == 0
    for left, right in zip(cells[::2], cells[1::2], strict=True):
        assert left is not None and right is not None
        assert left["y"] == right["y"] and left["x"] + left["width"] <= right["x"] + 1
