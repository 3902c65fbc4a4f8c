"""How well two labels are put in order: the area under the ROC curve, by counts that ranks can add up."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# of log odds, between which samples count as alike: 0.001 apart, beyond 30 all the same
BINS, LIMIT = 65_536, 32.0


def count_odds(logits: Tensor, y: Tensor) -> np.ndarray:
    """Count samples by label and log odds: logits [B, 2] and labels [B] to int64 [2, BINS]."""
    odds_B = (logits[:, 1] - logits[:, 0]).double().clamp(-LIMIT, LIMIT)
    bins_B = ((odds_B + LIMIT) * ((BINS - 1) / (2 * LIMIT))).round().long()
    counts: np.ndarray = torch.bincount(y * BINS + bins_B, minlength=2 * BINS).view(2, BINS).cpu().numpy()
    return counts


def area(counts: np.ndarray) -> float:
    """Return the share of pairs of unlike labels whose odds are in order, those alike as half (Mann and Whitney 1947).

    A half where there are no such pairs.

    >>> counts = np.zeros((2, BINS))
    >>> counts[0, [1, 3]] = counts[1, [2, 4]] = 1
    >>> area(counts)
    0.75
    """
    negative, positive = counts.astype(np.float64)
    pairs = negative.sum() * positive.sum()
    below = negative.cumsum() - negative / 2
    return float((positive * below).sum() / pairs) if pairs else 0.5
