"""Bounds of a drop between two models that answered the same rows.

Shares of right rows: Tango's score interval of paired proportions (1998, Statistics in Medicine 17, 891). It stands
where few rows or none differ, where a bootstrap would find no spread at all and call one row proof. Any other metric:
the bootstrap over rows (Efron 1979), pairs kept together, by weights that are drawn from a Poisson distribution.

Shapes: N rows, S sums, R draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from thrifty.compress.answers import Tally, worse_by

# that the true drop lies below the upper bound; and, each by itself, above the lower one
CONFIDENCE = 0.95
DRAWS = 2_000
_AT_ONCE = 2**22
# metrics of what is counted: where few rows differ or none, their draws know nothing of the rows that others would
COUNTED = frozenset({"wer", "cer", "micro_f1", "macro_f1"})
MOST_ROWS = 10**9


def paired_shares(lost: float, gained: float, rows: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Bounds of the drop of a share, each so often held as ``confidence`` says.

    Args:
        lost, gained: rows that the reference alone has right, and that the candidate alone has.
        rows: all that both answered.

    >>> [round(bound, 4) for bound in paired_shares(0, 0, 1000)]
    [-0.0027, 0.0027]
    >>> [round(bound, 4) for bound in paired_shares(30, 10, 1000)]
    [0.01, 0.0312]
    """
    z = NormalDist().inv_cdf(confidence)

    def score(drop: float) -> float:
        linear = -lost - gained + (2 * rows - lost + gained) * drop
        constant = -gained * drop * (1 - drop)
        # of those that the candidate alone has right, the likeliest share if this is the true drop
        share = (math.sqrt(max(0.0, linear**2 - 8 * rows * constant)) - linear) / (4 * rows)
        variance = rows * (2 * share + drop * (1 - drop))
        return (lost - gained - rows * drop) / math.sqrt(variance) if variance > 0 else 0.0

    middle = (lost - gained) / rows
    return _crossing(lambda drop: score(drop) - z, -1.0, middle), _crossing(lambda drop: score(drop) + z, middle, 1.0)


def _crossing(falling: Callable[[float], float], low: float, high: float) -> float:
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2


def bootstrapped(
    metric: str, reference: Tally, candidate: Tally, *, seed: int = 0, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Bounds of the drop of any metric, each so often held as ``confidence`` says."""
    generator = np.random.default_rng(seed)
    rows = len(reference.sums)
    drops: list[np.ndarray] = []
    at_once = max(1, min(DRAWS, _AT_ONCE // rows))
    for start in range(0, DRAWS, at_once):
        weights_RN = generator.poisson(1.0, (min(at_once, DRAWS - start), rows)).astype(np.float64)
        with np.errstate(invalid="ignore"):  # losses may be infinite; such a model is let through by no bound
            of_both = [each.figure(weights_RN @ each.sums) for each in (reference, candidate)]
            drops.append(worse_by(metric, *of_both))
    found = np.concatenate(drops)
    found = found[np.isfinite(found)]
    low, high = np.quantile(found, [1 - confidence, confidence]) if len(found) else (-math.inf, math.inf)
    if metric in COUNTED:
        drop = float(worse_by(metric, reference.value, candidate.value))
        unseen = paired_shares(0, 0, rows, confidence)[1]
        low, high = min(low, drop - unseen), max(high, drop + unseen)
    return float(low), float(high)


def rows_that_prove(rows: int, allowed: float, bound: Callable[[float], float]) -> int:
    """Return how many rows would bring the upper bound down to what is allowed; 0 where none would.

    Args:
        rows: that there are.
        allowed: drop.
        bound: upper bound by the number of rows, if more of them were like these.
    """
    if bound(MOST_ROWS) > allowed:
        return 0
    low, high = float(rows), float(MOST_ROWS)
    while high / low > 1.01:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if bound(middle) > allowed else (low, middle)
    # two figures: it is an estimate from what few rows said
    digits = 10 ** max(0, math.floor(math.log10(high)) - 1)
    return math.ceil(high / digits) * digits
