"""What is measured of a model on held-out data, and what a measure of a task is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor, nn


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        metrics: of ``classify``: ``accuracy`` with the bounds ``accuracy_low`` and ``accuracy_high`` (95 %), ``loss``
            (nats a sample), ``samples``, and of two labels ``auc``, the area under the ROC curve. Of ``regress``:
            ``rmse`` and ``mae`` in the unit of the numbers, ``r2``, ``loss`` (squared error by the variance of the
            training split), ``samples``. Of ``language``: ``loss`` (nats a token), ``perplexity``, ``tokens``, and
            ``bits_per_byte`` where the bytes of the text are known. Of ``transcribe``: ``wer`` and ``cer``, the shares
            of words and characters in error, ``whole``, the share of transcripts without one, ``loss`` (nats a token),
            ``tokens``, ``samples``. Of ``mask``: ``loss`` (nats a word), ``accuracy``, ``perplexity``, ``words``.
            Of ``tag``: ``micro_f1`` and ``macro_f1``, ``loss`` (nats a sample, all labels summed), ``samples``.
        confusion: samples by true label (row) and answer (column); of ``classify`` alone.
        by_label: of each label how often it was said rightly, said, and wanted; of ``tag`` alone.
    """

    metrics: dict[str, float]
    confusion: tuple[tuple[int, ...], ...]
    by_label: tuple[tuple[int, ...], ...] = ()


class Measure(Protocol):
    """Sums over batches, from which the figures of a task follow.

    Attributes:
        count: samples or tokens that were answered.
    """

    count: int

    def add(self, model: nn.Module, batch: dict[str, Tensor]) -> None:
        """Compute a batch and count what it answers; one without ``y`` is computed alone."""

    def sums(self) -> np.ndarray:
        """Everything counted, float64 [S], which ranks add up."""

    def take(self, sums: np.ndarray) -> None:
        """Put the sums of all ranks in place of one's own."""

    def evaluation(self) -> Evaluation:
        """Make the figures of what was counted; ``count`` is not 0."""
