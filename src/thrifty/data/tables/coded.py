"""Cells of one column: each different one once and which of them each row has, or as they are where most differ.

What is asked of cells is asked of the different ones alone. Shapes: N rows, V different cells.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import polars as pl

# of so many rows at the beginning, those that differ tell whether coding is worth it
_SAMPLED_ROWS = 2000
# of a column
MOST_CODED = 10_000


@dataclass(frozen=True)
class Cells:
    """Cells of one column.

    Attributes:
        values: text, or numbers where Parquet says so, [V]; two may be equal.
        codes: of each row the place of its cell among them, [N]; None where the values are those of the rows, V = N.
    """

    values: pl.Series
    codes: NDArray[np.unsignedinteger] | None = None

    def __len__(self) -> int:
        return len(self.values if self.codes is None else self.codes)

    def spread(self, found_V: NDArray) -> NDArray:
        """What was found of the values, for each row: [N]."""
        return found_V if self.codes is None else found_V[self.codes]

    def places(self) -> NDArray:
        """The place of each row's cell among the values: [N]."""
        return np.arange(len(self.values)) if self.codes is None else self.codes

    def counts(self) -> NDArray[np.int64]:
        """How many rows have each value: [V]."""
        if self.codes is None:
            return np.ones(len(self.values), np.int64)
        return np.bincount(self.codes, minlength=len(self.values))

    def of(self, rows: NDArray[np.bool_]) -> Cells:
        """The cells of some rows, [N] of them marked."""
        if self.codes is None:
            return Cells(self.values.gather(np.flatnonzero(rows)))
        return Cells(self.values, self.codes[rows])


@dataclass(frozen=True)
class Counted:
    """Values as of `Cells`, [V], and how often each comes, once at least: int64 [V]; two values may be equal."""

    values: pl.Series
    counts: NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.counts.sum())


def count_cells(column: Iterable[Cells]) -> Counted:
    """Put the values of a column's blocks, of which there is one at least, and their counts together.

    >>> import polars as pl
    >>> count_cells([Coder().code(pl.Series(["a", "b", "a", "a", "a", "a"]))]).counts.tolist()
    [5, 1]
    """
    import polars as pl

    blocks = [(each.values, each.counts()) for each in column]
    counts = np.concatenate([counts for _, counts in blocks])
    return Counted(pl.concat([values for values, _ in blocks]).gather(np.flatnonzero(counts)), counts[counts > 0])


class Coder:
    """Tells the different cells of a column, block after block; a value keeps its code.

    Space around texts is dropped, and where there is nothing the text is empty.

    Attributes:
        values: those that have codes: None before the first.
    """

    values: pl.Series | None = None

    def __init__(self) -> None:
        # as they stand in files, with space around
        self._known: pl.Series | None = None

    def code(self, cells: pl.Series) -> Cells:
        """Code a block, or leave it as it is where most cells differ."""
        import polars as pl

        if cells.dtype != pl.String:
            return Cells(cells)
        cells = cells.fill_null("") if cells.null_count() else cells
        head = cells.head(_SAMPLED_ROWS)
        if self._known is None:
            self._known = head.head(0)
        if head.n_unique() > len(head) / 2:
            return Cells(_stripped(cells))
        if not len(self._known):
            self._known = head.unique(maintain_order=True)
        known = len(self._known)
        codes = cells.cast(pl.Enum(self._known), strict=False).to_physical().cast(pl.UInt32).fill_null(known).to_numpy()
        rows = np.flatnonzero(codes == known)
        if len(rows):
            rest = cells.gather(rows)
            further = rest.unique(maintain_order=True)
            if known + len(further) > MOST_CODED:
                return Cells(_stripped(cells))
            codes = codes.copy()
            codes[rows] = rest.cast(pl.Enum(further)).to_physical().cast(pl.UInt32).to_numpy() + known
            self._known = pl.concat([self._known, further])
        if self.values is None or len(self.values) < len(self._known):
            self.values = _stripped(self._known)
        return Cells(self.values, codes.astype(np.min_scalar_type(len(self._known))))


def cells_of(frame: pl.DataFrame) -> dict[str, Cells]:
    """The columns of a frame, without space around texts."""
    import polars as pl

    return {each.name: Cells(_stripped(each) if each.dtype == pl.String else each) for each in frame}


def _stripped(texts: pl.Series) -> pl.Series:
    return (texts.fill_null("") if texts.null_count() else texts).str.strip_chars()
