"""What templates say by name, what stands in them as it is, and what of a page's Chinese is left in English."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

import jinja2
from jinja2 import nodes

# what a template calls to say a text of the table, which is the first that it is given, or the second
SAID_BY = {"t": 0, "zh": 0, "labelled": 0, "labelled_image": 0, "pairs": 0, "titled": 0, "against": 0, "option": 1}

# of units, names and signs that are the same in both languages
SAME = {
    "thrifty", "English", "F1", "UTC", "GiB", "MiB", "KiB", "TiB", "kB", "GB", "MB", "ms", "min", "Wh", "kWh", "kJ",
    "TFLOP", "GFLOP", "MFLOP", "PFLOP", "FLOP", "SXM", "CPU", "ROC", "R²", "muP", "et",
    "arXiv", "Zhang", "Muennighoff", "fit", "softmax", "nan", "inf", "cosine", "linear", "wsd",
}  # fmt: skip
NAMED = ("aria-label", "alt", "title", "placeholder", "aria-valuetext")
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
# what is shown as it was written: names, code, and the texts of scripts and styles
LEFT_OUT = {"script", "style", "bdi", "code", "pre", "blockquote"}


def constants(template: str) -> set[str]:
    """Texts that a template says by name."""
    tree = jinja2.Environment(trim_blocks=True).parse(template)
    said: set[str] = set()
    for call in tree.find_all(nodes.Call):
        place = SAID_BY.get(call.node.name, -1) if isinstance(call.node, nodes.Name) else -1
        if 0 <= place < len(call.args):
            said |= set(_texts(call.args[place]))
    for loop in tree.find_all(nodes.For):
        if isinstance(loop.iter, nodes.List):
            said |= {item.value for item in loop.iter.items if isinstance(item, nodes.Const)}
    return said


def _texts(said: nodes.Node) -> Iterator[str]:
    if isinstance(said, nodes.Const):
        yield said.value
    elif isinstance(said, nodes.CondExpr):
        for each in (said.expr1, said.expr2):
            yield from _texts(each) if each is not None else ()


class Bare(HTMLParser):
    """Texts and named attributes of a template that stand in it as they are."""

    def __init__(self, template: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._skipped = False
        self.feed(re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", "", template, flags=re.DOTALL))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._skipped = tag in {"script", "style", "title"}
        self.found += [value or "" for name, value in attrs if name in NAMED]

    def handle_endtag(self, tag: str) -> None:
        self._skipped = False

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self.found.append(data)

    @property
    def words(self) -> set[str]:
        """Words of letters among them."""
        return {word for text in self.found for word in re.findall(r"[^\W\d_]{2,}|F1", text)}


class Chinese(HTMLParser):
    """The texts of a page that are shown in Chinese, and the names of its elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._hidden: list[bool] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        hidden = (
            self.is_hidden or tag in LEFT_OUT or "en" in given.get("class", "").split() or given.get("lang") == "en"
        )
        if tag == "html":
            hidden = False
        if not hidden:
            self.found += [given.get(f"data-other-{name}", given[name]) for name in NAMED if name in given]
        if "data-other-text" in given and not hidden:
            self.found.append(given["data-other-text"])
        if tag not in VOID:
            # what stands in it is changed by the page's script
            self._hidden.append(hidden or "data-other-text" in given)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and self._hidden:
            self._hidden.pop()

    def handle_data(self, data: str) -> None:
        if not self.is_hidden:
            self.found.append(data)

    @property
    def is_hidden(self) -> bool:
        return bool(self._hidden) and self._hidden[-1]


def english_left(html: str, *names: str) -> list[str]:
    """Return the texts of a page's Chinese that have words of English in them, but for some names."""
    found = []
    for text in Chinese(html).found:
        # a command is what is typed
        bare = re.sub(r"thrifty [a-z]+", " ", text)
        for name in sorted(names, key=len, reverse=True):
            bare = bare.replace(name, " ")
        # what has a figure in it is a name, such as bf16
        words = re.findall(r"[\w@'.:/-]*[A-Za-z]{2}[\w@'.:/-]*", bare, re.ASCII)
        if {word for word in words if not re.search(r"\d", word)} - SAME:
            found.append(" ".join(text.split()))
    return found
