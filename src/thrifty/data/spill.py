"""All rows of a table's files, read once: cells spilled to disk batch by batch, and what is known of each row beside.

Memory holds a batch of cells, and of each row its digest, place and file: 20 bytes. Shapes: N rows of all files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from thrifty.data.blocks import columns_of, read_blocks
from thrifty.data.cells import PARQUET, parquet_errors
from thrifty.data.columns import Tally
from thrifty.data.inputs import InputFile, Reject
from thrifty.data.inventory import Inventory
from thrifty.data.layout import SAMPLED_BYTES, Layout, find_layout
from thrifty.data.split import split_of
from thrifty.data.target import name_target
from thrifty.data.teller import Teller
from thrifty.errors import DataError, nearest
from thrifty.spec import TableData
from thrifty.spec.events import Emit

if TYPE_CHECKING:
    import polars as pl

# how the machine learning repository of UCI ends the names of its splits
SUFFIX_SPLITS = {".data": "train", ".train": "train", ".test": "test"}


@dataclass(frozen=True)
class Spill:
    """The rows of all files, in order.

    Attributes:
        names: of the columns, as the first file to train on has them.
        says: how that file is written.
        tallies: what the cells of each column were.
        digests: of each row's cells but the target, uint64 [N]; equal rows have the same.
        files: of each row the place of its file in ``sources``, int32 [N].
        lines: of each row its line in that file, int64 [N].
        sources: the names of the files that were read.
        rejects: rows that could not be read.
        frames: where the cells lie, a batch a file.
    """

    names: tuple[str, ...]
    says: str
    tallies: dict[str, Tally]
    digests: NDArray[np.uint64]
    files: NDArray[np.int32]
    lines: NDArray[np.int64]
    sources: tuple[str, ...]
    rejects: tuple[Reject, ...]
    frames: tuple[Path, ...]

    def column(self, name: str) -> pl.Series:
        """All cells of one column."""
        import polars as pl

        return pl.concat([pl.read_parquet(path, columns=[name], memory_map=False)[name] for path in self.frames])

    def batches(self) -> Iterator[tuple[int, pl.DataFrame]]:
        """The cells, batch by batch, each with the place of its first row."""
        import polars as pl

        start = 0
        for path in self.frames:
            frame = pl.read_parquet(path, memory_map=False)
            yield start, frame
            start += len(frame)

    def name(self, row: int) -> str:
        """Name a row by its file and line."""
        return f"{self.sources[self.files[row]]}:{self.lines[row]}"


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
            return Layout("", tuple(columns_of(file.path)))
    with Path(file.path).open("rb") as stream:
        found = find_layout(file.name, stream.read(SAMPLED_BYTES), header=False if names else header)
    if names and len(names) != found.width:
        raise DataError(
            f"data.names has {len(names)} names, and '{file.name}' {found.width} columns", mend="Name each of them."
        )
    return replace(found, names=names) if names else found


def spill(data: TableData, inventory: Inventory, given: Mapping[str, str], folder: Path, emit: Emit) -> Spill:
    """Read the files that have a split, those to train on first, and spill their cells into a folder.

    Raises:
        DataError: a file lacks a column, has changed, or there are too many rows.
    """
    order = sorted(
        (file for file in inventory.files if file.name in given), key=lambda file: given[file.name] != "train"
    )
    first = layout_of(order[0], header=data.header, names=data.names)
    tallies = {name: Tally() for name in first.names}
    target, _ = name_target(data, first.names)
    teller = Teller(len(order), emit)
    digests, files, lines = [], [], []
    frames: list[Path] = []
    rejects: list[Reject] = []
    count = 0
    for place, file in enumerate(order):
        layout = layout_of(file, header=data.header, names=data.names)
        _check_columns(file.name, layout, first, order[0].name)
        for cells in read_blocks(file, inventory.hashes[file.name], layout, data.max_row_bytes):
            frame = cells.frame.select(first.names)
            rejects += cells.rejects
            if not len(frame):
                continue
            for name in first.names:
                tallies[name].add(frame[name])
            digests.append(_digests(frame.drop(target)))
            files.append(np.full(len(frame), place, np.int32))
            lines.append(cells.lines)
            frames.append(folder / f"{len(frames):06}{PARQUET}")
            frame.write_parquet(frames[-1], compression="lz4", statistics=False)
            count += len(frame)
            if count > data.max_rows:
                raise DataError(
                    f"'{data.path}' has over {data.max_rows:,} rows, the limit of data.max_rows",
                    mend="Raise it, or take a part.",
                )
        teller.count(1)
    if not count:
        raise DataError(f"no row of '{data.path}' can be used", mend="A table has rows of several columns, in UTF-8.")
    return Spill(
        first.names, f"{order[0].name}: {first.says}", tallies, np.concatenate(digests), np.concatenate(files),
        np.concatenate(lines), tuple(file.name for file in order), tuple(rejects), tuple(frames),
    )  # fmt: skip


def _check_columns(name: str, layout: Layout, first: Layout, first_name: str) -> None:
    lacking = [column for column in first.names if column not in layout.names]
    if lacking:
        raise DataError(
            f"'{name}' lacks column '{lacking[0]}' of '{first_name}'",
            nearest=nearest(lacking[0], layout.names),
            mend=f"Its columns: {', '.join(layout.names)[:200]}.",
        )


def _digests(frame: pl.DataFrame) -> NDArray[np.uint64]:
    """Hash the cells of each row: uint64 [n], the same on every machine."""
    import polars as pl

    # unit separators lie between cells, and no text of a table holds a record separator
    return digests_of(
        frame.select(pl.concat_str(pl.all().cast(pl.String).fill_null("\x1e"), separator="\x1f").alias("row"))["row"]
    )


def digests_of(texts: pl.Series) -> NDArray[np.uint64]:
    """Hash texts: uint64 [n], the same on every machine."""
    found = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts.fill_null(""))
    return np.frombuffer(found, "<u8").astype(np.uint64)
