"""A row of text and label, made of cells that are checked; or why they make none.

Rows are checked one by one, and where nothing is wrong with any of them, many at once: the rows are the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from thrifty.data.cells import is_unicode
from thrifty.data.inputs import Reject
from thrifty.data.labels import in_order
from thrifty.data.texts.tags import split_cell
from thrifty.data.texts.word_pieces import PAIR_MARK
from thrifty.spec import TextData

_SHOWN = 60


# a tuple, since there are millions of them: it is made in a third of the time that a frozen dataclass takes
# the label of all texts where none is wanted
UNLABELLED = "text"


class Row(NamedTuple):
    """A text with its label; ``name`` is its file and the line it begins on, such as ``train.tsv:17``.

    The two texts of a pair are one, with `PAIR_MARK` between them. ``key`` is the group or moment that it belongs to,
    where the split goes by one. Where a text has several, ``labels`` are all of them, in order, and ``label`` spells
    them as a JSON list.
    """

    name: str
    text: str
    label: str
    key: str = ""
    labels: tuple[str, ...] = ()


def checked_row(name: str, texts: Sequence[Any], label: Any) -> Row | Reject:
    """Make a row of its cells, one text or the two of a pair, or say why it is none."""
    label = _spelled(label)
    for value, what in (*((text, "text") for text in texts), (label, "label")):
        if problem := _problem(name, value, what):
            return problem
    return Row(name, _joined(texts), label.strip())


def tagged_row(name: str, texts: Sequence[Any], cell: Any, data: TextData) -> Row | Reject:
    """Make a row of its texts and a cell of several labels, or of none, or say why it is none."""
    labels = split_cell(cell, data.label_separator)
    if labels is None:
        return Reject(name, "label is no JSON list", f": {cell.strip()[:_SHOWN]}")
    labels = [_spelled(label) for label in labels]
    for value, what in (*((text, "text") for text in texts), *((label, "label") for label in labels)):
        if problem := _problem(name, value, what):
            return problem
    found = in_order({label.strip() for label in labels})
    return Row(name, _joined(texts), json.dumps(found, ensure_ascii=False), labels=found)


def checked_rows(names: Sequence[str], texts: Sequence[Sequence[Any]], labels: Sequence[Any]) -> list[Row] | None:
    """Make rows of their cells as `checked_row` does, all at once; None where any of them makes no row.

    Args:
        names: of the rows.
        texts: a column, or the two of pairs.
        labels: a column.
    """
    columns = [_tidied(column, PAIR_MARK) for column in texts]
    tidy = _tidied([_spelled(label) for label in labels], "")
    if tidy is None or any(column is None for column in columns):
        return None
    whole = [column for column in columns if column is not None]
    joined = whole[0] if len(whole) == 1 else map(PAIR_MARK.join, zip(*whole, strict=True))
    return list(map(Row, names, joined, tidy))


def _tidied(cells: Sequence[Any], mark: str) -> list[str] | None:
    """Drop the space around the cells of a column, and put spaces in the place of a mark; None where one is wrong."""
    if set(map(type, cells)) - {str}:
        return None
    found = [cell.strip() for cell in cells]
    together = "".join(found)
    if not all(found) or "\0" in together or not is_unicode(together):
        return None
    return [cell.replace(mark, " ") for cell in found] if mark and mark in together else found


def _spelled(label: Any) -> Any:
    return str(label) if isinstance(label, bool | int) else label


def _joined(texts: Sequence[str]) -> str:
    return PAIR_MARK.join(text.strip().replace(PAIR_MARK, " ") for text in texts)


def _problem(name: str, value: Any, what: str) -> Reject | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return Reject(name, f"empty {what}")
    if not isinstance(value, str):
        return Reject(name, f"{what} is no text", f": {type(value).__name__}")
    if "\0" in value:
        return Reject(name, "binary", f": NUL in the {what}")
    if not is_unicode(value):
        return Reject(name, "not Unicode", f": half of a pair of surrogates in the {what}")
    return None
