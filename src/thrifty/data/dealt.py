"""Which split each row of a table goes to; equal rows go together, and none stands on both sides.

Rows that are equal within one split stay: two samples may be alike. Shapes: N rows of all files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thrifty.data.told import Told
from thrifty.spec import SPLITS, Split

PARTS = SPLITS
DROPPED = -1
# odd constants of SplitMix64 (Steele et al. 2014), which spreads the bits of a digest with the seed's
_MIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


@dataclass(frozen=True)
class Dealt:
    """Where rows go.

    Attributes:
        parts: of each row the place of its split in `PARTS`, int8 [N]; -1 of those that are not used.
        copies: rows not used, by the row of another split that they equal.
        notes: what a user should know, a sentence each.
    """

    parts: NDArray[np.int8]
    copies: dict[int, int]
    notes: tuple[str, ...] = ()


def deal_rows(
    digests: NDArray[np.uint64],
    told: Told,
    given: NDArray[np.int8],
    split: Split,
    missing: Sequence[str],
    ranks: NDArray[np.uint64],
) -> Dealt:
    """Give every usable row its split: its file's, or, of the training rows, one that no file gives.

    The lowest ranks are tested on, and rows of equal rank stand together. Labels are dealt each by itself, unless rows
    belong together by something else. Of equal rows that files give to two splits the held-out one stays.

    Args:
        digests: of the rows' cells but the target, [N].
        told: what they tell.
        given: the split of each row's file, [N].
        split: shares held out.
        missing: the held-out splits that no file gives.
        ranks: the place of each row in the order of dealing, [N].
    """
    digests = digests ^ _mixed(told.y.view(np.uint64) + np.uint64(1))
    parts = np.where(told.usable, given, DROPPED).astype(np.int8)
    copies = _drop_copies(digests, parts)
    if missing:
        alone = told.labels and split.together is None
        groups = told.y if alone else np.zeros(len(parts), np.int64)
        for group in np.unique(groups[parts == 0]):
            _deal(np.flatnonzero((parts == 0) & (groups == group)), ranks, parts, split, missing)
    used = digests[parts != DROPPED]
    alike = len(used) - len(np.unique(used))
    notes = (f"{alike:,} rows equal another of their split: they stay, for two samples may be alike",) if alike else ()
    return Dealt(parts, copies, notes=notes)


def _drop_copies(digests: NDArray[np.uint64], parts: NDArray[np.int8]) -> dict[int, int]:
    """Drop rows that equal one of a split further held out; returns which."""
    copies: dict[int, int] = {}
    for part, further in ((0, (1, 2)), (1, (2,))):
        there = np.flatnonzero(np.isin(parts, further))
        own = np.flatnonzero(parts == part)
        for row in own[np.isin(digests[own], digests[there])].tolist():
            copies[row] = int(there[np.flatnonzero(digests[there] == digests[row])[0]])
    parts[list(copies)] = DROPPED
    return copies


def seeded(digests: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Return the place of each row in the seeded order: content and seed alone decide it."""
    return _mixed(digests + np.uint64((seed + 1) * _MIX[0] % 2**64))


def _mixed(mixed: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(_MIX[1])
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(_MIX[2])
    return mixed ^ (mixed >> np.uint64(31))


def _deal(
    rows: NDArray[np.int64], ranks: NDArray[np.uint64], parts: NDArray[np.int8], split: Split, missing: Sequence[str]
) -> None:
    """Deal the rows of one label: the lowest ranks to test, the next to validation, the rest to training."""
    order = rows[np.argsort(ranks[rows], kind="stable")]
    start = 0
    for still, part in zip(range(len(missing), 0, -1), missing, strict=True):
        room = len(order) - start - still
        end = start + min(max(1, round(len(order) * getattr(split, part))), max(room, 0))
        # equal rows have equal ranks, and stay together
        while 0 < end < len(order) and ranks[order[end]] == ranks[order[end - 1]]:
            end += 1
        parts[order[start:end]] = PARTS.index(part)
        start = end
