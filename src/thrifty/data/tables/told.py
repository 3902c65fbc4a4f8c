"""What each row of a table tells: the number of a label, or an amount; rows that tell nothing are rejects.

Shapes: N rows of all files.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from thrifty.data.labels import in_order
from thrifty.data.tables.columns import numbers_of, texts_of
from thrifty.data.tables.spill import Spill
from thrifty.data.tables.tape import Tape
from thrifty.data.texts.labels import ONLY_HELD_OUT
from thrifty.errors import DataError

_SHOWN = 50


@dataclass(frozen=True)
class Told:
    """What rows tell.

    Attributes:
        y: labels by number, int16 [N], or amounts, float64 [N], in their own units.
        labels: their names; none of amounts.
        rejects: reason and detail by row, of those that tell nothing.
        repaired: cells that were understood though not as they stand, by what was done.
    """

    y: Tape
    labels: tuple[str, ...] = ()
    rejects: dict[int, tuple[str, str]] = field(default_factory=dict)
    repaired: dict[str, int] = field(default_factory=dict)

    def count(self, train_N: NDArray[np.bool_]) -> list[int]:
        """How many of the training rows tell each label."""
        counts = np.zeros(len(self.labels), np.int64)
        for rows, y in self.y.parts() if self.labels else ():
            counts += np.bincount(y[train_N[rows]], minlength=len(self.labels))
        return counts.tolist()

    def scale(self, train_N: NDArray[np.bool_]) -> tuple[float, float]:
        """Mean and deviation of the amounts in the training rows, the deviation never 0; 0 and 1 of labels."""
        if self.labels:
            return 0.0, 1.0
        count = int(train_N.sum())
        mean = math.fsum(float(y[train_N[rows]].sum()) for rows, y in self.y.parts()) / count
        squares = math.fsum(float(((y[train_N[rows]] - mean) ** 2).sum()) for rows, y in self.y.parts())
        return mean, math.sqrt(squares / count) or 1.0


def tell_labels(rows: Spill, name: str, splits: Sequence[str], missing: Sequence[str], y: Tape) -> Told:
    """Number the labels of the training rows; rows with others are rejects.

    Held-out labels that are known but for a dot at their end, as UCI has them in ``adult.test``, are taken so.

    Args:
        rows: of all files.
        name: of the target.
        splits: of each file.
        missing: splits that training rows are dealt to, each of which needs one of every label.
        y: an empty tape for the labels.

    Raises:
        DataError: there are fewer than two labels to tell apart.
    """
    counts: Counter[str] = Counter()
    blocks = list(zip(rows.blocks, rows.column(name), strict=True))
    for block, cells in blocks:
        if splits[block.file] == "train":
            for label, count in zip(texts_of(cells.values).to_list(), cells.counts().tolist(), strict=True):
                if label is not None and count:
                    counts[label] += count
    few = {label for label, count in counts.items() if count <= len(missing)}
    labels = in_order(set(counts) - few)
    if len(labels) < 2:
        found = f"one label only, '{labels[0]}'" if labels else "no labels"
        seldom = f", and {len(few)} of under {len(missing) + 1} rows" if few else ""
        raise DataError(
            f"column '{name}' has {found}{seldom}, in the rows to train on: there is nothing to tell apart",
            mend="Name the column to be told: data.target.",
        )
    number: dict[str | None, int] = {label: at for at, label in enumerate(labels)}
    rejects, dotted = {}, 0
    for block, cells in blocks:
        texts = texts_of(cells.values).to_list()
        numbers = np.array([number.get(text, -1) for text in texts], np.int16)
        if splits[block.file] != "train":
            bare = np.array([number.get(text.removesuffix("."), -1) if text else -1 for text in texts], np.int16)
            dotted += int(cells.counts()[(numbers < 0) & (bare >= 0)].sum())
            numbers = np.where(numbers < 0, bare, numbers)
        told = cells.spread(numbers)
        y.append(told)
        without = np.flatnonzero(told < 0)
        for row, at in zip((block.start + without).tolist(), cells.places()[without].tolist(), strict=True):
            rejects[row] = _untold(texts[at], few, missing)
    return Told(y, labels, rejects, {"label without its last dot": dotted} if dotted else {})


def _untold(label: str | None, few: Collection[str], missing: Sequence[str]) -> tuple[str, str]:
    """Why a row tells no label that is learned."""
    if label is None:
        return "empty label", ""
    reason = f"label of under {len(missing) + 1} rows" if label in few else ONLY_HELD_OUT
    return reason, f": {label[:_SHOWN]}"


def tell_numbers(rows: Spill, name: str, y: Tape) -> Told:
    """Read the amounts onto an empty tape; rows without a finite one are rejects."""
    rejects = {}
    for block, cells in zip(rows.blocks, rows.column(name), strict=True):
        numbers = numbers_of(cells.values)
        finite = numbers.is_finite().fill_null(False).to_numpy()
        y.append(cells.spread(numbers.fill_null(0.0).to_numpy()))
        without = np.flatnonzero(~cells.spread(finite))
        if len(without):
            texts = texts_of(cells.values)
            for row, at in zip((block.start + without).tolist(), cells.places()[without].tolist(), strict=True):
                shown = texts[at]
                rejects[row] = ("empty target", "") if shown is None else ("target is no number", f": {shown[:_SHOWN]}")
    return Told(y, rejects=rejects)
