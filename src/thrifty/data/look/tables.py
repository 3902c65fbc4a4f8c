"""Recognise tables of columns: numbers, categories, dates, of which one is to be told."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thrifty.data.inputs import CELL_SUFFIXES
from thrifty.data.look.found import Look, Seen, job_name, shown
from thrifty.data.tables.blocks import first_block
from thrifty.data.tables.coded import Coder, count_cells
from thrifty.data.tables.columns import Tally, tell, texts_of
from thrifty.data.tables.layout import SAMPLED_ROWS, Layout
from thrifty.data.tables.spill import layout_of, table_split
from thrifty.data.tables.target import find_target
from thrifty.errors import DataError
from thrifty.spec import TableData
from thrifty.spec.units import format_bytes

if TYPE_CHECKING:
    import polars as pl

SHOWN_COLUMNS = 12
MAX_NAMES_BYTES = 2**20
# a column and its values, "age: continuous."; comments begin with a bar
_NAME = re.compile(r"^([^|:\n]+):[^:\n]*\.\s*$", re.MULTILINE)
MODEL = "table-mlp-small"
WHY_MODEL = (
    "eight small networks in one trunk, enough for tens of thousands of rows; table-mlp has more members and width"
)
# words, or Chinese characters, that sentences have at least, and phrases
_SENTENCE, _PHRASE = (8, 12), (2, 5)
_WORDS = re.compile(r"[^\W\d_]+")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")


def columns(seen: Seen) -> Look | None:
    """Tables of columns that tell something; those of one text and a label are for a model that reads."""
    files = [file for file in seen.files if file.suffix in CELL_SUFFIXES]
    others = [file for file in seen.files if file not in files]
    if not files or sum(file.size for file in others) > sum(file.size for file in files):
        return None
    named = {file.name: table_split(file.name) for file in files} if not seen.path.is_file() else {}
    files = [file for file in files if named.get(file.name)] or files
    first = next((file for file in files if named.get(file.name) == "train"), files[0])
    try:
        layout = layout_of(first)
        named_by, names = _names_beside(seen, layout.width) if _is_unnamed(layout) else ("", ())
        layout = replace(layout, names=names or layout.names)
        cells = first_block(first, layout)
        tallies = {name: Tally() for name in layout.names}
        for name, tally in tallies.items():
            tally.add(count_cells([Coder().code(cells[name])]))
        target = find_target(TableData(kind="table", path=seen.path), layout.names, tallies)
    except DataError:
        return None
    kinds = {name: tell(name, tally).kind for name, tally in tallies.items() if name != target.name}
    if not any(kinds.values()) or _is_of_texts([texts_of(each).drop_nulls() for each in cells], kinds):
        return None
    counts = {kind: list(kinds.values()).count(kind) for kind in ("number", "category", "boolean", "date")}
    holds = ", ".join(f"{count} of kind {kind}" for kind, count in counts.items() if count)
    size = format_bytes(sum(file.size for file in files))
    parts = ", ".join(f"{part} {file.name}" for file in files if (part := named.get(file.name)))
    says = f"{shown(seen.path)}: a table, {size}; {layout.says}; {holds}; tells '{target.name}'"
    says += f"; {parts}" if parts else ""
    # what was found is written down, so that a column that comes last one day does not change it
    asked: dict[str, Any] = {"kind": "table", "path": str(seen.path), "target": _named(target.name, layout.names)}
    if names:
        asked["names"] = list(names)
    elif layout.separator:
        asked["header"] = bool(layout.header_line)
    job = {"name": job_name(seen.path), "data": asked, "task": target.task, "model": MODEL}
    why = {"data.kind": _why_table(kinds), "data.target": target.says, "model": WHY_MODEL}
    if names:
        why["data.names"] = f"no row names the columns, and '{named_by}' does"
    return Look("table", says, job, why)


def _is_unnamed(layout: Layout) -> bool:
    return bool(layout.separator) and not layout.header_line


def _names_beside(seen: Seen, width: int) -> tuple[str, tuple[str, ...]]:
    """A file as C4.5 and UCI have it, and the names of columns in it, the class last; none where they do not fit."""
    for file in seen.files:
        if file.suffix == ".names" and file.size <= MAX_NAMES_BYTES:
            text = Path(file.path).read_text(encoding="utf-8", errors="replace")
            names = (*(each.strip() for each in _NAME.findall(text)), "class")
            if len(names) == len(set(names)) == width:
                return file.name, names
    return "", ()


def _named(target: str, names: Sequence[str]) -> str | int:
    """A column by its name; by its number where that is all the name it has."""
    return names.index(target) + 1 if target.isdigit() else target


def _why_table(kinds: dict[str, str]) -> str:
    listed = [f"{name} {kind or 'left out'}" for name, kind in kinds.items()]
    more = f" and {len(listed) - SHOWN_COLUMNS} more" if len(listed) > SHOWN_COLUMNS else ""
    return f"columns that tell, and no text to read: {', '.join(listed[:SHOWN_COLUMNS])}{more}"


def _is_of_texts(cells: Sequence[pl.Series], kinds: Mapping[str, str]) -> bool:
    """Whether a column is of sentences, or of short texts and there is little beside them and a label."""
    if any(_is_running_text(each, _SENTENCE) for each in cells):
        return True
    return sum(map(bool, kinds.values())) <= 2 and any(_is_running_text(each, _PHRASE) for each in cells)


def _is_running_text(cells: pl.Series, fewest: tuple[int, int]) -> bool:
    """Whether cells are seldom the same, and half of them have so many words, or Chinese characters."""
    if not len(cells) or cells.n_unique() < len(cells) / 2:
        return False
    words, characters = fewest
    some = cells.head(SAMPLED_ROWS).to_list()
    wordy = sum(len(_WORDS.findall(cell)) >= words or len(_CHINESE.findall(cell)) >= characters for cell in some)
    return wordy >= len(some) / 2
