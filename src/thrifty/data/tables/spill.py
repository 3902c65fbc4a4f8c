"""All rows of a table's files, read once: cells spilled to disk block by block, and what is known of each row beside.

Memory holds a block of cells. Shapes: N rows of all files.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from thrifty.data.ahead import THREADS, read_ahead
from thrifty.data.cells import JSONL, PARQUET, parquet_errors
from thrifty.data.inputs import InputFile, Reject
from thrifty.data.inventory import Inventory
from thrifty.data.split import split_of
from thrifty.data.tables.blocks import columns_of, read_blocks
from thrifty.data.tables.coded import Cells, Coder, Counted, count_cells
from thrifty.data.tables.columns import Tally
from thrifty.data.tables.json_rows import find_keys
from thrifty.data.tables.layout import SAMPLED_BYTES, Layout, find_layout
from thrifty.data.tables.row_hashes import hash_rows, hash_texts
from thrifty.data.tables.tape import Tape
from thrifty.data.tables.target import name_target
from thrifty.data.teller import Teller
from thrifty.errors import DataError, nearest
from thrifty.spec import TableData
from thrifty.spec.events import Emit

if TYPE_CHECKING:
    import polars as pl

# how the machine learning repository of UCI ends the names of its splits
SUFFIX_SPLITS = {".data": "train", ".train": "train", ".test": "test"}


@dataclass(frozen=True)
class Spilled:
    """A block of rows of one file, on disk.

    Attributes:
        codes, values: where the rows lie, and the different cells of the columns that are coded.
        coded: the names of these.
        start, count: of the rows.
        file: the place of the file in `Spill.sources`.
    """

    codes: Path
    values: Path
    coded: frozenset[str]
    start: int
    count: int
    file: int

    @property
    def rows(self) -> slice:
        """Where its rows stand among all."""
        return slice(self.start, self.start + self.count)

    def read(self, names: Sequence[str]) -> dict[str, Cells]:
        """Return the cells of some columns."""
        import polars as pl

        rows = pl.read_ipc(self.codes, columns=list(names))
        coded = [name for name in names if name in self.coded]
        values = pl.read_ipc(self.values, columns=coded) if coded else pl.DataFrame()
        return {
            name: Cells(values[name][0], rows[name].to_numpy()) if name in self.coded else Cells(rows[name])
            for name in names
        }


def lay_down(columns: Mapping[str, Cells], place: Path, *, start: int, file: int) -> Spilled:
    """Write a block of rows beside a path, to be read in part; the rest is as of `Spilled`."""
    import polars as pl

    coded = frozenset(name for name, cells in columns.items() if cells.codes is not None)
    rows = pl.DataFrame({name: cells.values if cells.codes is None else cells.codes for name, cells in columns.items()})
    block = Spilled(place.with_suffix(".codes"), place.with_suffix(".values"), coded, start, len(rows), file)
    rows.write_ipc(block.codes)
    pl.DataFrame({name: [cells.values] for name, cells in columns.items() if name in coded}).write_ipc(block.values)
    return block


@dataclass(frozen=True)
class Spill:
    """The rows of all files, in order.

    Attributes:
        names: of the columns, as the first file to train on has them.
        says: how that file is written.
        tallies: what the cells of each column were.
        digests: of each row's cells but the target, uint64 [N]; equal rows have the same.
        lines: of each row its line in its file, int64 [N].
        sources: the names of the files that were read.
        rejects: rows that could not be read.
        blocks: where the cells lie.
    """

    names: tuple[str, ...]
    says: str
    tallies: dict[str, Tally]
    digests: Tape
    lines: Tape
    sources: tuple[str, ...]
    rejects: tuple[Reject, ...]
    blocks: tuple[Spilled, ...]

    def column(self, name: str) -> Iterator[Cells]:
        """The cells of one column, block by block."""
        return (block.read([name])[name] for block in self.blocks)

    def name(self, row: int) -> str:
        """Name a row by its file and line."""
        block = self.blocks[bisect(self.blocks, row, key=lambda each: each.start) - 1]
        return f"{self.sources[block.file]}:{self.lines.read(row, row + 1)[0]}"


def table_split(name: str) -> str:
    """Tell the split that a file is named after, as `split_of`, or by its suffix where UCI's say so.

    >>> table_split("adult.data"), table_split("adult.test"), table_split("dev.csv"), table_split("housing.csv")
    ('train', 'test', 'validation', '')
    """
    suffix = f".{name.rpartition('.')[2].lower()}"
    return split_of(name) or SUFFIX_SPLITS.get(suffix, "")


def layout_of(file: InputFile, *, header: bool | None = None, names: tuple[str, ...] = ()) -> Layout:
    """Tell how a file is written, from its beginning; ``names`` are those of its columns where it has none.

    Raises:
        DataError: it is no table, or has another number of columns.
    """
    if file.suffix == PARQUET:
        with parquet_errors(file.name):
            return Layout("", tuple(columns_of(file.path)), form="Parquet")
    with Path(file.path).open("rb") as stream:
        head = stream.read(SAMPLED_BYTES)
    if file.suffix == JSONL:
        whole = head if len(head) < SAMPLED_BYTES else head[: head.rfind(b"\n") + 1] or head
        return Layout("", find_keys(file.name, whole), form="JSONL")
    found = find_layout(file.name, head, header=False if names else header)
    if names and len(names) != found.width:
        raise DataError(
            f"data.names has {len(names)} names, and '{file.name}' {found.width} columns", mend="Name each of them."
        )
    return replace(found, names=names) if names else found


class Reader:
    """Codes, hashes and counts the cells of one column, block after block."""

    def __init__(self) -> None:
        self._coder, self._tally = Coder(), Tally()
        self._hashes, self._counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)

    def read(self, cells: pl.Series) -> tuple[Cells, NDArray[np.uint64]]:
        """Return the cells of a block and the hash of each row's: uint64 [n]."""
        import polars as pl

        found = self._coder.code(cells)
        if found.codes is None:
            self._tally.add(count_cells([found]))
            return found, hash_texts(found.values.cast(pl.String))
        fresh = len(found.values) - len(self._hashes)
        if fresh:
            self._hashes = np.concatenate([self._hashes, hash_texts(found.values.tail(fresh))])
            self._counts = np.pad(self._counts, (0, fresh))
        self._counts += found.counts()
        return found, found.spread(self._hashes)

    def tally(self) -> Tally:
        """Count what was coded, and return what all cells were."""
        if self._coder.values is not None:
            self._tally.add(Counted(self._coder.values, self._counts))
        return self._tally


