"""What each held-out row says of a metric: sums a row, of which the metric of any set of rows follows.

Shapes: N rows, B of a batch, S sums, R draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thrifty.data import Batch
from thrifty.evaluate import MEASURES
from thrifty.models.inputs import to_tensors
from thrifty.spec import METRICS, Dataset, Task

Answers = Callable[[Tensor], Tensor]
# sums of many rows to the metric of them: float64 [..., S] to [...]
Figure = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Tally:
    """What rows said: ``sums``, float64 [N, S], and how the metric follows from their sum."""

    sums: np.ndarray
    figure: Figure

    @property
    def value(self) -> float:
        """The metric of all rows."""
        return float(self.figure(self.sums.sum(0)))


def tally(answers: Answers, batches: Iterable[Batch], task: Task, metric: str, data: Dataset, split: str) -> Tally:
    """Answer batches and tell each row's part in a metric.

    Args:
        answers: logits of a tensor of inputs.
        batches: as of `thrifty.data.sweep`.
        task, metric: of `thrifty.spec.TASK_METRICS`.
        data, split: that the batches are of.
    """
    rows, figure = _ROWS.get((task, metric), (None, None))
    if rows is None or figure is None:
        return _measured(answers, batches, task, metric, data, split)
    found = []
    with torch.inference_mode():
        for arrays in batches:
            batch = to_tensors(arrays)
            found.append(rows(answers(batch["x"]).float(), batch["y"]))
    sums_NS = np.concatenate(found)
    return Tally(_placed(sums_NS) if metric == "auc" else sums_NS, figure)


def is_share_of_rows(metric: str) -> bool:
    """Say whether each row is right or wrong, and the metric the share that is right."""
    return metric in {"accuracy", "whole"}


def _right(logits: Tensor, y: Tensor) -> np.ndarray:
    right_B = (logits.argmax(1) == y).double()
    return torch.stack([right_B, torch.ones_like(right_B)], 1).numpy()


def _losses(logits: Tensor, y: Tensor) -> np.ndarray:
    losses_B = F.cross_entropy(logits, y, reduction="none").double()
    return torch.stack([losses_B, torch.ones_like(losses_B)], 1).numpy()


def _odds(logits: Tensor, y: Tensor) -> np.ndarray:
    return torch.stack([(logits[:, 1] - logits[:, 0]).double(), y.double()], 1).numpy()


def _mean(sums: np.ndarray) -> np.ndarray:
    return np.asarray(sums[..., 0] / np.maximum(sums[..., 1], 1e-12))


def _placed(odds_N2: np.ndarray) -> np.ndarray:
    """The part of each row in the area under the ROC curve: its projection (DeLong et al. 1988), float64 [N, 6].

    Of a row of the one label it is the share of the other's rows that lie on the right side of it.
    """
    odds_N, positive_N = odds_N2[:, 0], odds_N2[:, 1] > 0
    shares_N = np.zeros(len(odds_N))
    for side in (True, False):
        others = np.sort(odds_N[positive_N != side])
        own = odds_N[positive_N == side]
        below = (np.searchsorted(others, own, "left") + np.searchsorted(others, own, "right")) / 2
        shares_N[positive_N == side] = (below if side else len(others) - below) / max(1, len(others))
    area = shares_N[positive_N].mean() if positive_N.any() and not positive_N.all() else 0.5
    one_N = np.ones(len(odds_N))
    columns = (shares_N * positive_N, positive_N, shares_N * ~positive_N, ~positive_N, area * one_N, one_N)
    return np.stack([np.asarray(each, np.float64) for each in columns], 1)


def _area(sums: np.ndarray) -> np.ndarray:
    parts = sums[..., 0::2] / np.maximum(sums[..., 1::2], 1e-12)
    return np.asarray(parts[..., 0] + parts[..., 1] - parts[..., 2])


_ROWS: dict[tuple[str, str], tuple[Callable[[Tensor, Tensor], np.ndarray], Figure]] = {
    ("classify", "accuracy"): (_right, _mean),
    ("classify", "loss"): (_losses, _mean),
    ("classify", "auc"): (_odds, _area),
}


class _Given(nn.Module):
    """What a measure takes for a model: it answers with logits that are there already."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: Tensor) -> Tensor:
        return self.logits


def _measured(answers: Answers, batches: Iterable[Batch], task: Task, metric: str, data: Dataset, split: str) -> Tally:
    """The sums that `thrifty.evaluate` keeps, a row at a time."""
    unit = data.table.deviation if data.table is not None else 1.0
    text_bytes = data.text_bytes.get(split, 0)
    found = []
    with torch.inference_mode():
        for arrays in batches:
            batch = to_tensors(arrays)
            logits = answers(batch["x"]).float()
            for row in range(len(logits)):
                own = MEASURES[task](0, data.labels, unit)
                own.add(_Given(logits[row : row + 1]), {key: each[row : row + 1] for key, each in batch.items()})
                found.append(own.sums())
    sums_NS = np.stack(found)

    def figure(sums: np.ndarray) -> np.ndarray:
        if sums.ndim > 1:
            return np.array([figure(each) for each in sums])
        whole = MEASURES[task](text_bytes, data.labels, unit)
        whole.take(sums)
        return np.asarray(whole.evaluation().metrics[metric]) if whole.count else np.asarray(math.nan)

    def bits(sums: np.ndarray) -> np.ndarray:
        # of any rows, at the bytes a token that the whole split has
        a_token = text_bytes / sums_NS[:, 1].sum()
        return np.asarray(_mean(sums) / math.log(2) / a_token)

    return Tally(sums_NS, bits if metric == "bits_per_byte" else figure)


def worse_by(metric: str, reference: np.ndarray | float, candidate: np.ndarray | float) -> np.ndarray:
    """Return how much worse the candidate is, in the metric's own unit."""
    sign = 1.0 if METRICS[metric].rises else -1.0
    return np.asarray(sign * (np.asarray(reference) - np.asarray(candidate)))
