"""The documentation as a site: it is built without the network, and reading it asks nobody else."""

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tests.repo.tree import ROOT, assert_none, shown

import stepbase

DOCS = ROOT / "docs"
SETTINGS = (ROOT / "mkdocs.yml").read_text("utf-8")
LARGEST_IMAGE = 150_000

_FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "srcset", "link": "href"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. Whoever asked for anything over the network would get a refused connection."""
    folder = tmp_path_factory.mktemp("site")
    nobody = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https")}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT, env={**os.environ, **nobody, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
        timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class _Tags(HTMLParser):
    """Collects what a page would fetch, its text, and what its links and anchors are."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.ids.add(found.get("id", ""))
        if tag in _FETCHED and _FETCHED[tag] in found:
            self.fetched.append(found[_FETCHED[tag]])
        if tag == "a" and "href" in found:
            self.links.append(found["href"])


def tags(site: Path) -> Iterator[tuple[Path, _Tags]]:
    for path in sorted(site.rglob("*.html")):
        parser = _Tags()
        parser.feed(path.read_text("utf-8"))
        yield path, parser


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page() -> None:
    listed = re.findall(r"^ +- ([\w./-]+\.md)$", SETTINGS, re.MULTILINE)
    written = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]

    assert len(listed) == len(set(listed)) > 20
    # Decisions are listed by their README; test_docs_text.py says that each is.
    assert_none(sorted({each for each in written if "decisions/0" not in each} ^ set(listed)))


def test_no_page_fetches_anything_from_another_host(site: Path) -> None:
    pages = list(tags(site))
    sheets = [path for path in site.rglob("*.css")]

    assert len(pages) > 25 and sheets
    assert_none(
        f"{path.name}: {url}"
        for path, page in pages
        for url in page.fetched
        if re.match(r"(https?:)?//", url)
    )
    assert_none(
        path.name
        for path in sheets
        if re.search(r"(@import|url\()\s*[\"']?(https?:)?//", path.read_text("utf-8"))
    )
    # The theme would fetch a library for these, and figures of a repository for a repo_url.
    assert_none(path for path, _ in pages if 'class="mermaid"' in path.read_text("utf-8"))
    assert "repo_url" not in SETTINGS


def test_every_link_of_the_site_leads_somewhere(site: Path) -> None:
    ids = {path: page.ids for path, page in tags(site)}
    broken = []
    for path, page in tags(site):
        for link in page.links:
            target, _, fragment = link.partition("#")
            if re.match(r"\w+:", link) or path.name == "404.html":
                continue
            file = (path.parent / target).resolve() if target else path
            if not file.exists() or (fragment and fragment not in ids.get(file, {fragment})):
                broken.append(f"{path.name}: {link}")

    assert_none(broken)


def test_what_is_for_tests_is_not_shown(site: Path) -> None:
    assert_none(
        path.name for path in site.rglob("*.html") if "<!-- test:" in path.read_text("utf-8")
    )


def test_the_reference_has_every_public_name_and_explains_it(site: Path) -> None:
    listed = re.findall(
        r"^::: stepbase\.(\w+)$", (DOCS / "api.md").read_text("utf-8"), re.MULTILINE
    )
    page = (site / "api.html").read_text("utf-8")

    assert sorted(listed) == sorted(stepbase.__all__)
    assert_none(name for name in listed if f'<h3 id="stepbase.{name}"' not in page)
    assert_none(
        name
        for name in listed
        if re.split(r"[`<>&\n]", inspect.getdoc(getattr(stepbase, name)) or "")[0] not in page
    )


def test_images_are_small_and_used() -> None:
    text = "".join(path.read_text("utf-8") for path in [ROOT / "README.md", *DOCS.rglob("*.md")])
    images = [path for path in (DOCS / "images").iterdir() if path.suffix in (".png", ".svg")]

    assert images
    assert_none(shown(path) for path in images if path.stat().st_size > LARGEST_IMAGE)
    assert_none(shown(path) for path in images if path.name not in text + SETTINGS)


@pytest.mark.parametrize("path", sorted((DOCS / "images").glob("concept-*.svg")), ids=shown)
def test_a_drawing_says_what_it_shows_and_can_be_read_in_the_dark(path: Path) -> None:
    text = path.read_text("utf-8")
    root = ElementTree.fromstring(text)
    said = root.findtext("{http://www.w3.org/2000/svg}desc")
    page = (DOCS / "concepts.md").read_text("utf-8")

    assert root.get("role") == "img" and root.findtext("{http://www.w3.org/2000/svg}title")
    assert said and f"![{said}](images/{path.name})" in page
    assert "prefers-color-scheme: dark" in text
    # Nothing is fetched, and colours are only where both schemes have theirs.
    assert not re.search(r"(href|src|url\((?!#))", text)
    assert not re.search(r'(fill|stroke)="', text)
