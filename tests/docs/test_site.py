"""The pages as a site: it builds strictly, every page is in it and reachable, and nothing is loaded from a network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, REPOSITORY


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """`make docs`' command in a copy, with proxies that lead nowhere: whatever asks the network fails."""
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    command = [sys.executable, "docs/site.py", str(folder)]
    return subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, env={**os.environ, **nowhere, "NO_COLOR": "1"}, timeout=120
    )


def copy(folder: Path) -> Path:
    shutil.copy(REPOSITORY / "zensical.toml", folder)
    shutil.copytree(REPOSITORY / "docs", folder / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy(tmp_path_factory.mktemp("site"))
    built = build(folder)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "site"


class Loaded(HTMLParser):
    """What a page loads by itself, and where its links lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given["id"]} if "id" in given else set()
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.loads.append(given.get("href", ""))
        elif tag in ("script", "img", "iframe", "source", "video") and "src" in given:
            self.loads.append(given["src"])


def test_every_page_is_in_the_navigation_once() -> None:
    named = re.findall(r'= "([\w/-]+\.md)"', (REPOSITORY / "zensical.toml").read_text(encoding="utf-8"))
    there = [str(path.relative_to(REPOSITORY / "docs")) for path in (REPOSITORY / "docs").rglob("*.md")]
    assert sorted(named) == sorted(there)
    assert tomllib.loads((REPOSITORY / "zensical.toml").read_text(encoding="utf-8"))["project"]["theme"]["font"] is False


def test_nothing_is_loaded_from_a_network_and_every_link_leads_somewhere(site: Path) -> None:
    pages = {path: Loaded(path.read_text(encoding="utf-8")) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 40
    for path, page in pages.items():
        for loaded in page.loads:
            assert not re.match(r"(https?:)?//", loaded), f"{path.name} loads {loaded}"
            assert (path.parent / loaded.split("?")[0]).exists(), f"{path.name} loads {loaded}"
        for link in page.links:
            if not re.match(r"[a-z]+:", link):
                target, _, anchor = link.partition("#")
                to = (path.parent / target).resolve() if target else path
                assert to.exists(), f"{path.name} links to {link}"
                assert not anchor or to.suffix != ".html" or anchor in pages[to].ids | {"__skip"}, f"{path.name} links to {link}"
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.findall(r"url\([\"']?(?:https?:)?//[^)]*\)|@import[^;]*//", styles)


def test_the_search_works_from_the_disk(site: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium here")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND"])
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "index.html").as_uri())
        page.keyboard.press("/")
        page.keyboard.type("pseudonym")
        page.get_by_text(re.compile(r"^\d+ results?$")).wait_for(timeout=60_000)
        browser.close()
    assert all(url.startswith(("file:", "about:", "data:", "blob:")) for url in asked), asked


def test_code_and_tables_of_the_pages_are_code_and_tables_of_the_site(site: Path) -> None:
    """Two readers of Markdown agree: the one that GitHub's is like, and the site's."""
    from markdown_it import MarkdownIt

    for page in sorted((REPOSITORY / "docs").rglob("*.md")):
        tokens = MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))
        html = (site / page.relative_to(REPOSITORY / "docs")).with_suffix(".html").read_text(encoding="utf-8")
        for kind, mark in (("table_open", "<table>"), ("bullet_list_open", "<ul>"), ("ordered_list_open", "<ol>")):
            count = sum(token.type == kind for token in tokens)
            article = html[html.index("<article") : html.index("</article>")]
            assert article.count(mark) == count, f"{page.name}: {count} {kind}, {article.count(mark)} in the site"
        code = sum(token.type in ("fence", "code_block") for token in tokens)
        assert article.count("<pre") == code, f"{page.name}: {code} blocks of code, {article.count('<pre')} in the site"


def test_no_word_in_angle_brackets_vanishes() -> None:
    """`<source>/<name>` outside of code is HTML, and shows as "/"."""
    from markdown_it import MarkdownIt

    for page in PAGES:
        for token in MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8")):
            html = [child.content for child in token.children or () if child.type == "html_inline"]
            html += [token.content] if token.type == "html_block" and not token.content.startswith("<!--") else []
            assert not html, f"{page.name}: {html}"


def test_a_broken_link_and_a_broken_anchor_stop_the_build(tmp_path: Path) -> None:
    folder = copy(tmp_path)
    with (folder / "docs" / "formats.md").open("a") as page:
        page.write("\n[one](guide/nowhere.md) [two](guide/build.md#nowhere)\n")
    built = build(folder)
    assert built.returncode != 0
    assert "page does not exist" in built.stdout + built.stderr
    assert "anchor does not exist" in built.stdout + built.stderr
