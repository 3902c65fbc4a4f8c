"""Links between the documents lead somewhere: to a file of the repository, and to a heading of it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from blocks import ROOT, pages

_LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose(path: Path) -> str:
    return re.sub(r"^ *```.*?^ *```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """Of a page's headings, as sites of documents and of repositories make them."""
    titles = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", title).strip().lower() for title in titles]
    return {re.sub(r"\s", "-", title) for title in plain} | {re.sub(r"[\s-]+", "-", title) for title in plain}


@pytest.mark.parametrize("page", [page for page in pages() if page.startswith("docs/")])
def test_every_link_leads_somewhere(page: str) -> None:
    for link in _LINK.findall(prose(ROOT / page)):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        place = ((ROOT / page).parent / target).resolve() if target else ROOT / page
        assert place.exists(), f"{page}: {link}"
        if anchor and place.suffix == ".md":
            assert anchor in anchors(place), f"{page}: {link}; there are {sorted(anchors(place))}"
