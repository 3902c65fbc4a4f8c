"""How long the texts of a batch are once they are padded or packed: by it goes the time of a step.

Windows of a language model whose documents are told apart are packed too: their pieces of documents are its texts.

Shapes: N texts, M micro-batches.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from thrifty.data.order import deal, generator_of, order_of
from thrifty.data.texts.packing import groups_of, pack, row_size
from thrifty.spec import LENGTH_MULTIPLE, Batching, Dataset

# texts of an epoch that are put into batches to find out; more tell no more
_MOST_TEXTS = 1 << 15
# micro-batches that are packed to find out, and by how much of their distance from the mean a later one may exceed the
# largest of them: sums of lengths are nearly normal, of which 512 lie within three deviations and 100,000 within 4.5
_MOST_ROWS, _BEYOND = 512, 0.5
# micro-batches of windows that are made up to find out
_ROWS_DRAWN = 32


@dataclass(frozen=True)
class PackedShape:
    """A micro-batch of packed texts: tokens of the row, and how many texts of what length each group has."""

    tokens: int
    grids: tuple[tuple[int, int], ...]


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


def packed_shape(dataset: Dataset, *, batch: int, micro: int) -> PackedShape:
    """Return what a micro-batch of packed texts is in the mean; arguments as of `mean_length`.

    >>> from thrifty.planner.declared import declared_dataset
    >>> from thrifty.spec import DeclaredData
    >>> data = declared_dataset(DeclaredData(kind="language", tokens=9000, vocabulary=64, length=64))
    >>> texts = data.model_copy(update={"kind": "text", "lengths": {"train": (900, 0, 0, 0, 0, 0, 0, 100)}})
    >>> packed_shape(texts, batch=32, micro=32)
    PackedShape(tokens=328, grids=((9, 8), (8, 8), (8, 8), (8, 64)))
    """
    rows = _rows(dataset, batch, micro)
    kinds = Counter(len(each.grids) for each in rows)
    usual = [each for each in rows if len(each.grids) == kinds.most_common(1)[0][0]]
    grids_M = np.array([each.grids for each in usual], float).mean(0)
    grids = ((round(n), max(1, round(length / LENGTH_MULTIPLE)) * LENGTH_MULTIPLE) for n, length in grids_M)
    tokens = micro * dataset.shape[0] if dataset.kind == "language" else None
    return PackedShape(tokens or row_size(round(np.mean([each.tokens for each in usual]))), tuple(grids))


def packed_largest(dataset: Dataset, *, batch: int, micro: int) -> PackedShape:
    """Return the largest micro-batch of packed texts that is to be expected of a long training."""
    mean, rows = packed_shape(dataset, batch=batch, micro=micro), _rows(dataset, batch, micro)
    most = max(each.tokens for each in rows)
    longest = micro * dataset.shape[0]
    tokens = (
        longest if most == longest else min(row_size(round(most + _BEYOND * (most - mean.tokens))), row_size(longest))
    )
    whole = [each.grids for each in rows if len(each.grids) == len(mean.grids)]
    grids = np.array(whole).max(0).tolist()
    grids[-1][1] = dataset.shape[0]
    return PackedShape(tokens, tuple((n, length) for n, length in grids))


def packed_met(dataset: Dataset, *, batch: int, micro: int) -> tuple[PackedShape, ...]:
    """Return a micro-batch of packed texts for each size of row that an epoch has, from short to long."""
    rows = {each.tokens: each for each in _rows(dataset, batch, micro)}
    return tuple(rows[tokens] for tokens in sorted(rows))


def largest_shape(dataset: Dataset, settings: Mapping[str, Any], *, batch: int) -> PackedShape | None:
    """Return the largest micro-batch of a way where texts are packed; None for others, which go by the longest text.

    Args:
        dataset: of any kind.
        settings: of the way.
        batch: samples of a step.
    """
    if settings.get("batching") != "packed":
        return None
    return packed_largest(dataset, batch=batch, micro=settings["micro_batch"])


def shorter_shapes(dataset: Dataset, settings: Mapping[str, Any], *, batch: int) -> tuple[int | PackedShape, ...]:
    """Return what micro-batches of texts a way meets beside the largest; none where all samples are of one size.

    Args:
        dataset, settings, batch: as of `largest_shape`.
    """
    if "batching" not in settings:
        return ()
    micro, batching = settings["micro_batch"], settings["batching"]
    if batching == "packed":
        return packed_met(dataset, batch=batch, micro=micro)
    met = lengths_met(dataset, batch=batch, micro=micro, batching=batching)
    return tuple(length for length in met if length < dataset.shape[0])


def evaluation_ratio(dataset: Dataset, evaluation: int, *, batch: int, micro: int, batching: Batching) -> float:
    """Return how much a validation's batch of the longest texts, padded, is of the largest micro-batch."""
    if batching != "packed":
        return evaluation / micro
    return evaluation * dataset.shape[0] / packed_largest(dataset, batch=batch, micro=micro).tokens


def _rows(dataset: Dataset, batch: int, micro: int) -> tuple[PackedShape, ...]:
    if dataset.kind == "language":
        return _apart(dataset.lengths["train"], micro, dataset.shape[0])
    return _packed(dataset.lengths["train"], batch, micro)


@functools.lru_cache(maxsize=256)
def _apart(counts: tuple[int, ...], micro: int, length: int) -> tuple[PackedShape, ...]:
    """Micro-batches of so many windows: pieces of documents in random order until they are full, some times over."""
    generator, tokens = generator_of(0, 0), micro * length
    pool_N = np.minimum(_lengths(counts), length)
    # lengths are known to a multiple: those of each are taken to be evenly spread
    pool_N = pool_N - np.arange(len(pool_N)) % min(LENGTH_MULTIPLE, length)
    shapes = []
    for _ in range(_ROWS_DRAWN):
        drawn_N = generator.choice(pool_N, max(1, math.ceil(2 * tokens / pool_N.mean())))
        drawn_N = drawn_N[: int(np.searchsorted(np.cumsum(drawn_N), tokens)) + 1]
        drawn_N[-1] -= max(0, int(drawn_N.sum()) - tokens)
        grids = tuple((end - begin, longest) for begin, end, longest in groups_of(np.sort(drawn_N)))
        shapes.append(PackedShape(tokens, grids))
    return tuple(shapes)


@functools.lru_cache(maxsize=256)
def _packed(counts: tuple[int, ...], batch: int, micro: int) -> tuple[PackedShape, ...]:
    """Micro-batches of an epoch, packed; of many, as many as tell, evenly chosen."""
    # lengths are known to a multiple: those of each are taken to be evenly spread
    lengths_N = _lengths(counts)
    lengths_N = lengths_N - np.arange(len(lengths_N)) % LENGTH_MULTIPLE
    order = order_of(generator_of(0, 0), len(lengths_N), batch=batch, batching="packed", lengths=lengths_N)
    steps = (order[start : start + batch] for start in range(0, len(order), batch))
    parts = [part for step in steps for part in deal(step, micro, lengths_N)]
    shapes = []
    for at in np.unique(np.linspace(0, len(parts) - 1, min(len(parts), _MOST_ROWS)).astype(np.int64)):
        _, whole = pack(lengths_N[parts[at]])
        grids = tuple((end - begin, length) for begin, end, length in groups_of(whole))
        shapes.append(PackedShape(int(whole.sum()), grids))
    return tuple(shapes)


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
