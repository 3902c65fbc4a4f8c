"""A page of the repository as one of the site: links lead where files lie there, lists and tables stand apart."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

# what stands outside docs/ and has a page
PLACES = {"README.md": "index.md", "README.zh-CN.md": "zh.md", "CHANGELOG.md": "changelog.md"}

_FENCED = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}).*?^(?P=indent)(?P=fence) *$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")
_ITEM = re.compile(r"([-*+]|1[.)]) ")
_OTHER = ("#", "|", ">", "<", " ")


def as_page(markdown: str, source: str, page: str) -> str:
    """Return the text of a page of the site.

    Args:
        markdown: of the file in the repository.
        source: its path there.
        page: its path among the pages.

    >>> as_page("[a job](../examples/sst2.yaml), [how](training.md#dropout)", "docs/models.md", "models.md")
    '[a job](examples/sst2.yaml), [how](training.md#dropout)'
    """
    return _outside_code(markdown, lambda text: _parted(_led(text, source, page)))


def _outside_code(markdown: str, change: Callable[[str], str]) -> str:
    parts, at = [], 0
    for block in _FENCED.finditer(markdown):
        # under an item it stays part of it
        apart = "" if block["indent"] else "\n"
        parts += [change(markdown[at : block.start()]), apart, block.group(), apart]
        at = block.end()
    return "".join([*parts, change(markdown[at:])])


def _led(text: str, source: str, page: str) -> str:
    def led(link: re.Match[str]) -> str:
        place = None if ":" in link["target"] else _place(posixpath.join(posixpath.dirname(source), link["target"]))
        if place is None:
            return link.group()
        return f"]({posixpath.relpath(place, posixpath.dirname(page) or '.')}{link['anchor'] or ''})"

    return _LINK.sub(led, text)


def _place(path: str) -> str | None:
    """Return where a file of the repository is on the site; None where it is not."""
    path = posixpath.normpath(path)
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith("benchmarks/reports/"):
        return "benchmarks.md"
    return path if path.startswith("examples/") else PLACES.get(path)


def _parted(text: str) -> str:
    """Put an empty line between a paragraph and a list or a table that follows it, as Python-Markdown wants one.

    >>> _parted("Rules:\\n- one\\n- two")
    'Rules:\\n\\n- one\\n- two'
    """
    lines: list[str] = []
    paragraph = False
    for line in text.split("\n"):
        if paragraph and (_ITEM.match(line) or line.startswith("|")):
            lines.append("")
        if not line.strip() or _ITEM.match(line) or line.startswith(_OTHER):
            # what goes on under an item or a table is no paragraph of its own
            paragraph = False
        elif not lines or not lines[-1].strip() or lines[-1].startswith("#"):
            paragraph = True
        lines.append(line)
    return "\n".join(lines)
