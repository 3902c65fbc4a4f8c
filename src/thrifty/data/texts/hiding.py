"""Words of texts that are hidden for a model to tell: others in each epoch, the same however a step is cut.

Devlin et al. 2019, section 3.1: 15 % of the words are to be told; 80 % of those are hidden by a mark, 10 % are another
word, and 10 % stand there as they are. At least one word of each text is to be told.

Shapes: L tokens, N texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thrifty.data.documents.tokenizer import IGNORED_TARGET

TOLD, MARKED, OTHER = 0.15, 0.8, 0.1
# splitmix64 (Steele et al. 2014; the constants are Vigna's): numbers that look random, from a place alone
_STEP, _FIRST, _SECOND = (np.uint64(each) for each in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


@dataclass(frozen=True)
class Hiding:
    """What hides words.

    Attributes:
        marks: numbers of the tokenizer's marks, which are never hidden; the first is the one that hides.
        vocabulary: tokens in the vocabulary.
        salt: of the epoch.
    """

    marks: Sequence[int]
    vocabulary: int
    salt: int = 0

    def __call__(
        self, tokens_L: np.ndarray, places_L: np.ndarray, begins_N: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Hide words of texts that lie end to end.

        Args:
            tokens_L: of the texts.
            places_L: of each token in its split, by which it is decided.
            begins_N: where each text begins; none is empty.

        Returns:
            What the model is given, int64 [L], and what it has to tell, int64 [L]; -100 where it is asked for nothing.
        """
        tokens_L = tokens_L.astype(np.int64)
        words_L = ~np.isin(tokens_L, self.marks)
        drawn_L = np.where(words_L, self._uniform(places_L, 0), 2.0)
        least_L = np.repeat(np.minimum.reduceat(drawn_L, begins_N), np.diff(begins_N, append=len(tokens_L)))
        told_L = words_L & (drawn_L <= np.maximum(TOLD, least_L))
        how_L = self._uniform(places_L, 1)
        others = np.setdiff1d(np.arange(self.vocabulary), self.marks)
        other_L = others[(self._uniform(places_L, 2) * len(others)).astype(np.int64)]
        x_L = np.where(told_L & (how_L < MARKED), self.marks[0], tokens_L)
        x_L = np.where(told_L & (how_L >= 1 - OTHER), other_L, x_L)
        return x_L, np.where(told_L, tokens_L, IGNORED_TARGET)

    def _uniform(self, places_L: np.ndarray, stream: int) -> np.ndarray:
        """Numbers of 0 to 1, without 1."""
        z_L = (places_L.astype(np.uint64) * np.uint64(3) + np.uint64(stream) + np.uint64(1)) * _STEP
        z_L = z_L + np.uint64(self.salt)
        z_L = (z_L ^ (z_L >> np.uint64(30))) * _FIRST
        z_L = (z_L ^ (z_L >> np.uint64(27))) * _SECOND
        return ((z_L ^ (z_L >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53
