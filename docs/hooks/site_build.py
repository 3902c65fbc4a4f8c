"""What mkdocs asks as it builds the site: the list of pages, those that are made, links as the repository has them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import fields
import figures
import links
import verbs
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
REPORTS = ROOT / "benchmarks" / "reports"
SCHEMA = "job.schema.json"

# what stands in a page in the place of `<!-- made: NAME -->`
MADE = {
    "schema": lambda: f"The same file is part of this site: [{SCHEMA}](../{SCHEMA}).",
    "fields": lambda: fields.job_fields(_schema()),
    "verbs": verbs.all_verbs,
    "figures": lambda: figures.index(figures.newest(REPORTS)),
}
_MADE = re.compile(r"^<!-- made: (\w+) -->$", re.MULTILINE)


def _schema() -> dict[str, Any]:
    from thrifty import api

    return api.schema()


def on_config(config: MkDocsConfig) -> None:
    """Replace ``folder/*`` in the list of pages by the pages of that folder."""
    pages = in_order(Path(config.docs_dir))
    pages += [f"benchmarks/{name}.md" for name in figures.pages(figures.newest(REPORTS))]
    config.nav = spread_out(config.nav or [], pages)


def in_order(folder: Path) -> list[str]:
    """Return the pages under a folder by their paths: those that an index links to follow it in its order."""
    by_name = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.md"))
    first: list[str] = []
    for index in (page for page in by_name if page.endswith("/index.md")):
        linked = re.findall(r"\]\(([\w-]+\.md)\)", (folder / index).read_text(encoding="utf-8"))
        first += [index, *(f"{index.removesuffix('index.md')}{name}" for name in dict.fromkeys(linked))]
    return [page for page in dict.fromkeys([*first, *by_name]) if page in by_name]


def spread_out(nav: list[Any], pages: list[str]) -> list[Any]:
    """Replace each ``folder/*`` by its pages, in their order; a part without pages is left out.

    >>> spread_out(["a.md", {"More": ["b/*"]}, {"None": "c/*"}], ["a.md", "b/y.md", "b/x.md"])
    ['a.md', {'More': ['b/y.md', 'b/x.md']}]
    """
    found: list[Any] = []
    for item in nav:
        if isinstance(item, dict):
            ((title, inner),) = item.items()
            several = isinstance(inner, list) or inner.endswith("/*")
            within = spread_out(inner if isinstance(inner, list) else [inner], pages) if several else inner
            found += [{title: within}] if within else []
        elif item.endswith("/*"):
            found += [page for page in pages if page.rpartition("/")[0] == item.removesuffix("/*")]
        else:
            found.append(item)
    return found


def on_files(files: Files, *, config: MkDocsConfig) -> None:
    """Add what is made, and what lies elsewhere in the repository."""
    made = {page: (ROOT / source).read_text(encoding="utf-8") for source, page in links.PLACES.items()}
    made |= {f"benchmarks/{name}.md": text for name, text in figures.pages(figures.newest(REPORTS)).items()}
    made[SCHEMA] = json.dumps(_schema(), indent=1, ensure_ascii=False)
    for path in sorted((ROOT / "examples").iterdir()):
        if path.suffix in {".yaml", ".py"}:
            made[f"examples/{path.name}"] = path.read_text(encoding="utf-8")
    for place, text in made.items():
        files.append(File.generated(config, place, content=text))


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Fill in what is made, lead links to where files are on the site."""
    place = page.file.src_uri
    outside = {there: source for source, there in links.PLACES.items()}
    text = links.as_page(markdown, outside.get(place, f"docs/{place}"), place)
    return _MADE.sub(lambda marked: MADE[marked[1]](), text)


def on_page_content(html: str, *, page: Page, **_: Any) -> str:
    """Say of the Chinese page that it is."""
    return f'<div lang="zh-CN">{html}</div>' if page.file.src_uri == "zh.md" else html
