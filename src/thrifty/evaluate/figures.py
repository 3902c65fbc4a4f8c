"""What is measured of a model on held-out data, and what a measure of a task is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn


@dataclass(frozen=True)
class OneByOne:
    """What was answered, sample by sample, in the order in which batches came.

    Attributes:
        losses: float32 [N]; of ``classify``, ``tag`` and ``mask`` nats (of a hidden word, in the mean), of ``regress``
            the squared error by the variance of the training split, of ``transcribe`` the share of characters in error,
            of ``language`` nats of a token, in the mean of a window; empty where documents lie apart.
        sure: of ``classify``, the probability of the answer, float32 [N]; empty of others.
        wrong: whether the answer is not the one that is wanted, bool [N].
        said: of ``classify`` and ``regress`` the label or number, of ``tag`` the numbers of the labels, of
            ``transcribe`` the transcript, of ``mask`` the words that were told, as tokens; of ``language`` nothing.
        wanted: in the same form.
    """

    losses: np.ndarray
    sure: np.ndarray
    wrong: np.ndarray
    said: list[Any]
    wanted: list[Any]


class Kept:
    """Gathers `OneByOne` batch after batch."""

    def __init__(self) -> None:
        self._losses: list[np.ndarray] = []
        self._sure: list[np.ndarray] = []
        self._wrong: list[np.ndarray] = []
        self._said: list[Any] = []
        self._wanted: list[Any] = []

    def add(self, losses: np.ndarray, said: list[Any], wanted: list[Any], sure: np.ndarray | None = None) -> None:
        """Take in a batch; ``losses`` [b], and of each sample what was said and wanted."""
        self._losses.append(losses.astype(np.float32))
        self._wrong.append(np.array([one != other for one, other in zip(said, wanted, strict=True)], bool))
        self._said += said
        self._wanted += wanted
        if sure is not None:
            self._sure.append(sure.astype(np.float32))

    def found(self) -> OneByOne:
        """Return what came."""
        none = np.zeros(0, np.float32)
        return OneByOne(
            losses=np.concatenate([none, *self._losses]),
            sure=np.concatenate([none, *self._sure]),
            wrong=np.concatenate([none.astype(bool), *self._wrong]),
            said=self._said,
            wanted=self._wanted,
        )


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
        one_by_one: every answer, where that was asked for and the task has answers to samples.
    """

    metrics: dict[str, float]
    confusion: tuple[tuple[int, ...], ...]
    by_label: tuple[tuple[int, ...], ...] = ()
    one_by_one: OneByOne | None = None


class Measure(Protocol):
    """Sums over batches, from which the figures of a task follow.

    Attributes:
        count: samples or tokens that were answered.
        kept: gathers answers one by one, where that is asked for.
    """

    count: int
    kept: Kept | None

    def add(self, model: nn.Module, batch: dict[str, Tensor]) -> None:
        """Compute a batch and count what it answers; one without ``y`` is computed alone."""

    def sums(self) -> np.ndarray:
        """Everything counted, float64 [S], which ranks add up."""

    def take(self, sums: np.ndarray) -> None:
        """Put the sums of all ranks in place of one's own."""

    def evaluation(self) -> Evaluation:
        """Make the figures of what was counted; ``count`` is not 0."""
