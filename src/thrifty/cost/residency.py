"""What an operator finds in the caches, and which memory the kernel must clear first, by replay of a step's blocks.

Distances are bytes touched since a block was last touched; sizes are bytes.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Callable, Sequence

from thrifty.cost.allocations import Allocations
from thrifty.cost.recorder import Op

# glibc (malloc/malloc.c): blocks from the threshold on are mapped anew each time, and a free top of twice the threshold
# is given back; both grow with the blocks freed, to 32 and 64 MiB (DEFAULT_MMAP_THRESHOLD_MAX).
LARGEST_THRESHOLD = 32 << 20
_FIRST_THRESHOLD = 128 << 10
_TOP_PAD = 128 << 10
_PAGE = 4096
# torch aligns blocks to 64 bytes; with the header that leaves a sliver beside each
_SLIVER = 80


def cold_shares(ops: Sequence[Op], allocations: Allocations, forgotten: Callable[[float], float]) -> list[float]:
    """Share of the bytes of each operator that must come from memory.

    Args:
        ops: of a step, in order; those without ``touched`` are taken to find half.
        allocations: of the same step: a block that was just given back is found again by the next of its size.
        forgotten: share of a block that the caches have lost, by its distance.
    """
    clock = 0
    touched_at: dict[int, float] = {}
    spare: dict[int, list[float]] = defaultdict(list)
    coming = iter(allocations.events)
    event = next(coming, None)
    shares = []
    for index, op in enumerate(ops):
        while event is not None and (event[1] if event[1] >= 0 else -event[1] - 1) <= index:
            number, when = event
            size = allocations.blocks[number].bytes
            if when < 0:
                spare[size].append(touched_at.pop(number, float("-inf")))
            elif spare[size]:
                touched_at[number] = spare[size].pop()
            event = next(coming, None)
        total = lost = 0.0
        for number, size in op.touched:
            total += size
            lost += size * forgotten(clock + size - touched_at.get(number, float("-inf")))
        for number, size in op.touched:
            clock += size
            touched_at[number] = clock
        shares.append(lost / total if total else 0.5)
    return shares


class Heap:
    """A heap as glibc keeps it: the smallest hole that fits, holes that touch become one, a free top goes back.

    Attributes:
        fresh_bytes: of all that was given out, what the kernel had to clear.
    """

    def __init__(self, trims: bool = True) -> None:
        self.fresh_bytes = 0
        self._trims = trims
        self._top = self._backed = 0
        self._threshold = _FIRST_THRESHOLD
        self._holes: list[tuple[int, int]] = []
        self._starts: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self._used: dict[int, int] = {}
        self._mapped: dict[int, int] = {}

    def allocate(self, size: int) -> int:
        """Give out a block; returns where it is."""
        need = size + _SLIVER
        index = bisect.bisect_left(self._holes, (need, -1))
        if index < len(self._holes):
            length, place = self._holes.pop(index)
            del self._starts[place], self._ends[place + length]
            if length > need:
                self._hole(place + need, length - need)
            self._used[place] = need
            return place
        if size >= self._threshold and self._top + need > self._backed:
            self.fresh_bytes += size
            place = -1 - len(self._mapped)
            while place in self._mapped:
                place -= 1
            self._mapped[place] = size
            return place
        place = self._top
        self._top += need
        if self._top > self._backed:
            self.fresh_bytes += self._top - self._backed
            self._backed = self._top + _TOP_PAD
        self._used[place] = need
        return place

    def free(self, place: int) -> None:
        """Take a block back."""
        if place in self._mapped:
            size = self._mapped.pop(place)
            if self._threshold < size <= LARGEST_THRESHOLD:
                # that of a mapped block is its pages, so that the next of its size lies below
                self._threshold = size + _PAGE
            return
        length = self._used.pop(place)
        after = self._starts.get(place + length)
        if after is not None:
            self._unhole(place + length, after)
            length += after
        before = self._ends.get(place)
        if before is not None:
            self._unhole(place - before, before)
            place, length = place - before, length + before
        if place + length < self._top:
            self._hole(place, length)
            return
        self._top = place
        if self._trims and self._backed - self._top >= 2 * self._threshold:
            self._backed = self._top + _TOP_PAD

    def _hole(self, place: int, length: int) -> None:
        bisect.insort(self._holes, (length, place))
        self._starts[place] = length
        self._ends[place + length] = length

    def _unhole(self, place: int, length: int) -> None:
        self._holes.pop(bisect.bisect_left(self._holes, (length, place)))
        del self._starts[place], self._ends[place + length]


def fresh_bytes(allocations: Allocations, trims: bool, steps: int = 3) -> int:
    """Bytes that the kernel must clear in a step, once steps have settled: mapped blocks, and a top given back.

    Args:
        allocations: of one step.
        trims: the heap gives back a free top as glibc does; a small block that happens to lie there would keep it.
        steps: replayed.
    """
    heap = Heap(trims)
    for step in range(steps):
        heap.fresh_bytes = 0
        places: dict[int, int] = {}
        for number, op in allocations.events:
            block = allocations.blocks[number]
            if op >= 0 and (step == 0 or block.role != "state"):
                places[number] = heap.allocate(block.bytes)
            elif op < 0 and number in places:
                heap.free(places.pop(number))
        for number, place in places.items():
            if allocations.blocks[number].role != "state":
                heap.free(place)
    return heap.fresh_bytes
