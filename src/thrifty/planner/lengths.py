"""How long the texts of a batch are once they are padded: by it goes the time of a step, and what batching saves.

Shapes: N texts, M micro-batches.
"""

from __future__ import annotations

import functools

import numpy as np

from thrifty.data.order import deal, generator_of, order_of
from thrifty.spec import LENGTH_MULTIPLE, Batching, Dataset

# texts of an epoch that are put into batches to find out; more tell no more
_MOST_TEXTS = 1 << 15


def mean_length(dataset: Dataset, *, batch: int, micro: int, batching: Batching, split: str = "train") -> int:
    """Return the mean length in tokens that texts are padded to, to the nearest multiple of `LENGTH_MULTIPLE`.

    An epoch is put together as in training, by the lengths that the data set tells, so it is no estimate but for the
    random order.

    Args:
        dataset: of texts.
        batch: texts of a step.
        micro: texts computed at once.
        batching: how steps are made up.
        split: whose lengths.

    >>> from thrifty.planner.declared import declared_dataset
    >>> from thrifty.spec import DeclaredData
    >>> data = declared_dataset(DeclaredData(kind="language", tokens=9000, vocabulary=64, length=64))
    >>> texts = data.model_copy(update={"kind": "text", "lengths": {"train": (900, 0, 0, 0, 0, 0, 0, 100)}})
    >>> mean_length(texts, batch=32, micro=32, batching="padded")
    64
    >>> mean_length(texts, batch=32, micro=32, batching="by_length")
    16
    """
    lengths_M, texts_M = _padded(dataset.lengths[split], batch, micro, batching)
    mean = float((lengths_M * texts_M).sum() / texts_M.sum())
    # a length that a batch can have: what falls between two is as near to one as to the other
    return max(1, round(mean / LENGTH_MULTIPLE)) * LENGTH_MULTIPLE


def lengths_met(dataset: Dataset, *, batch: int, micro: int, batching: Batching) -> tuple[int, ...]:
    """Return the lengths that batches of an epoch are padded to, from short to long; arguments as of `mean_length`."""
    lengths_M, _ = _padded(dataset.lengths["train"], batch, micro, batching)
    return tuple(np.unique(lengths_M).tolist())


@functools.lru_cache(maxsize=256)
def _padded(counts: tuple[int, ...], batch: int, micro: int, batching: Batching) -> tuple[np.ndarray, np.ndarray]:
    """The length that each micro-batch of an epoch is padded to, and its texts."""
    lengths_N = _lengths(counts)
    order = order_of(generator_of(0, 0), len(lengths_N), batch=batch, batching=batching, lengths=lengths_N)
    steps = (order[start : start + batch] for start in range(0, len(order), batch))
    parts = [part for step in steps for part in deal(step, micro, lengths_N)]
    return np.array([lengths_N[part].max() for part in parts]), np.array([len(part) for part in parts])


def _lengths(counts: tuple[int, ...]) -> np.ndarray:
    """Lengths [N] by their histogram, of as many texts as are needed, evenly chosen."""
    ends = np.cumsum(counts)
    total = int(ends[-1])
    chosen = np.arange(total) if total <= _MOST_TEXTS else np.linspace(0, total - 1, _MOST_TEXTS).astype(np.int64)
    return (np.searchsorted(ends, chosen, side="right") + 1) * LENGTH_MULTIPLE
