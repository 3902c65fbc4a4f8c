"""Images in rows of Parquet: read row group by row group, of which a few at most are held, and each where it lies."""

from __future__ import annotations

import hashlib
import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thrifty.data.cells import parquet_errors
from thrifty.data.inputs import InputFile, Reject
from thrifty.data.picture_columns import PictureColumns, find_picture_columns, labels_of, scanned
from thrifty.data.row_groups import RowGroup, row_groups
from thrifty.data.split import split_by_words
from thrifty.data.unchanged import changed
from thrifty.errors import DataError
from thrifty.spec.data import Column
from thrifty.spec.units import format_bytes

if TYPE_CHECKING:
    import polars as pl

# row groups are read together up to so many bytes, and refused from so many on
BLOCK_BYTES, MOST_GROUP_BYTES = 16 * 2**20, 2**30
_KEPT = 2


@dataclass(frozen=True, slots=True)
class PictureRow:
    """An image in a row, with its label.

    Attributes:
        name: of the file and, after a colon, the row counted from 1.
        label: its class.
        split: the one that the file is named after; nothing where it is after none.
        sha256: of the image file in the cell.
    """

    name: str
    label: str
    split: str
    sha256: str
    row: int
    reader: PictureReader

    def read_unchanged(self) -> bytes:
        """Read the image file in the cell.

        Raises:
            DataError: the file has changed since, or is gone.
        """
        raw = self.reader.cell(self.row)
        if raw is None or hashlib.sha256(raw).hexdigest() != self.sha256:
            raise changed(self.name)
        return raw


class PictureReader:
    """Reads cells of images of a file by their rows.

    Attributes:
        blocks: rows that are read together, from and up to which, with the bytes of their images.
    """

    def __init__(self, file: InputFile, columns: PictureColumns, kept: Kept) -> None:
        self.file, self.columns, self._kept = file, columns, kept
        self.blocks = blocks_of(row_groups(file.path, file.name), columns.image)
        self._starts = [start for start, _, _ in self.blocks]

    def cells(self, block: int) -> pl.Series:
        """Read the image files of a block.

        Raises:
            DataError: it is damaged.
        """
        import polars

        start, end, _ = self.blocks[block]
        with parquet_errors(self.file.name):
            try:
                found = scanned(self.file).select(self.columns.image).slice(start, end - start).collect().to_series()
            except polars.exceptions.PanicException as error:
                raise OSError(str(error)) from error
        return self.columns.files(found)

    def cell(self, row: int) -> bytes | None:
        """Read the image file of a row, counted from 0; rows beside it are at hand for a while."""
        block = bisect_right(self._starts, row) - 1
        cells = self._kept.take((self.file.name, block), lambda: self.cells(block))
        found = cells[row - self._starts[block]]
        return found if isinstance(found, bytes) else None


class Kept:
    """The last blocks that were read, of all files together: rows are asked for in their order, by a few threads."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, int], pl.Series] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._blocks)

    def take(self, key: tuple[str, int], read: Callable[[], pl.Series]) -> pl.Series:
        """Return a block, read where it is not at hand."""
        with self._lock:
            found = self._blocks.pop(key, None)
            if found is None:
                while len(self._blocks) >= _KEPT:
                    # the longest unused gives way before another is read
                    del self._blocks[next(iter(self._blocks))]
                found = read()
            self._blocks[key] = found
            return found


def blocks_of(groups: Sequence[RowGroup], column: str) -> list[tuple[int, int, int]]:
    """Put row groups together that are read at once: first row, the row after the last, bytes of the column.

    >>> blocks_of([RowGroup(0, 2, {"x": 9 << 20}), RowGroup(2, 2, {"x": 5 << 20}), RowGroup(4, 1, {"x": 9 << 20})], "x")
    [(0, 4, 14680064), (4, 5, 9437184)]
    """
    found: list[tuple[int, int, int]] = []
    for group in groups:
        end, size = group.start + group.rows, group.column_bytes.get(column, 0)
        if found and found[-1][2] + size <= BLOCK_BYTES:
            start, _, before = found.pop()
            found.append((start, end, before + size))
        elif group.rows:
            found.append((group.start, end, size))
    return found


def read_pictures(
    file: InputFile, asked: Column | None, kept: Kept, *, max_file_bytes: int
) -> tuple[list[PictureRow], list[Reject]]:
    """List the labelled images of a file; what cannot be used is put aside.

    Args:
        file: Parquet.
        asked: the column of labels, by name or number; found when left out.
        kept: holds what is read, of all files.
        max_file_bytes: a larger image is put aside.
    """
    try:
        columns = find_picture_columns(file, asked)
        reader = PictureReader(file, columns, kept)
        labels = list(labels_of(file, columns))
    except DataError as error:
        return [], [Reject(file.name, "no images with labels", f": {error.what}")]
    pictures: list[PictureRow] = []
    rejects: list[Reject] = []
    split = split_by_words(file.name)
    for number, (start, end, size) in enumerate(reader.blocks):
        names = [f"{file.name}:{row + 1}" for row in range(start, end)]
        if size > MOST_GROUP_BYTES:
            told = f": {format_bytes(size)}, over the limit of {format_bytes(MOST_GROUP_BYTES)}"
            rejects += [Reject(name, "row group too large", told) for name in names]
            continue
        try:
            cells = reader.cells(number)
        except DataError as error:
            rejects += [Reject(name, "damaged row group", f": {error.what}") for name in names]
            continue
        for row, name, cell in zip(range(start, end), names, cells, strict=True):
            label = labels[row]
            if isinstance(label, Reject):
                rejects.append(label)
            elif cell is None:
                rejects.append(Reject(name, "no bytes in its cell"))
            elif len(cell) > max_file_bytes:
                limit = format_bytes(max_file_bytes)
                rejects.append(Reject(name, "too large", f": {format_bytes(len(cell))}, over the limit of {limit}"))
            else:
                pictures.append(PictureRow(name, label, split, hashlib.sha256(cell).hexdigest(), row, reader))
    return pictures, rejects
