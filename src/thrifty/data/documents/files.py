"""Documents out of files: a text file is one, each row of a JSONL or Parquet file is one; packed or not.

A text is read in chunks and a table row by row, so that memory holds a chunk or a row, however large the file is.
"""

from __future__ import annotations

import codecs
import contextlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from thrifty.data.cells import is_unicode, load_json, parquet_errors, parquet_parts
from thrifty.data.documents.packed_files import inner_name, unpacking
from thrifty.data.encodings import SAMPLE_BYTES, UTF8, Encoding, find_encoding
from thrifty.data.inputs import InputFile, Reject
from thrifty.data.unchanged import open_unchanged
from thrifty.errors import DataError, nearest
from thrifty.spec import LanguageData

ROW_SUFFIXES = (".jsonl", ".ndjson", ".parquet")
_CHUNK_BYTES = 1 << 20
_ROWS_AT_ONCE = 4096


class UnusableTextError(Exception):
    """A text turned out, while it was read, to be none: ``problem`` is the reason and the detail of its reject."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason + detail)
        self.problem = (reason, detail)


@dataclass(frozen=True, slots=True)
class Text:
    """A document as it is read.

    Attributes:
        row: in its file, from 1; 0 where the file is the document.
        chunks: its text, one after the other; to be read before the next document is asked for.
        encoding: what its file is written in.
    """

    row: int
    chunks: Iterator[str]
    encoding: str = UTF8


def read_documents(data: LanguageData, file: InputFile, sha256: str) -> Iterator[Text | Reject]:
    """Go through the documents of a file; rows that cannot be used come as rejects.

    Raises:
        UnusableTextError: while chunks are read: bytes that are no text.
        DataError: a packed file is damaged or unpacks to too much, a table lacks the column of texts, or the file has
            changed since it was hashed.
    """
    inside = inner_name(file.name)
    suffix = PurePosixPath(inside).suffix.lower()
    with open_unchanged(file, sha256) as raw:
        if suffix == ".parquet" and inside == file.name:
            yield from _parquet(data, file)
            return
        with unpacking(raw, file.name, file.size) as stream:
            if suffix in ROW_SUFFIXES:
                yield from _json_rows(data, file.name, stream)
            else:
                yield _whole(data, stream)


def _whole(data: LanguageData, stream: BinaryIO) -> Text:
    # read in a loop: a stream that unpacks may give less than it is asked for
    head = b""
    while len(head) <= SAMPLE_BYTES and (chunk := stream.read(_CHUNK_BYTES)):
        head += chunk
    encoding = find_encoding(head, whole=len(head) <= SAMPLE_BYTES, asked=data.encoding)
    return Text(0, _decoded(head[encoding.mark :], stream, encoding), encoding.name)


def _decoded(head: bytes, stream: BinaryIO, encoding: Encoding) -> Iterator[str]:
    if not encoding.name:
        raise UnusableTextError(*encoding.problem)
    decoder = codecs.getincrementaldecoder(encoding.name)("strict")
    place, raw = encoding.mark, head
    while True:
        kept = len(decoder.getstate()[0])
        try:
            chunk = decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            what = "not UTF-8" if encoding.name == UTF8 else f"not {encoding.name}"
            raise UnusableTextError(what, f" at byte {place - kept + error.start}") from error
        if (at := chunk.find("\0")) >= 0:
            before = len(chunk[:at].encode(encoding.name))
            raise UnusableTextError("binary", f": NUL at byte {place - kept + before}")
        if chunk:
            yield chunk
        if not raw:
            return
        place += len(raw)
        raw = stream.read(_CHUNK_BYTES)


def _json_rows(data: LanguageData, name: str, stream: BinaryIO) -> Iterator[Text | Reject]:
    most = int(data.max_row_bytes)
    row, keys = 0, set[str]()
    found = False
    while line := stream.readline(most + 1):
        row += 1
        here = f"{name}:{row}"
        if len(line) > most:
            while line and not line.endswith(b"\n"):
                line = stream.readline(_CHUNK_BYTES)
            yield Reject(here, "row too long", f": over the limit of {most:,} bytes")
            continue
        if not line.strip():
            continue
        try:
            content = load_json(line.rstrip(b"\r\n").decode("utf-8-sig" if row == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            yield Reject(here, "not UTF-8", f" at byte {error.start}")
            continue
        except (ValueError, RecursionError) as error:
            yield Reject(here, "not JSON", f": {' '.join(str(error).split())[:200]}")
            continue
        if not isinstance(content, dict):
            yield Reject(here, "not a JSON object", f": {type(content).__name__}")
            continue
        keys |= content.keys() if not found else set()
        found = found or data.text in content
        yield _of_cell(here, row, content.get(data.text))
    if keys and not found:
        raise no_column(name, data.text, sorted(keys))


def _parquet(data: LanguageData, file: InputFile) -> Iterator[Text | Reject]:
    import polars

    with parquet_errors(file.name):
        names = polars.scan_parquet(file.path, glob=False).collect_schema().names()
    if data.text not in names:
        raise no_column(file.name, data.text, names)
    for begin, rows in parquet_parts(file.name, file.path, _ROWS_AT_ONCE, data.text):
        for row, cell in enumerate(rows[data.text].to_list(), begin + 1):
            yield _of_cell(f"{file.name}:{row}", row, cell)


def first_rows(file: InputFile, count: int) -> dict[str, list[Any]]:
    """Return the cells of the first rows of a file by column; rows that cannot be read are passed over.

    Raises:
        DataError: it is a packed file that is damaged, or no Parquet.
    """
    if file.suffix == ".parquet":
        return _first_of_parquet(file, count)
    cells: dict[str, list[Any]] = {}
    with Path(file.path).open("rb") as raw, unpacking(raw, file.name, file.size) as stream:
        for line in itertools.islice(stream, count):
            with contextlib.suppress(ValueError, RecursionError):
                content = json.loads(line)
                for name, cell in content.items() if isinstance(content, dict) else ():
                    cells.setdefault(name, []).append(cell)
    return cells


def _first_of_parquet(file: InputFile, count: int) -> dict[str, list[Any]]:
    import polars

    with parquet_errors(file.name):
        rows = polars.scan_parquet(file.path, glob=False).head(count).collect()
        return {name: rows[name].to_list() for name in rows.columns}


def _of_cell(here: str, row: int, cell: Any) -> Text | Reject:
    if cell is None:
        return Reject(here, "empty")
    if not isinstance(cell, str):
        return Reject(here, "text is no text", f": {type(cell).__name__}")
    if "\0" in cell:
        return Reject(here, "binary", f": NUL at character {cell.index(chr(0))}")
    if not is_unicode(cell):
        return Reject(here, "not Unicode", ": half of a pair of surrogates")
    return Text(row, iter((cell,)))


def no_column(name: str, column: str, names: list[str]) -> DataError:
    """The error of a table that lacks the column of texts."""
    return DataError(
        f"'{name}' has no column '{column}'",
        nearest=nearest(column, names),
        mend=f"Name the column of texts, data.text; its columns: {', '.join(names)[:200]}.",
    )
