"""Cells of tables, row by row: TSV, CSV, JSONL and Parquet, in whatever encoding.

TSV knows no quotes: a line is a row, a tab ends a cell. CSV is split by commas and may quote cells, over several lines
too (RFC 4180). JSONL holds an object on each line, whose keys are its columns, as Parquet's rows have names.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from thrifty.data.encodings import SAMPLE_BYTES, UTF8, Encoding, find_encoding
from thrifty.errors import DataError

if TYPE_CHECKING:
    import polars as pl

PARQUET, JSONL = ".parquet", ".jsonl"
# of Parquet, so that no more of a file is held
ROWS_AT_ONCE = 20_000
# characters of a cell of CSV at least, as csv has it
LONGEST_CELL = 1 << 17

Cells = list[str] | dict[str, Any]
Problem = tuple[str, str]


def read_cells(
    name: str, stream: BinaryIO, most_bytes: float, encoding: str | None = None
) -> Iterator[tuple[int, Cells | Problem]]:
    """Go through a file: the line of each row, counted from 1, with its cells or what is wrong with it.

    No more of it is held than a row, of Parquet than `ROWS_AT_ONCE`.

    Args:
        name: of the file, whose suffix tells its form.
        stream: its content, from the beginning; of Parquet a file or what is like one.
        most_bytes: a longer row cannot be used.
        encoding: that the job names; found when left out.

    Raises:
        DataError: it is no Parquet file, where its name says so.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == PARQUET:
        yield from _parquet(name, stream, most_bytes)
        return
    found = encoding_of(stream, encoding)
    stream.read(found.mark)
    # bytes that are none of the encoding come as lone surrogates, so that one bad row does not take the file with it
    file = io.TextIOWrapper(stream, found.name or UTF8, "surrogateescape", newline="" if suffix == ".csv" else "\n")
    try:
        yield from _rows(suffix, file, most_bytes)
    except UnicodeDecodeError as error:
        yield 0, (f"not {error.encoding}", f": {error.reason}; what follows is not read")
    finally:
        # left open, for it is another's; who closed it before has no need of that
        with contextlib.suppress(ValueError):
            file.detach()


def encoding_of(stream: BinaryIO, asked: str | None = None) -> Encoding:
    """Tell what a file is written in by its beginning, to which it is turned back.

    >>> encoding_of(io.BytesIO("größer".encode())).name
    'utf-8'
    """
    head = stream.read(SAMPLE_BYTES + 1)
    stream.seek(0)
    return find_encoding(head[: SAMPLE_BYTES + 1], whole=len(head) <= SAMPLE_BYTES, asked=asked)


def _rows(suffix: str, file: io.TextIOWrapper, most_bytes: float) -> Iterator[tuple[int, Cells | Problem]]:
    if suffix == ".csv":
        yield from _csv(file, int(most_bytes))
        return
    for line, content in enumerate(file, 1):
        content = content.rstrip("\r\n")
        if not content:
            continue
        if problem := _unusable(content, most_bytes):
            yield line, problem
        elif suffix == JSONL:
            yield line, parse_object(content)
        else:
            yield line, content.split("\t")


def _csv(file: io.TextIOWrapper, most_bytes: int) -> Iterator[tuple[int, Cells | Problem]]:
    reader = csv.reader(file, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next_row(reader, most_bytes)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, ("not CSV", f": {error}, up to line {reader.line_num}")
            continue
        if cells:
            yield line, _unusable(",".join(cells), most_bytes) or cells


def next_row(reader: Iterator[list[str]], most_bytes: int) -> list[str]:
    """Read a row of CSV; a cell that is far too long ends it.

    The limit is the process's, and another reader may have set its own since the last row.

    Raises:
        csv.Error: it is no row.
        StopIteration: there is none.
    """
    csv.field_size_limit(max(LONGEST_CELL, most_bytes))
    return next(reader)


def _unusable(content: str, most_bytes: float) -> Problem | None:
    if content.isascii() and len(content) <= most_bytes:
        return None
    try:
        size = len(content.encode("utf-8"))
    except UnicodeEncodeError as error:
        return "not UTF-8", f" at character {error.start + 1}"
    return ("row too long", f": {size:,} bytes, over the limit of {most_bytes:,.0f}") if size > most_bytes else None


def load_json(text: str) -> Any:
    """Read JSON; an object that names a key twice is refused, lest one of the two be taken.

    Raises:
        ValueError: it is none.
        RecursionError: it is too deep.

    >>> load_json('{"label": 1}')
    {'label': 1}
    """
    return json.loads(text, object_pairs_hook=named_once)


def named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of some pairs of JSON.

    Raises:
        ValueError: two of them have one key.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"key '{twice[:60]}' comes twice")
    return found


def parse_object(content: str, decode: Callable[[str], Any] = load_json) -> dict[str, Any] | Problem:
    """Read a line of JSONL, or say what is wrong with it.

    >>> parse_object('{"a": 1}'), parse_object("[1]")
    ({'a': 1}, ('not a JSON object', ': list'))
    """
    try:
        found = decode(content)
    except (ValueError, RecursionError) as error:
        return "not JSON", f": {' '.join(str(error).split())[:200]}"
    return found if isinstance(found, dict) else ("not a JSON object", f": {type(found).__name__}")


def _parquet(name: str, stream: BinaryIO, most_bytes: float) -> Iterator[tuple[int, Cells | Problem]]:
    for begin, rows in parquet_parts(name, stream, ROWS_AT_ONCE):
        for line, row in enumerate(rows.iter_rows(named=True), begin + 1):
            texts = "".join(cell for cell in row.values() if isinstance(cell, str))
            yield line, _unusable(texts, most_bytes) or row


def parquet_parts(
    name: str, source: str | BinaryIO, rows_at_once: int, column: str | None = None
) -> Iterator[tuple[int, pl.DataFrame]]:
    """Go through a Parquet file; no more of it is held than some rows.

    Args:
        name: of the file, for errors.
        source: its path, or its content.
        rows_at_once: of a part, at most.
        column: that alone is read; all when left out.

    Returns:
        Of each part how many rows come before it, and its rows; of a file without rows one part that has none.

    Raises:
        DataError: it is no Parquet file.
    """
    import polars

    with parquet_errors(name):
        # a name is no pattern: it may hold brackets
        table = polars.scan_parquet(source, glob=False)
        table = table if column is None else table.select(column)
        count = int(table.select(polars.len()).collect().item())
    for begin in range(0, max(count, 1), rows_at_once):
        with parquet_errors(name):
            rows = table.slice(begin, rows_at_once).collect()
        yield begin, rows


@contextlib.contextmanager
def parquet_errors(name: str) -> Iterator[None]:
    """Say of which file it was that Parquet could not be read."""
    import polars

    try:
        yield
    except (polars.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"'{name}' is no Parquet file that can be read: {' '.join(str(error).split())[:200]}",
            mend="Write it anew, or remove it.",
        ) from error


def is_unicode(text: str) -> bool:
    """Say whether UTF-8 can hold a text: JSON can spell half of a surrogate pair, which it cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
