"""How well transcripts are told: word and character error rates.

Shapes: B recordings, U frames, V tokens with the blank, L tokens of the longest transcript.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from thrifty.evaluate.figures import Evaluation, Kept
from thrifty.models.ctc import IGNORED, ctc_sum
from thrifty.models.decoding import greedy
from thrifty.spec.transcripts import spelled


def edits(said: Sequence[object], wanted: Sequence[object]) -> int:
    """Count the fewest insertions, deletions and substitutions between two sequences (Levenshtein 1966).

    >>> edits("sitting", "kitten"), edits("one two three".split(), "one three three four".split())
    (3, 2)
    """
    above = list(range(len(wanted) + 1))
    for row, one in enumerate(said, start=1):
        left = row
        for column, other in enumerate(wanted, start=1):
            cell = min(above[column] + 1, left + 1, above[column - 1] + (one != other))
            above[column - 1], left = left, cell
        above[-1] = left
    return above[-1]


class Transcribed:
    """Sums over recordings: logits by frame [B, U, V] and transcripts [B, L].

    The likeliest path is what a model says. An error rate is the edits it takes to mend what was said, over the words
    or characters of what should have been: over one where much is said that is not there.

    Args:
        symbols: what tokens stand for, from token 1 on.
    """

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = symbols
        self.loss_sum, self.count = 0.0, 0
        self.kept: Kept | None = None
        # edits and their number of words, of characters, then transcripts that are right, and their number
        self._counts = np.zeros(6)

    def add(self, model: nn.Module, batch: dict[str, Tensor]) -> None:
        logits, y = model(batch["x"]), batch.get("y")
        if y is None:
            return
        self.loss_sum += ctc_sum(logits, y).item()
        self.count += int((y != IGNORED).sum())
        for tokens, row in zip(greedy(logits.float().cpu().numpy()), y.cpu().numpy(), strict=True):
            said, wanted = (spelled(each, self.symbols) for each in (tokens, row[row != IGNORED].tolist()))
            words = edits(said.split(), wanted.split()), len(wanted.split())
            characters = edits(said, wanted), len(wanted)
            self._counts += (*words, *characters, said == wanted, 1)
            if self.kept is not None:
                self.kept.add(np.array([characters[0] / max(1, characters[1])]), [said], [wanted])

    def sums(self) -> np.ndarray:
        return np.array([self.loss_sum, self.count, *self._counts], np.float64)

    def take(self, sums: np.ndarray) -> None:
        self.loss_sum, self.count, self._counts = float(sums[0]), int(sums[1]), sums[2:]

    def evaluation(self) -> Evaluation:
        word_edits, words, character_edits, characters, right, samples = self._counts.tolist()
        metrics = {
            "wer": word_edits / words,
            "cer": character_edits / characters,
            "whole": right / samples,
            "loss": self.loss_sum / self.count,
            "tokens": float(self.count),
            "samples": samples,
        }
        return Evaluation(metrics, ())
