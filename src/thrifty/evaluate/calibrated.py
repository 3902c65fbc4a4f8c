"""How far a model's confidence can be trusted: answers by how sure it was of them, beside how often they were right."""

from __future__ import annotations

import numpy as np

from thrifty.spec.mistakes import Calibration

# as Guo et al. 2017 have them
BINS = 15


def calibration(sure_N: np.ndarray, right_N: np.ndarray, bins: int = BINS) -> Calibration:
    """Put answers into bins of confidence, and take the expected calibration error (Guo et al. 2017, equation 3).

    Args:
        sure_N: probability of each answer, float [N]; what is no number counts as 0.
        right_N: whether it was right, bool [N].
        bins: of like width; each holds its upper end.

    >>> found = calibration(np.array([0.6, 0.6, 0.95, 0.95]), np.array([True, False, True, True]), bins=10)
    >>> round(found.error, 3), found.counts[5], found.right[9]
    (0.075, 2, 1.0)
    """
    # in float64 of what was float32: a probability may come out a hair above 1
    sure_N = np.clip(np.nan_to_num(sure_N.astype(np.float64), nan=0.0), 0.0, 1.0)
    places_N = np.clip(np.ceil(np.round(sure_N * bins, 6)).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(places_N, minlength=bins)
    some = np.maximum(counts, 1)
    sure = np.bincount(places_N, weights=sure_N, minlength=bins) / some
    right = np.bincount(places_N, weights=right_N.astype(np.float64), minlength=bins) / some
    error = float((counts * np.abs(sure - right)).sum() / max(1, len(sure_N)))
    return Calibration(
        counts=tuple(counts.tolist()), sure=tuple(sure.tolist()), right=tuple(right.tolist()), error=error
    )
