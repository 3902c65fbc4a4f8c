"""The built site: it asks nobody for anything, its pages are whole, search answers from files, on wide and narrow."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from thrifty import api

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# what a browser fetches by itself, by tag
FETCHED = {
    "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src", "embed": "src",
    "object": "data", "input": "src",
}  # fmt: skip
LOADING_LINKS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "modulepreload", "manifest"}


class _Read(HTMLParser):
    """What a page fetches, and the text of its paragraphs."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.paragraphs: list[str] = []
        self._code = 0
        self._in_paragraph = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag in FETCHED and FETCHED[tag] in given:
            self.fetched.append(given[FETCHED[tag]])
        if tag == "link" and LOADING_LINKS & set(given.get("rel", "").split()):
            self.fetched.append(given["href"])
        self.fetched += re.findall(r"url\(['\"]?([^'\")]+)", given.get("style", ""))
        self._code += tag in {"code", "pre"}
        if tag == "p":
            self._in_paragraph = True
            self.paragraphs.append("")

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag in {"code", "pre"}
        if tag == "p":
            self._in_paragraph = False

    def handle_data(self, data: str) -> None:
        if self._in_paragraph:
            # code may hold anything
            self.paragraphs[-1] += "`" if self._code else data


def read(page: Path) -> _Read:
    reader = _Read()
    reader.feed(page.read_text(encoding="utf-8"))
    return reader


def pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def test_no_page_asks_for_anything_from_elsewhere(site: Path) -> None:
    assert len(pages(site)) >= 50
    for page in pages(site):
        for address in read(page).fetched:
            assert not re.match(r"(?:[a-z]+:)?//", address), f"{page.name} fetches {address}"
            if page.name != "404.html" and not address.startswith("data:"):
                assert (page.parent / address.partition("?")[0]).exists(), f"{page.name} lacks {address}"
    for sheet in site.rglob("*.css"):
        for address in re.findall(r"(?:url\(|@import )\s*['\"]?([^'\")]+)", sheet.read_text(encoding="utf-8")):
            assert not re.match(r"(?:https?:)?//", address), f"{sheet.name} fetches {address}"


def test_lists_tables_and_code_are_such(site: Path) -> None:
    for page in pages(site):
        for paragraph in read(page).paragraphs:
            assert not re.search(r"^(?:[-*] |\||```|>>> |:::)", paragraph, re.MULTILINE), (page.name, paragraph[:200])
        assert "<!-- made" not in page.read_text(encoding="utf-8")


def test_plans_of_the_project_are_not_in_the_site(site: Path) -> None:
    assert not list(site.rglob("*roadmap*"))
    assert not list(site.rglob("*.pyc")) and not (site / "hooks").exists()


def test_the_schema_is_in_the_site(site: Path) -> None:
    published = json.loads((site / "job.schema.json").read_text(encoding="utf-8"))
    assert published == api.schema()
    job = yaml.safe_load((site / "examples" / "digits.yaml").read_text(encoding="utf-8"))
    assert Draft202012Validator(published).is_valid(job)


WORDS = {
    "index.html": ["Your own data", "models.html", "reference/job.html"],
    "reference/job.html": ["max_file_bytes", "64MiB", "yaml-language-server", 'id="train"'],
    "reference/commands.html": ["--max-drop", 'id="export-ledger"'],
    "reference/api.html": ["thrifty.api.plan", "thrifty.api.serve", "ThriftyError"],
    "reference/nouns.html": ["thrifty.spec.Job", "thrifty.spec.Plan", "thrifty.spec.Cost"],
    "reference/errors.html": ["thrifty.errors.BudgetError"],
    "reference/testing.html": ["thrifty.testing.check_model", "thrifty.testing.check_server"],
    "benchmarks.html": ["benchmarks/accuracy_adult.html", "quick"],
    "benchmarks/accuracy_adult.html": ["least", "most", "2 cores"],
    "changelog.html": ["Unreleased"],
    "zh.html": ['lang="zh-CN"'],
}


@pytest.mark.parametrize("page", WORDS)
def test_what_is_made_is_there(site: Path, page: str) -> None:
    text = (site / page).read_text(encoding="utf-8")
    assert [word for word in WORDS[page] if word not in text] == []


SHAPES = ((1280, "light"), (390, "light"), (390, "dark"), (1280, "dark"))


@pytest.fixture
def opened(site: Path, chromium: Any) -> Iterator[Any]:
    """Opens a page as a file; what it complains of, or asks of others, fails the test."""
    complaints: list[str] = []
    contexts = []

    def opens(page: str, width: int, scheme: str) -> Any:
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        context.set_default_timeout(120_000)
        contexts.append(context)
        view = context.new_page()
        view.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        view.on("pageerror", lambda error: complaints.append(str(error)))
        view.on(
            "request",
            lambda asked: (
                None if asked.url.startswith((site.as_uri(), "data:", "about:")) else complaints.append(asked.url)
            ),
        )
        view.goto(f"{site.as_uri()}/{page}")
        return view

    yield opens
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), SHAPES, ids=[f"{width}-{scheme}" for width, scheme in SHAPES])
def test_pages_fit_and_follow_the_scheme(opened: Any, width: int, scheme: str) -> None:
    for page in ("index.html", "reference/job.html", "benchmarks.html", "training.html"):
        view = opened(page, width, scheme)
        wide = view.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, page
        assert view.evaluate("document.body.dataset.mdColorScheme") == {"light": "default", "dark": "slate"}[scheme]


@pytest.mark.browser
def test_search_answers_without_a_server(opened: Any) -> None:
    view = opened("index.html", 1280, "light")
    box = view.get_by_role("textbox", name="Search")
    box.click()
    box.press_sequentially("gradient_release")
    view.locator(".md-search-result__link").first.wait_for(state="visible")
    found = view.locator(".md-search-result__link").evaluate_all("all => all.map(each => each.href)")
    assert any("/reference/job.html" in each for each in found)
