"""Rows of text and label out of tables, many at once, and what is wrong with a row."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from thrifty.data.cells import Cells, Problem, read_cells
from thrifty.data.inputs import Reject
from thrifty.data.texts.columns import Columns, cell_at, commonest_width, place_of, sampled_rows
from thrifty.data.texts.row import UNLABELLED, Row, checked_row, checked_rows, tagged_row
from thrifty.data.together import no_key
from thrifty.spec import TextData

# so many are checked together; one that is wrong has them checked one by one
ROWS_AT_ONCE = 1024
_SHOWN = 60


def read_rows(data: TextData, name: str, stream: BinaryIO, columns: Columns) -> Iterator[Row | Reject]:
    """Go through the rows of a file; those that cannot be used come as rejects. Blank lines are passed over.

    Raises:
        DataError: its header lacks the columns.
    """
    for block in read_row_blocks(data, name, stream, columns):
        yield from block


def read_row_blocks(data: TextData, name: str, stream: BinaryIO, columns: Columns) -> Iterator[Sequence[Row | Reject]]:
    """Go through the rows of a file as `read_rows`, `ROWS_AT_ONCE` together; no more of the file is held."""
    # where there is no label, the text stands in its place and is not read as one
    first = columns.text if columns.label is None else columns.label
    places = [first, columns.text, *([] if columns.text_b is None else [columns.text_b])]
    places += [] if columns.key is None else [columns.key]
    width = 0 if columns.header else commonest_width(sampled_rows(data, name, stream))
    rows = read_cells(name, stream, data.max_row_bytes, data.encoding)
    if columns.header:
        header = next((cells for _, cells in rows if isinstance(cells, list)), [])
        places = [place_of(place, header, name) for place in places]
        width = len(header)
    read = _Reader(data, name, places, width, keyed=columns.key is not None, labelled=columns.label is not None)
    while block := list(itertools.islice(rows, ROWS_AT_ONCE)):
        yield read.together(block) or [read.alone(line, cells) for line, cells in block]


@dataclass(frozen=True)
class _Reader:
    """Makes rows of cells: ``places`` of label, texts and, where ``keyed``, key, among ``width`` of them.

    What is not ``labelled`` has the label `UNLABELLED`.
    """

    data: TextData
    name: str
    places: Sequence[str | int]
    width: int
    keyed: bool
    labelled: bool

    def together(self, block: Sequence[tuple[int, Cells | Problem]]) -> list[Row] | None:
        """Make rows of cells where nothing is wrong with any of them."""
        lines, cells = zip(*block, strict=True)
        columns = None if self.data.task == "tag" else self._columns(cells)
        if columns is None:
            return None
        label, *texts = columns
        label = label if self.labelled else [UNLABELLED] * len(block)
        keys = texts.pop() if self.keyed else ()
        found = checked_rows([f"{self.name}:{line}" for line in lines], texts, label)
        if found is None or not self.keyed:
            return found
        belonging = [_belonging(self.data, row, key) for row, key in zip(found, keys, strict=True)]
        rows = [row for row in belonging if isinstance(row, Row)]
        return rows if len(rows) == len(found) else None

    def _columns(self, cells: Sequence[Any]) -> list[Sequence[Any]] | None:
        kinds = set(map(type, cells))
        if kinds == {dict}:
            return [[each.get(str(place)) for each in cells] for place in self.places]
        known = all(isinstance(place, int) and place < self.width for place in self.places)
        if kinds != {list} or set(map(len, cells)) != {self.width} or not known:
            return None
        columns = list(zip(*cells, strict=True))
        return [columns[int(place)] for place in self.places]

    def alone(self, line: int, cells: Cells | Problem) -> Row | Reject:
        """Make a row of its cells, or say why it is none."""
        here = f"{self.name}:{line}"
        if isinstance(cells, tuple):
            return Reject(here, *cells)
        if isinstance(cells, list) and len(cells) != self.width:
            return Reject(here, "ragged row", f": {len(cells)} cells, {self.width} are usual")
        label, *texts = (cell_at(cells, place) for place in self.places)
        label = label if self.labelled else UNLABELLED
        key = texts.pop() if self.keyed else None
        row = tagged_row(here, texts, label, self.data) if self.data.task == "tag" else checked_row(here, texts, label)
        return _belonging(self.data, row, key) if self.keyed and isinstance(row, Row) else row


def _belonging(data: TextData, row: Row, key: Any) -> Row | Reject:
    """The row with its group or moment, or why it has none."""
    text = "" if key is None else str(key).strip()
    problem = no_key(text, by_time=data.split.time is not None)
    return Reject(row.name, problem, f": {text[:_SHOWN]!r}") if problem else row._replace(key=text)
