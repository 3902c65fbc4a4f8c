"""Which split each row of a table goes to; equal rows go together, and none stands on both sides.

Rows that are equal within one split stay: two samples may be alike. Shapes: N rows of all files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thrifty.data.tables.row_hashes import MIX, mixed
from thrifty.data.tables.tape import PART_ROWS, Tape
from thrifty.data.tables.told import Told
from thrifty.spec import SPLITS, Split

PARTS = SPLITS
DROPPED = -1


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
    digests: Tape,
    told: Told,
    given: NDArray[np.int8],
    split: Split,
    missing: Sequence[str],
    ranks: NDArray[np.uint64] | int,
) -> Dealt:
    """Give every usable row its split: its file's, or, of the training rows, one that no file gives.

    The lowest ranks are tested on, and rows of equal rank stand together. Labels are dealt each by itself, unless rows
    belong together by something else. Of equal rows that files give to two splits the held-out one stays.

    Held of each row are at most two numbers of 8 bytes, its label and its split, and a few marks.

    Args:
        digests: of the rows' cells but the target, [N].
        told: what they tell.
        given: the split of each row's file, [N].
        split: shares held out.
        missing: the held-out splits that no file gives.
        ranks: the place of each row in the order of dealing, [N], of what rows belong together by; else the seed.
    """
    parts = given.copy()
    parts[list(told.rejects)] = DROPPED
    copies, alike = _drop_copies(digests, told, parts)
    if missing:
        order = seeded(digests, ranks) if isinstance(ranks, int) else ranks
        if told.labels and isinstance(ranks, int):
            labels = told.y.read(0, len(told.y))
            for label in range(len(told.labels)):
                _deal((parts == 0) & (labels == label), order, parts, split, missing)
        else:
            _deal(parts == 0, order, parts, split, missing)
    notes = (f"{alike:,} rows equal another of their split: they stay, for two samples may be alike",) if alike else ()
    return Dealt(parts, copies, notes=notes)


def _drop_copies(digests: Tape, told: Told, parts: NDArray[np.int8]) -> tuple[dict[int, int], int]:
    """Drop rows that equal one of a split further held out; returns which, and how many others equal one that stays."""
    marks = np.empty(len(digests), np.uint64)
    for (rows, some), (_, y) in zip(digests.parts(), told.y.parts(), strict=True):
        marks[rows] = some ^ mixed((y.astype(np.int64) if told.labels else y).view(np.uint64) + np.uint64(1))
    copies: dict[int, int] = {}
    for part, further in ((0, (1, 2)), (1, (2,))):
        held = np.isin(parts, further)
        if held.any():
            twice = np.flatnonzero(parts == part)[_holds(np.sort(marks[held]), marks[parts == part])]
            first = _first_rows(marks, held, marks[twice])
            copies |= {row: first[mark] for row, mark in zip(twice.tolist(), marks[twice].tolist(), strict=True)}
            parts[twice] = DROPPED
    used = _kept(marks, parts != DROPPED)
    used.sort()
    return copies, int((used[1:] == used[:-1]).sum())


def _kept(numbers: NDArray[np.uint64], wanted: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Move the wanted numbers to the front, where they are returned."""
    count = 0
    for start in range(0, len(numbers), PART_ROWS):
        some = numbers[start : start + PART_ROWS][wanted[start : start + PART_ROWS]]
        numbers[count : count + len(some)] = some
        count += len(some)
    return numbers[:count]


def _holds(rising: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which numbers are among others, that rise."""
    return rising[np.minimum(np.searchsorted(rising, wanted), len(rising) - 1)] == wanted


def _first_rows(marks: NDArray[np.uint64], held: NDArray[np.bool_], wanted: NDArray[np.uint64]) -> dict[int, int]:
    """The first row that is held out and has each of some marks."""
    if not len(wanted):
        return {}
    found = np.flatnonzero(held)
    found = found[_holds(np.sort(wanted), marks[found])]
    return dict(zip(marks[found[::-1]].tolist(), found[::-1].tolist(), strict=True))


def seeded(digests: Tape, seed: int) -> NDArray[np.uint64]:
    """Return the place of each row in the seeded order, [N]: content and seed alone decide it."""
    ranks = np.empty(len(digests), np.uint64)
    for rows, some in digests.parts():
        ranks[rows] = by_seed(some, seed)
    return ranks


def by_seed(digests: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Return the place of digests in the seeded order."""
    return mixed(digests + np.uint64((seed + 1) * MIX[0] % 2**64))


def _deal(
    group_N: NDArray[np.bool_], ranks: NDArray[np.uint64], parts: NDArray[np.int8], split: Split, missing: Sequence[str]
) -> None:
    """Deal the rows of one label: the lowest ranks to test, the next to validation, the rest to training."""
    order = ranks[group_N]
    start = 0
    for still, part in zip(range(len(missing), 0, -1), missing, strict=True):
        room = len(order) - start - still
        end = start + min(max(1, round(len(order) * getattr(split, part))), max(room, 0))
        if end > start:
            order.partition(end - 1)
            last = order[end - 1]
            # equal rows have equal ranks, and stay together
            parts[group_N & (parts == 0) & (ranks <= last)] = PARTS.index(part)
            start = int((order <= last).sum())
