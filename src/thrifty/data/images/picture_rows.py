"""Images in rows of Parquet: read row group by row group, of which a few at most are held, and each where it lies."""

from __future__ import annotations

import hashlib
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thrifty.data.cells import parquet_errors
from thrifty.data.images.picture_columns import PictureColumns, find_picture_columns, labels_of
from thrifty.data.inputs import InputFile, Reject
from thrifty.data.split import split_by_words
from thrifty.data.unchanged import changed
from thrifty.errors import DataError, MissingExtraError
from thrifty.spec.data import Column
from thrifty.spec.units import format_bytes

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

# row groups are read together up to so many bytes, and refused from so many on
BLOCK_BYTES, MOST_GROUP_BYTES = 16 * 2**20, 2**30
_KEPT, _BUFFER_BYTES = 2, 2**20


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


@dataclass(frozen=True, slots=True)
class Block:
    """Row groups that are read together.

    Attributes:
        start, end: their first row, counted from 0, and the one after their last.
        size_bytes: of their images, once unpacked.
        groups: their numbers in the file, from 0.
    """

    start: int
    end: int
    size_bytes: int
    groups: range


class PictureReader:
    """Reads cells of images of a file by their rows.

    Args:
        file: Parquet.
        columns: where its images stand.
        kept: holds what is read, of all files.

    Attributes:
        blocks: rows that are read together.

    Raises:
        DataError: it is no Parquet file.
        MissingExtraError: ``pyarrow`` is not installed.
    """

    def __init__(self, file: InputFile, columns: PictureColumns, kept: Kept) -> None:
        self.file, self._kept = file, kept
        self._column = f"{columns.image}.bytes" if columns.nested else columns.image
        with _opened(file) as parquet:
            number = [column.path for column in parquet.schema].index(self._column)
            groups = [parquet.metadata.row_group(at) for at in range(parquet.num_row_groups)]
            self.blocks = blocks_of((group.num_rows, group.column(number).total_uncompressed_size) for group in groups)
        self._starts = [block.start for block in self.blocks]

    def cells(self, number: int) -> pyarrow.ChunkedArray:
        """Read the image files of a block.

        Raises:
            DataError: it is damaged.
        """
        block = self.blocks[number]
        with _opened(self.file) as parquet:
            rows = parquet.read_row_groups(block.groups, columns=[self._column], use_threads=False)
            # a struct of the bytes alone becomes these; without a struct they are what they were
            found = rows.flatten().column(self._column)
            if len(found) != block.end - block.start:
                raise ValueError(f"{len(found):,} rows where its footer says {block.end - block.start:,}")
        return found

    def cell(self, row: int) -> bytes | None:
        """Read the image file of a row, counted from 0; rows beside it are at hand for a while."""
        number = bisect_right(self._starts, row) - 1
        cells = self._kept.take((self.file.name, number), lambda: self.cells(number))
        found = cells[row - self._starts[number]].as_py()
        return found if isinstance(found, bytes) else None


@contextmanager
def _opened(file: InputFile) -> Iterator[pyarrow.parquet.ParquetFile]:
    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("images in rows of Parquet", package="pyarrow", extra="parquet") from None
    with parquet_errors(file.name):
        try:
            # what is read ahead, and columns read at one go, would be held beside the images
            with pyarrow.parquet.ParquetFile(file.path, pre_buffer=False, buffer_size=_BUFFER_BYTES) as parquet:
                yield parquet
        except (pyarrow.ArrowException, LookupError, ValueError) as error:
            raise OSError(str(error)) from error


class Kept:
    """The last blocks that were read, of all files together: rows are asked for in their order, by a few threads."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, int], pyarrow.ChunkedArray] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._blocks)

    def take(self, key: tuple[str, int], read: Callable[[], pyarrow.ChunkedArray]) -> pyarrow.ChunkedArray:
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


def blocks_of(groups: Iterable[tuple[int, int]]) -> list[Block]:
    """Put row groups together that are read at once.

    Args:
        groups: of each its rows, and the bytes of its images.

    >>> [(block.start, block.end, block.groups) for block in blocks_of([(2, 9 << 20), (2, 5 << 20), (1, 9 << 20)])]
    [(0, 4, range(0, 2)), (4, 5, range(2, 3))]
    """
    found: list[Block] = []
    start = 0
    for number, (rows, size) in enumerate(groups):
        if found and found[-1].size_bytes + size <= BLOCK_BYTES:
            last = found.pop()
            found.append(Block(last.start, start + rows, last.size_bytes + size, range(last.groups.start, number + 1)))
        elif rows:
            found.append(Block(start, start + rows, size, range(number, number + 1)))
        start += rows
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

    Raises:
        MissingExtraError: ``pyarrow`` is not installed.
    """
    try:
        columns = find_picture_columns(file, asked)
        reader = PictureReader(file, columns, kept)
        labels = list(labels_of(file, columns))
        if len(labels) != sum(block.end - block.start for block in reader.blocks):
            raise DataError(f"it has {len(labels):,} labels, and another number of images")
    except DataError as error:
        return [], [Reject(file.name, "no images with labels", f": {error.what}")]
    pictures: list[PictureRow] = []
    rejects: list[Reject] = []
    split = split_by_words(file.name)
    for number, block in enumerate(reader.blocks):
        names = [f"{file.name}:{row + 1}" for row in range(block.start, block.end)]
        if block.size_bytes > MOST_GROUP_BYTES:
            told = f": {format_bytes(block.size_bytes)}, over the limit of {format_bytes(MOST_GROUP_BYTES)}"
            rejects += [Reject(name, "row group too large", told) for name in names]
            continue
        try:
            cells = reader.cells(number)
        except DataError as error:
            rejects += [Reject(name, "damaged row group", f": {error.what}") for name in names]
            continue
        for row, name, found in zip(range(block.start, block.end), names, cells, strict=True):
            cell, label = found.as_py(), labels[row]
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
