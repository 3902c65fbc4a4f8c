"""Parity: how far two forms of a model are apart in their answers, at several numbers of rows and of tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from thrifty.errors import BundleError
from thrifty.export.engines.engine import Compute
from thrifty.export.examples import BATCHES, example, lengths_of
from thrifty.spec import Dataset

Outputs = dict[str, NDArray[Any]]

RELATIVE = 1e-3
# of bf16 and int8: eight bits, through a whole network; what it does to answers is for the guard to say
RELATIVE_ROUNDED = 0.1


def differences(
    found: Callable[[Tensor], Outputs],
    expected: Callable[[Tensor], Outputs],
    data: Dataset,
    *,
    served: Callable[[Dataset, int, int | None], Tensor] = example,
    units: Mapping[str, float] | None = None,
    least: int = 1,
) -> dict[str, dict[str, float]]:
    """Return the largest difference of each output, by the shape of the input.

    A difference is told in units of the largest number that is expected in that output, or of those in ``units``;
    where shapes or names do not agree it is infinite. No input is shorter than ``least``.

    Raises:
        BundleError: a shape of input is not taken.
    """
    apart: dict[str, dict[str, float]] = {}
    for rows in BATCHES:
        for length in lengths_of(data):
            x = served(data, rows, length and max(length, least))
            wanted = expected(x)
            try:
                got = found(x)
            except Exception as error:  # a runtime's own kinds; a size that was frozen ends here
                reason = " ".join(str(error).split())[:300]
                raise BundleError(f"the shape {list(x.shape)} is not taken: {reason}") from error
            apart[" x ".join(map(str, x.shape))] = {
                name: relative(got.get(name, np.zeros(0)), each, (units or {}).get(name))
                for name, each in wanted.items()
            }
    return apart


def apart_by(found: Compute, expected: Compute, data: Dataset) -> float:
    """Return the largest difference of the logits that two models compute, as `differences` tells them."""
    return worst(differences(lambda x: {"logits": found(x.numpy())}, lambda x: {"logits": expected(x.numpy())}, data))


def relative(found: NDArray[Any], expected: NDArray[Any], unit: float | None = None) -> float:
    """Return the largest difference of two arrays in a unit: the largest number that is expected, when left out.

    >>> relative(np.array([1.0, 4.5]), np.array([1.0, 5.0]))
    0.1
    """
    if found.shape != expected.shape:
        return float("inf")
    if not expected.size:
        return 0.0
    scale = unit or max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
    return float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max()) / scale


def worst(apart: dict[str, dict[str, float]]) -> float:
    """Return the largest of all differences; NaN where there is one."""
    values = [each for outputs in apart.values() for each in outputs.values()]
    return float(np.max(values))
