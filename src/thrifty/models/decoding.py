"""Tokens by frame to transcripts: the likeliest path, or a beam over what paths spell.

Shapes: B recordings, U frames, V tokens with the blank, token 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

BLANK = 0

Said = tuple[int, ...]


def greedy(logits_BUV: np.ndarray) -> list[list[int]]:
    """Take the likeliest token of each frame, runs of one as one, and drop blanks (Graves et al. 2006, section 3.2).

    >>> greedy(np.eye(3)[[[0, 1, 1, 0, 1, 2]]])
    [[1, 1, 2]]
    """
    best_BU = logits_BUV.argmax(-1)
    first_BU = np.ones(best_BU.shape, bool)
    first_BU[:, 1:] = best_BU[:, 1:] != best_BU[:, :-1]
    return [row[first & (row != BLANK)].tolist() for row, first in zip(best_BU, first_BU, strict=True)]


def beam(logits_BUV: np.ndarray, width: int = 8) -> list[list[int]]:
    """Take the likeliest transcript, the sum over all paths that spell it, among those that a beam keeps.

    Prefix search of Hannun et al. 2014 (algorithm 1), without a language model. Where
    the beam has room for every transcript, it is exact.

    Args:
        logits_BUV: of tokens by frame; where a recording has ended, the blank is certain.
        width: transcripts that are followed from frame to frame.
    """
    assert width >= 1
    return [_search(log_UV, width) for log_UV in _log_softmax(logits_BUV)]


def _search(log_UV: np.ndarray, width: int) -> list[int]:
    # of each transcript so far: log probabilities of its paths that end in a blank, and in its last token
    kept: dict[Said, tuple[float, float]] = {(): (0.0, -math.inf)}
    for log_V in log_UV:
        either = {said: _add(*ends) for said, ends in kept.items()}
        longer_WV = np.array(list(either.values()))[:, None] + log_V
        longer_WV[:, BLANK] = -math.inf
        rows = {said: row for row, said in enumerate(kept)}
        found: dict[Said, tuple[float, float]] = {}
        for said, (blank, last) in kept.items():
            going = -math.inf
            if said:
                going = last + float(log_V[said[-1]])
                # the same token again is another one only after a blank
                longer_WV[rows[said], said[-1]] = blank + log_V[said[-1]]
            found[said] = either[said] + float(log_V[BLANK]), going
        for said, (ended, going) in found.items():
            if (before := rows.get(said[:-1])) is not None and said:
                found[said] = ended, _add(going, float(longer_WV[before, said[-1]]))
                longer_WV[before, said[-1]] = -math.inf
        kept = _best(found, list(kept), longer_WV, width)
    return list(next(iter(kept)))


def _best(
    found: dict[Said, tuple[float, float]], before: Sequence[Said], longer_WV: np.ndarray, width: int
) -> dict[Said, tuple[float, float]]:
    """The likeliest of transcripts that go on as they are and of those that grew by a token, the best first."""
    flat = longer_WV.ravel()
    # only so many can be among the best; of equal ones all are looked at
    least = np.partition(flat, -width)[-width] if len(flat) > width else -math.inf
    rows, tokens = np.nonzero((longer_WV >= least) & (longer_WV > -math.inf))
    for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
        found[(*before[row], token)] = -math.inf, float(longer_WV[row, token])
    # ties go to the one that sorts first, so that the answer is the same everywhere
    return dict(sorted(found.items(), key=lambda item: (-_add(*item[1]), item[0]))[:width])


def _add(one: float, other: float) -> float:
    """The logarithm of a sum of probabilities, by theirs."""
    if one < other:
        one, other = other, one
    return one if other == -math.inf else one + math.log1p(math.exp(other - one))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    normalised: np.ndarray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return normalised
