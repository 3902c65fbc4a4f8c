"""Rows of CSV, TSV, JSONL and Parquet as frames of cells, batch after batch; rows that cannot be used come as rejects.

A cell is text, or what Parquet says it is; there may be space around it. Blank lines are passed over.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from thrifty.data.cells import JSONL, PARQUET, next_row, parquet_parts
from thrifty.data.inputs import InputFile, Reject
from thrifty.data.tables.json_rows import read_row
from thrifty.data.tables.layout import SAMPLED_BYTES, Layout
from thrifty.data.unchanged import open_unchanged

if TYPE_CHECKING:
    import polars as pl

BLOCK_BYTES = 8 * 2**20
BLOCK_ROWS = 250_000


@dataclass(frozen=True)
class Block:
    """Some rows of a file.

    Attributes:
        frame: a column for each name of the layout.
        lines: where each row begins, int64 [N]: its line, or of Parquet its row, counted from 1.
        rejects: rows among them that cannot be used, not in the frame.
    """

    frame: pl.DataFrame
    lines: np.ndarray
    rejects: list[Reject]


def read_blocks(file: InputFile, sha256: str, layout: Layout, most_bytes: float) -> Iterator[Block]:
    """Go through a file; no more of it is held than a block.

    Args:
        file: CSV, TSV, JSONL or Parquet.
        sha256: of the content that is expected.
        layout: how its rows are written.
        most_bytes: a longer row is a reject.

    Raises:
        DataError: it has changed, cannot be read, or is no Parquet.
    """
    if file.suffix == PARQUET:
        with open_unchanged(file, sha256):
            yield from _read_parquet(file)
        return
    line = 1
    for block in _blocks(file, sha256, int(most_bytes)):
        found = _even(block, line, layout, int(most_bytes)) if layout.separator else None
        if found is None:
            text, problems = _decoded(block, file.name, line)
            found = _reader(layout, text)(text, file.name, line, layout, int(most_bytes))
            found = Block(found.frame, found.lines, [*problems, *found.rejects])
        line += block.count(b"\n")
        yield _without_header(found, layout)


def first_block(file: InputFile, layout: Layout, most_bytes: int = 2**20) -> pl.DataFrame:
    """Read some rows of a file's beginning, without space around texts.

    Raises:
        DataError: it is no Parquet.
    """
    import polars as pl

    return _first_rows(file, layout, most_bytes).with_columns(pl.col(pl.String).str.strip_chars())


def _first_rows(file: InputFile, layout: Layout, most_bytes: int) -> pl.DataFrame:
    if file.suffix == PARQUET:
        return next(_read_parquet(file)).frame
    with Path(file.path).open("rb") as stream:
        head = stream.read(SAMPLED_BYTES).removeprefix(b"\xef\xbb\xbf")
    end = head.rfind(b"\n") + 1 if file.suffix == JSONL else _whole_rows(head)
    text, _ = _decoded(head[:end] or head + b"\n", file.name, 1)
    found = _reader(layout, text)(text, file.name, 1, layout, most_bytes)
    return _without_header(found, layout).frame


def _reader(layout: Layout, text: str) -> Callable[[str, str, int, Layout, int], Block]:
    if not layout.separator:
        return _objects
    return _quoted if '"' in text else _plain


def _without_header(found: Block, layout: Layout) -> Block:
    keep = found.lines != layout.header_line
    return found if keep.all() else Block(found.frame.filter(keep), found.lines[keep], found.rejects)


def _blocks(file: InputFile, sha256: str, most_bytes: int) -> Iterator[bytes]:
    """Whole rows, about a block at once; at the end the content is that of the hash, or nothing was read."""
    rest = b""
    with open_unchanged(file, sha256) as stream:
        while block := stream.read(BLOCK_BYTES):
            block = rest + block
            end = block.rfind(b"\n") + 1 if file.suffix == JSONL else _whole_rows(block)
            if not end and len(block) > BLOCK_BYTES + most_bytes:
                end = block.rfind(b"\n") + 1 or len(block)
            if end:
                yield block[:end].removeprefix(b"\xef\xbb\xbf")
            rest = block[end:]
    if rest:
        yield rest.removeprefix(b"\xef\xbb\xbf") + b"\n"


def _whole_rows(block: bytes) -> int:
    """Bytes up to the end of the last whole row: a line's end within quotes ends none."""
    last = len(block)
    quotes = block.count(b'"')
    while (end := block.rfind(b"\n", 0, last)) >= 0:
        quotes -= block.count(b'"', end, last)
        if quotes % 2 == 0:
            return end + 1
        last = end
    return 0


def _decoded(block: bytes, name: str, line: int) -> tuple[str, list[Reject]]:
    """Lines as text; those that are no UTF-8, or hold NUL, are left blank and come as rejects."""
    try:
        text = block.decode("utf-8")
        if "\0" not in text:
            return text, []
    except UnicodeDecodeError:
        pass
    kept, rejects = [], []
    for at, raw in enumerate(block.split(b"\n"), line):
        try:
            found = raw.decode("utf-8")
            problem = ("binary", ": NUL in the row") if "\0" in found else None
        except UnicodeDecodeError as error:
            found, problem = "", ("not UTF-8", f" at byte {error.start + 1}")
        if problem:
            rejects.append(Reject(f"{name}:{at}", *problem))
        kept.append("" if problem else found)
    return "\n".join(kept), rejects


