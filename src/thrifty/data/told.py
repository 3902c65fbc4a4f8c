"""What each row of a table tells: the number of a label, or an amount; rows that tell nothing are rejects.

Shapes: N rows of all files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from thrifty.data.columns import numbers_of, texts_of
from thrifty.data.labels import in_order
from thrifty.data.text_labels import ONLY_HELD_OUT
from thrifty.errors import DataError

if TYPE_CHECKING:
    import polars as pl

_SHOWN = 50


@dataclass(frozen=True)
class Told:
    """What rows tell.

    Attributes:
        y: labels by number, int64 [N], or amounts, float64 [N], in their own units.
        labels: their names; none of amounts.
        rejects: reason and detail by row, of those that tell nothing.
        repaired: cells that were understood though not as they stand, by what was done.
    """

    y: NDArray
    labels: tuple[str, ...] = ()
    rejects: dict[int, tuple[str, str]] = field(default_factory=dict)
    repaired: dict[str, int] = field(default_factory=dict)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Which rows tell something, [N]."""
        usable = np.ones(len(self.y), bool)
        usable[list(self.rejects)] = False
        return usable

    def standardised(self, train_N: NDArray[np.bool_]) -> tuple[NDArray, float, float]:
        """Labels as they are; amounts float32, less their mean and by their deviation in the training rows."""
        if self.labels:
            return self.y, 0.0, 1.0
        mean = float(self.y[train_N].mean())
        deviation = float(self.y[train_N].std()) or 1.0
        return ((self.y - mean) / deviation).astype(np.float32), mean, deviation


def tell_labels(cells: pl.Series, parts: NDArray[np.int8], missing: Sequence[str]) -> Told:
    """Number the labels of the training rows; rows with others are rejects.

    Held-out labels that are known but for a dot at their end, as UCI has them in ``adult.test``, are taken so.

    Args:
        cells: of the target.
        parts: the split of each row's file, [N]; 0 is training.
        missing: splits that training rows are dealt to, each of which needs one of every label.

    Raises:
        DataError: there are fewer than two labels to tell apart.
    """
    import polars as pl

    texts = texts_of(cells)
    training = texts.filter(pl.Series(parts == 0)).drop_nulls()
    counts = dict(training.value_counts().iter_rows())
    few = {label for label, count in counts.items() if count <= len(missing)}
    labels = in_order(set(counts) - few)
    if len(labels) < 2:
        found = f"one label only, '{labels[0]}'" if labels else "no labels"
        seldom = f", and {len(few)} of under {len(missing) + 1} rows" if few else ""
        raise DataError(
            f"column '{cells.name}' has {found}{seldom}, in the rows to train on: there is nothing to tell apart",
            mend="Name the column to be told: data.target.",
        )
    number = {label: at for at, label in enumerate(labels)}
    repaired: dict[str, int] = {}
    dotted = (
        texts.str.ends_with(".").fill_null(False) & pl.Series(parts > 0) & ~texts.is_in(list(number)).fill_null(False)
    )
    undotted = texts.str.strip_suffix(".")
    dotted = dotted & undotted.is_in(list(number)).fill_null(False)
    if dotted.any():
        texts = texts.zip_with(~dotted, undotted)
        repaired["label without its last dot"] = int(dotted.sum())
    y = texts.replace_strict(number, default=-1, return_dtype=pl.Int64).fill_null(-1).to_numpy().copy()
    rejects = {}
    for row in np.flatnonzero(y < 0).tolist():
        label = texts[row]
        if label is None:
            rejects[row] = ("empty label", "")
        elif label in few:
            rejects[row] = (f"label of under {len(missing) + 1} rows", f": {label[:_SHOWN]}")
        else:
            rejects[row] = (ONLY_HELD_OUT, f": {label[:_SHOWN]}")
    return Told(y, labels, rejects, repaired)


def tell_numbers(cells: pl.Series) -> Told:
    """Read the amounts; rows without a finite one are rejects."""
    numbers = numbers_of(cells)
    finite = (numbers.is_finite() & numbers.is_not_null()).fill_null(False).to_numpy()
    texts = texts_of(cells)
    rejects = {}
    for row in np.flatnonzero(~finite).tolist():
        shown = texts[row]
        rejects[row] = ("empty target", "") if shown is None else ("target is no number", f": {shown[:_SHOWN]}")
    return Told(numbers.fill_null(0.0).to_numpy(), rejects=rejects)