def spill(data: TableData, inventory: Inventory, given: Mapping[str, str], folder: Path, emit: Emit) -> Spill:
    """Read the files that have a split, those to train on first, and spill their cells into a folder.

    Raises:
        DataError: a file lacks a column, has changed, or there are too many rows.
    """
    order = sorted(
        (file for file in inventory.files if file.name in given), key=lambda file: given[file.name] != "train"
    )
    first = layout_of(order[0], header=data.header, names=data.names)
    target, _ = name_target(data, first.names)
    teller = Teller(len(order), emit)
    digests, lines = Tape(folder / "digests", np.uint64), Tape(folder / "lines", np.int64)
    blocks: list[Spilled] = []
    rejects: list[Reject] = []

    readers = {name: Reader() for name in first.names}

    with ThreadPoolExecutor(THREADS) as pool:
        for place, file in enumerate(order):
            layout = first if file is order[0] else layout_of(file, header=data.header, names=data.names)
            _check_columns(file.name, layout, first, order[0].name)
            for cells in read_ahead(read_blocks(file, inventory.hashes[file.name], layout, data.max_row_bytes)):
                rejects += cells.rejects
                if not len(cells.frame):
                    continue
                read = pool.map(lambda cells: readers[cells.name].read(cells), cells.frame.select(first.names))
                found = dict(zip(first.names, read, strict=True))
                columns = {name: column for name, (column, _) in found.items()}
                blocks.append(lay_down(columns, folder / f"{len(blocks):06}", start=len(digests), file=place))
                digests.append(hash_rows(hashes for name, (_, hashes) in found.items() if name != target))
                lines.append(cells.lines)
                if len(digests) > data.max_rows:
                    raise DataError(
                        f"'{data.path}' has over {data.max_rows:,} rows, the limit of data.max_rows",
                        mend="Raise it, or take a part.",
                    )
            teller.count(1)
    if not blocks:
        raise DataError(f"no row of '{data.path}' can be used", mend="A table has rows of several columns, in UTF-8.")
    tallies = {name: reader.tally() for name, reader in readers.items()}
    return Spill(
        first.names, f"{order[0].name}: {first.says}", tallies, digests, lines, tuple(file.name for file in order),
        tuple(rejects), tuple(blocks),
    )  # fmt: skip


def _check_columns(name: str, layout: Layout, first: Layout, first_name: str) -> None:
    lacking = [column for column in first.names if column not in layout.names]
    if lacking:
        raise DataError(
            f"'{name}' lacks column '{lacking[0]}' of '{first_name}'",
            nearest=nearest(lacking[0], layout.names),
            mend=f"Its columns: {', '.join(layout.names)[:200]}.",
        )
