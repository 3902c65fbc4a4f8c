"""Columns that alone tell what is to be told: they are most likely known only after it.

Shapes: N rows of the training split.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from thrifty.spec.table import Table

# of the errors that the commonest label or the mean makes, a column that leaves less than this tells the rest alone
LEFT_BY_A_LEAK = 0.02
# fewer rows tell by chance
FEWEST_ROWS = 50
_PARTS = 128


def find_leaks(x_NF: NDArray[np.float32], y_N: NDArray, table: Table, *, classify: bool) -> list[str]:
    """Name the columns of which one alone tells labels or numbers.

    Each value, or each of 128 parts of a number's range, answers with what the even rows have there; what counts is
    how often that is wrong on the odd ones, or how far.
    """
    if len(y_N) < FEWEST_ROWS:
        return []
    leaks = []
    for name, places in _places_of(x_NF, table):
        learn, check = places[::2], places[1::2]
        left = (_wrong if classify else _far)(learn, y_N[::2], check, y_N[1::2])
        if left < LEFT_BY_A_LEAK and name not in leaks:
            leaks.append(name)
    return leaks


def _places_of(x_NF: NDArray[np.float32], table: Table) -> Iterator[tuple[str, NDArray[np.int64]]]:
    number, code = 0, table.numbers
    for column in table.columns:
        if column.is_number:
            yield column.name, (x_NF[:, number] * _PARTS).astype(np.int64)
            number += 1
        for _ in column.code_sizes:
            codes = x_NF[:, code].astype(np.int64)
            yield column.name, codes - codes.min()
            code += 1


def _wrong(
    learn: NDArray[np.int64], y_learn: NDArray[np.int64], check: NDArray[np.int64], y_check: NDArray[np.int64]
) -> float:
    """Errors of the commonest label of each place, over those of the commonest of all."""
    sizes = (int(max(learn.max(), check.max())) + 1, int(max(y_learn.max(), y_check.max())) + 1)
    counts = np.bincount(learn * sizes[1] + y_learn, minlength=sizes[0] * sizes[1]).reshape(sizes)
    errors = int((counts.sum(0).argmax() != y_check).sum())
    return float((counts.argmax(1)[check] != y_check).sum() / errors) if errors else 1.0


def _far(
    learn: NDArray[np.int64], y_learn: NDArray[np.float32], check: NDArray[np.int64], y_check: NDArray[np.float32]
) -> float:
    """Squared errors of the mean of each place, over those of the mean of all."""
    size = int(max(learn.max(), check.max())) + 1
    counts = np.bincount(learn, minlength=size)
    mean = float(y_learn.mean())
    means = np.where(counts, np.bincount(learn, y_learn, minlength=size) / np.maximum(counts, 1), mean)
    errors = float(((mean - y_check) ** 2).sum())
    return float(((means[check] - y_check) ** 2).sum() / errors) if errors else 1.0
