"""What a model should answer where that is not one class for sure: shares of all classes.

Shapes: b samples, K classes.
"""

from __future__ import annotations

import numpy as np

from thrifty.data.documents.tokenizer import IGNORED_TARGET


def shares_of(
    y_b: np.ndarray, classes: int, other_b: np.ndarray | None = None, own_b: np.ndarray | None = None
) -> np.ndarray:
    """Share out the answers of samples among the classes.

    Args:
        y_b: class of each sample; one of -100 has no answer.
        classes: K.
        other_b, own_b: a second class of each, and the share of the first, where an answer is of two.

    Returns:
        float32 [b, K]; rows add up to 1, of samples without answer to 0.

    >>> shares_of(np.array([1]), 2, np.array([0]), np.array([0.75]))
    array([[0.25, 0.75]], dtype=float32)
    """
    answered_b = y_b != IGNORED_TARGET
    rows = np.arange(len(y_b))[answered_b]
    shares_bK = np.zeros((len(y_b), classes), np.float32)
    shares_bK[rows, y_b[answered_b]] = 1.0 if own_b is None else own_b[answered_b]
    if other_b is not None and own_b is not None:
        shares_bK[rows, other_b[answered_b]] += 1 - own_b[answered_b]
    return shares_bK


def smoothed(shares_bK: np.ndarray, smoothing: float) -> np.ndarray:
    """Give so much of every answer to all classes alike (Szegedy et al. 2016, section 7).

    >>> smoothed(np.array([[0, 1]], np.float32), 0.5).tolist()
    [[0.25, 0.75]]
    """
    alike_b1 = shares_bK.mean(axis=1, keepdims=True, dtype=np.float32)
    return np.asarray(shares_bK * (1 - smoothing) + alike_b1 * smoothing, np.float32)


def count_answers(y: np.ndarray) -> int:
    """Count the answers there are: whole numbers but -100; numbers [B] that are not NaN; samples [B, K] without NaN.

    >>> count_answers(np.array([[3, -100], [0, 1]])), count_answers(np.array([[0.0, 1.0], [np.nan, np.nan]]))
    (3, 1)
    """
    if y.dtype.kind in "iu":
        return int(np.count_nonzero(y != IGNORED_TARGET))
    return int(np.count_nonzero(~np.isnan(y.reshape(len(y), -1)).any(1)))
