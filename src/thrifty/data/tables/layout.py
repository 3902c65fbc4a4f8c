"""How the rows of a table are written: what separates cells, which line names the columns, how many there are."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass

from thrifty.errors import DataError

SAMPLED_BYTES = 2**20
SAMPLED_ROWS = 1000
SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
# cells that say that there is nothing, in lower case
MISSING = frozenset(["", "?", "na", "n/a", "#n/a", "nan", "null", "none", "-"])
_MOST_COLUMNS = 1000
_SHOWN = 60


@dataclass(frozen=True)
class Layout:
    """How a file's rows are written.

    Attributes:
        separator: between cells; nothing where each cell is named.
        names: of its columns; numbers from 1 where it names none.
        header_line: the line that names them; 0 where none does.
        form: ``Parquet`` or ``JSONL``, whose cells are named.
    """

    separator: str
    names: tuple[str, ...]
    header_line: int = 0
    form: str = ""

    @property
    def width(self) -> int:
        """Cells of a row."""
        return len(self.names)

    @property
    def says(self) -> str:
        """What was found, in words."""
        if self.form:
            return f"{self.width} columns of {self.form}"
        named = f"named by line {self.header_line}" if self.header_line else "which no line names"
        return f"{self.width} columns, split by {SEPARATORS[self.separator]}, {named}"


def is_number(cell: str) -> bool:
    """Say whether a cell is a number.

    >>> is_number(" -1.5e3"), is_number("12 %"), is_number("1_000"), is_number("nan")
    (True, False, False, False)
    """
    try:
        return "_" not in cell and float(cell) == float(cell)
    except ValueError:
        return False


def find_layout(name: str, head: bytes, *, header: bool | None = None) -> Layout:
    """Tell from its beginning how a file is written.

    A header is a first row without numbers above a column of numbers, or, where there is none, one whose cells are all
    different and come in none of the rows below.

    Args:
        name: of the file, for errors.
        head: its beginning.
        header: whether a row names the columns; told from the rows when left out.

    Raises:
        DataError: there are no rows of two cells or more, or the header names a column twice.
    """
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"'{name}' is UTF-16", mend="Save it as UTF-8.")
    text = head.decode("utf-8-sig", "replace")
    if len(head) >= SAMPLED_BYTES:
        text = text.rpartition("\n")[0]
    if not text.strip():
        raise DataError(f"'{name}' is empty", mend="A table has rows of several columns.")
    by_separator = {separator: _sampled(text, separator) for separator in SEPARATORS}
    # the likelier separator gives more rows one width; of equal ones the wider, for text may hold the other
    separator = max(SEPARATORS, key=lambda each: _even(by_separator[each]))
    rows = by_separator[separator]
    width = _usual_width(rows)
    if width < 2:
        first = rows[0][1][0] if rows else ""
        raise DataError(
            f"the rows of '{name}' have one column; the first is '{first[:_SHOWN]}'",
            mend=f"Cells are separated by {', '.join(SEPARATORS.values())}.",
        )
    if width > _MOST_COLUMNS:
        raise DataError(f"'{name}' has {width:,} columns, and {_MOST_COLUMNS:,} are the most", mend="Leave some out.")
    usual = [(line, cells) for line, cells in rows if len(cells) == width]
    line, first_cells = rows[0] if header else usual[0]
    if len(first_cells) != width:
        raise DataError(
            f"the header of '{name}' names {len(first_cells)} columns, and most rows have {width} cells",
            mend=f"Mend line {line}, or set data.header: false.",
        )
    body = [cells for _, cells in usual[1:]]
    if not (_names_columns(first_cells, body) if header is None else header):
        return Layout(separator, tuple(str(at + 1) for at in range(width)))
    names = tuple(cell or f"column {at}" for at, cell in enumerate(first_cells, 1))
    if twice := [cell for cell, count in Counter(names).items() if count > 1]:
        raise DataError(f"the header of '{name}' names column '{twice[0]}' twice", mend="Rename one of them.")
    return Layout(separator, names, line)


def _sampled(text: str, separator: str) -> list[tuple[int, list[str]]]:
    """The first rows, each with its line."""
    found: list[tuple[int, list[str]]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    while len(found) < SAMPLED_ROWS:
        line = reader.line_num + 1
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            break
        except csv.Error:
            continue
        if any(cells):
            found.append((line, cells))
    return found


def _usual_width(rows: list[tuple[int, list[str]]]) -> int:
    counts = Counter(len(cells) for _, cells in rows)
    return max(counts, key=lambda width: (counts[width], width), default=0)


def _even(rows: list[tuple[int, list[str]]]) -> tuple[bool, float, int]:
    width = _usual_width(rows)
    share = sum(len(cells) == width for _, cells in rows) / len(rows) if rows else 0.0
    return width > 1, round(share, 2), width


def _names_columns(first: list[str], body: list[list[str]]) -> bool:
    twice = {cell for cell in first if first.count(cell) > 1}
    # cells that say that there is nothing come twice in rows, and names seldom do
    if any(is_number(cell) for cell in first) or any(cell.lower() in MISSING for cell in twice):
        return False
    columns = [[cell for cell in column if cell.lower() not in MISSING] for column in zip(*body, strict=True)]
    if any(cells and sum(map(is_number, cells)) > len(cells) / 2 for cells in columns):
        return True
    if twice:
        return False
    return bool(body) and all(cell not in cells for cell, cells in zip(first, columns, strict=True))
