"""Tokens by frame to transcripts: the likeliest path, or a beam over what paths spell.

Shapes: B recordings, U frames, V tokens with the blank, token 0.
"""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np

BLANK = 0


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
    kept: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -math.inf)}
    for log_V in log_UV:
        ended: dict[tuple[int, ...], float] = defaultdict(lambda: -math.inf)
        going: dict[tuple[int, ...], float] = defaultdict(lambda: -math.inf)
        for said, (blank, last) in kept.items():
            either = _add(blank, last)
            ended[said] = _add(ended[said], either + float(log_V[BLANK]))
            if said:
                going[said] = _add(going[said], last + float(log_V[said[-1]]))
            for token in range(BLANK + 1, len(log_V)):
                # the same token again is another one only after a blank
                before = blank if said and token == said[-1] else either
                longer = (*said, token)
                going[longer] = _add(going[longer], before + float(log_V[token]))
        found = {said: (ended[said], going[said]) for said in {*ended, *going}}
        # ties go to the one that sorts first, so that the answer is the same everywhere
        best = sorted(found.items(), key=lambda item: (-_add(*item[1]), item[0]))[:width]
        kept = dict(best)
    return list(next(iter(kept)))


def _add(one: float, other: float) -> float:
    """The logarithm of a sum of probabilities, by theirs."""
    if one < other:
        one, other = other, one
    return one if other == -math.inf else one + math.log1p(math.exp(other - one))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    normalised: np.ndarray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return normalised