def _even(block: bytes, line: int, layout: Layout, most_bytes: int) -> Block | None:
    """Lines of which nothing is to be said: each a row without quotes, of as many cells as there are columns.

    None where a line is something else: then each is looked at by itself.
    """
    import polars as pl

    if b'"' in block or b"\0" in block:
        return None
    octets = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(octets == ord("\n"))
    separators = int(np.count_nonzero(octets == ord(layout.separator)))
    # a line of fewer cells would need one of more, which the reader refuses
    if (
        not len(ends)
        or separators != len(ends) * (layout.width - 1)
        or int(np.diff(ends, prepend=-1).max()) > most_bytes
    ):
        return None
    try:
        block.decode()
        frame = pl.read_csv(
            block, has_header=False, separator=layout.separator, quote_char=None,
            schema=dict.fromkeys(layout.names, pl.String),
        )  # fmt: skip
    except (UnicodeDecodeError, pl.exceptions.PolarsError):
        return None
    assert len(frame) == len(ends)
    return Block(frame, np.arange(line, line + len(frame)), [])


def _plain(text: str, name: str, line: int, layout: Layout, most_bytes: int) -> Block:
    """Rows without quotes: a line each."""
    import polars as pl

    lines = pl.DataFrame({"line": pl.Series(text.split("\n"), dtype=pl.String).str.strip_chars("\r")})
    rows = (
        lines.with_row_index("at", offset=line)
        .filter(pl.col("line").str.strip_chars() != "")
        .with_columns(cells=pl.col("line").str.split(layout.separator), bytes=pl.col("line").str.len_bytes())
        .with_columns(width=pl.col("cells").list.len())
    )
    good = (pl.col("width") == layout.width) & (pl.col("bytes") <= most_bytes)
    kept = rows.filter(good)
    frame = kept.select(pl.col("cells").list.get(at).alias(column) for at, column in enumerate(layout.names))
    wrong = rows.filter(~good).select("at", "width", "bytes").iter_rows()
    rejects = [_refused(f"{name}:{at}", width, size, layout, most_bytes) for at, width, size in wrong]
    return Block(frame, kept["at"].to_numpy().astype(np.int64), rejects)


def _quoted(text: str, name: str, line: int, layout: Layout, most_bytes: int) -> Block:
    """Rows with quotes, which may hold the separator and ends of lines (RFC 4180)."""
    import polars as pl

    reader = csv.reader(io.StringIO(text, newline=""), delimiter=layout.separator, strict=True, skipinitialspace=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    rejects: list[Reject] = []
    while True:
        at = line + reader.line_num
        try:
            cells = next_row(reader, most_bytes)
        except StopIteration:
            break
        except csv.Error as error:
            rejects.append(Reject(f"{name}:{at}", "not CSV", f": {error}, up to line {line + reader.line_num - 1}"))
            continue
        if not any(cell.strip() for cell in cells):
            continue
        size = sum(len(cell.encode()) + 1 for cell in cells) - 1
        if len(cells) != layout.width or size > most_bytes:
            rejects.append(_refused(f"{name}:{at}", len(cells), size, layout, most_bytes))
        else:
            rows.append(cells)
            lines.append(at)
    schema = dict.fromkeys(layout.names, pl.String)
    return Block(pl.DataFrame(rows, schema=schema, orient="row"), np.array(lines, np.int64), rejects)


def _objects(text: str, name: str, line: int, layout: Layout, most_bytes: int) -> Block:
    """Rows of JSONL: an object on each line."""
    import polars as pl

    rows, lines, rejects = [], [], []
    for at, content in enumerate(text.split("\n"), line):
        if not content.strip():
            continue
        size = len(content.encode())
        if size > most_bytes:
            rejects.append(_refused(f"{name}:{at}", 0, size, layout, most_bytes))
            continue
        found = read_row(content, layout.names)
        if isinstance(found, tuple):
            rejects.append(Reject(f"{name}:{at}", *found))
        else:
            rows.append(found)
            lines.append(at)
    schema = dict.fromkeys(layout.names, pl.String)
    return Block(pl.DataFrame(rows, schema=schema, orient="row"), np.array(lines, np.int64), rejects)


def _refused(name: str, width: int, size: int, layout: Layout, most_bytes: int) -> Reject:
    if size > most_bytes:
        return Reject(name, "row too long", f": {size:,} bytes, over the limit of {most_bytes:,}")
    return Reject(name, "ragged row", f": {width} cells, {layout.width} are usual")


def _read_parquet(file: InputFile) -> Iterator[Block]:
    for before, frame in parquet_parts(file.name, file.path, BLOCK_ROWS):
        yield Block(_flat(frame), np.arange(before + 1, before + 1 + len(frame)), [])


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Cells that one value fills: numbers as they are, all else as text; lists and records are no cells."""
    import polars as pl

    plain = []
    for column in frame.iter_columns():
        if column.dtype.is_numeric():
            plain.append(column)
        elif not (column.dtype.is_nested() or column.dtype == pl.Binary):
            plain.append(column.cast(pl.String))
    return pl.DataFrame(plain)


def columns_of(path: str) -> Sequence[str]:
    """Return the names of the columns of a Parquet file that hold cells."""
    import polars as pl

    schema = pl.read_parquet_schema(path)
    return [name for name, kind in schema.items() if not (kind.is_nested() or kind == pl.Binary)]
