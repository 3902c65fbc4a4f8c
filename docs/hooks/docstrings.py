"""Docstrings as mkdocstrings reads them: examples are blocks of code, and fields that share a line have one each."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

# two names and more with what is said of both, on this line and on those indented under it
_SHARED = re.compile(r"^    (?P<names>\w+(?:, \w+)+): (?P<says>.*(?:\n        .*)*)", re.MULTILINE)
_FLAG = re.compile(r" +# doctest:.*$", re.MULTILINE)


class Docstrings(Extension):
    """Has griffe hand on docstrings that it and Markdown read as they are meant."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = apart(fenced(_FLAG.sub("", obj.docstring.value)))


def apart(text: str) -> str:
    """Give each of several names a line of its own.

    >>> apart("Attributes:\\n    low, high: ends.\\n    log: by factors.")
    'Attributes:\\n    low: ends.\\n    high: ends.\\n    log: by factors.'
    """
    return _SHARED.sub(lambda m: "\n".join(f"    {name}: {m['says']}" for name in m["names"].split(", ")), text)


def fenced(text: str) -> str:
    """Put each example, up to the next empty line, in a block of its own: Markdown takes ``>>>`` for a quotation.

    >>> fenced("Adds.\\n\\n>>> 1 + 1\\n2")
    'Adds.\\n\\n```pycon\\n>>> 1 + 1\\n2\\n```'
    """
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        if not inside and line.startswith(">>>"):
            # a section of the docstring may end right before
            lines += ["```pycon"] if not lines or not lines[-1].strip() else ["", "```pycon"]
            inside = True
        elif inside and not line.strip():
            lines.append("```")
            inside = False
        lines.append(line)
    return "\n".join([*lines, "```"] if inside else lines)
