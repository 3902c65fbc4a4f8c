"""Recognise texts with labels: rows of tables."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from thrifty.data.inputs import TABLE_SUFFIXES
from thrifty.data.look.found import Look, Seen, job_name, shares, shown
from thrifty.data.look.language import TEXT_SUFFIXES
from thrifty.data.split import split_of
from thrifty.data.text_rows import Row, find_columns, read_rows
from thrifty.errors import DataError
from thrifty.spec import SPLITS, TextData

# from so many rows on the larger BERT is the better buy: SST-2, with 6,920, reaches about 0.8 with it from scratch
ROWS_FOR_SMALL = 5_000


def labelled_texts(seen: Seen) -> Look | None:
    """Texts with labels in tables: the columns of the first table to train on, the rows of all."""
    path, tables = seen.path, [file for file in seen.files if file.suffix in TABLE_SUFFIXES]
    others = sum(file.size for file in seen.files if file.suffix in TEXT_SUFFIXES)
    if not tables or sum(file.size for file in tables) < others:
        return None
    data = TextData(kind="text", path=path)
    named = {file.name: split_of(file.name) for file in tables} if not path.is_file() else {}
    tables = [file for file in tables if named.get(file.name)] or tables
    first = next((file for file in tables if named.get(file.name) == "train"), tables[0])
    columns = find_columns(data, first.name, Path(first.path).read_bytes())
    counts: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    sizes: list[int] = []
    for file in tables:
        for row in read_rows(data, file.name, Path(file.path).read_bytes(), columns):
            if isinstance(row, Row):
                counts[named.get(file.name, "")] += 1
                labels[row.label] += 1
                sizes.append(len(row.text))
    rows = " + ".join(f"{counts[part]:,}" for part in ("", *SPLITS) if counts[part])
    forms = "/".join(sorted({file.suffix.removeprefix(".").upper() for file in tables}))
    if not sizes:
        raise DataError(f"no row of '{path}' can be used", mend="A row holds a text and its label.")
    size = f"{min(sizes):,} to {max(sizes):,} characters"
    says = f"{shown(path)}: {rows} texts, {len(labels)} labels ({shares(labels)}), {size}, {forms}"
    # what was found is written down, so that a row that comes first one day does not change it
    at = {"text": columns.text, "label": columns.label}
    asked: dict[str, Any] = {"kind": "text", "path": str(path)}
    asked |= {key: place + 1 if isinstance(place, int) else place for key, place in at.items()}
    if tables[0].suffix != ".jsonl":
        asked["header"] = columns.header
    # all of them where no file is named after a split
    total = counts["train"] or counts.total()
    model = "bert-small" if total >= ROWS_FOR_SMALL else "bert-mini"
    why = {"data.text": columns.says}
    why["model"] = f"by the number of texts, {total:,}; bert-small from {ROWS_FOR_SMALL:,} on"
    return Look("text", says, {"name": job_name(path), "data": asked, "model": model}, why)
