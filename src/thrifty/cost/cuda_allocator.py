"""Replay allocations through the rules of PyTorch's CUDA caching allocator: what it calls allocated, what it holds.

Rules, from ``c10/cuda/CUDACachingAllocator.cpp`` (PyTorch 1.10 to 2.7, default settings, one stream):

- a request is rounded up to 512 bytes; up to 1 MiB it is small, above it is large; the two never share memory;
- it takes the smallest free block that holds it, the lowest address among equals;
- where none does, memory is asked of the driver: 2 MiB for a small one, 20 MiB for one below 10 MiB, else the request
  rounded up to 2 MiB; such a segment goes back to the driver only when the device is full and nothing lives in it;
- what is over is split off when at least 512 bytes are left (small) or more than 1 MiB (large), otherwise the block is
  given whole, and counts whole as allocated;
- a freed block joins its free neighbours within its segment;
- with ``expandable_segments`` each pool is one segment that grows by pages (2 MiB small, 20 MiB large), and splits from
  512 bytes on.

Left out: blocks used on a second stream (held until its work is done), graph pools, ``max_split_size_mb``,
``roundup_power2_divisions`` and garbage collection, all off by default.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass

MIB = 1 << 20
MIN_BLOCK_BYTES = 512
SMALL_BYTES = MIB
SMALL_SEGMENT_BYTES = 2 * MIB
LARGE_SEGMENT_BYTES = 20 * MIB
MIN_LARGE_BYTES = 10 * MIB
ROUND_LARGE_BYTES = 2 * MIB


@dataclass(frozen=True)
class CudaPeak:
    """What the allocator's counters show after a replay, in bytes.

    Attributes:
        requested: most that was asked for and alive at once, before rounding.
        allocated: ``torch.cuda.max_memory_allocated``.
        reserved: ``torch.cuda.max_memory_reserved``; nvidia-smi shows this and the context.
        fragmentation: held but not allocated, at the instant of the highest ``allocated``.
        peak_event: index of the event at which ``allocated`` was first highest; 0 where nothing was allocated.
        out_of_memory_event: index of the first event that did not fit the capacity; None when all did.
    """

    requested: int
    allocated: int
    reserved: int
    fragmentation: int
    peak_event: int
    out_of_memory_event: int | None


class _Block:
    """A range of a segment; ``before`` and ``after`` are its neighbours there."""

    __slots__ = ("address", "after", "before", "bytes", "free", "requested")

    def __init__(self, address: int, size: int) -> None:
        self.address, self.bytes = address, size
        self.free = True
        self.requested = 0
        self.before: _Block | None = None
        self.after: _Block | None = None


class _Pool:
    """The small or the large blocks: free ones by (bytes, address)."""

    def __init__(self, *, small: bool, expandable: bool) -> None:
        self.page_bytes = SMALL_SEGMENT_BYTES if small else LARGE_SEGMENT_BYTES
        self.expandable = expandable
        self.split_from_bytes = MIN_BLOCK_BYTES if small or expandable else SMALL_BYTES + 1
        self.sizes: list[tuple[int, int]] = []
        self.free_at: dict[int, _Block] = {}
        self.last: _Block | None = None

    def put(self, block: _Block) -> None:
        block.free = True
        insort(self.sizes, (block.bytes, block.address))
        self.free_at[block.address] = block

    def drop(self, block: _Block) -> None:
        del self.sizes[bisect_left(self.sizes, (block.bytes, block.address))]
        del self.free_at[block.address]

    def take(self, size: int) -> _Block | None:
        """Take the smallest free block of at least ``size`` bytes."""
        at = bisect_left(self.sizes, (size, -1))
        if at == len(self.sizes):
            return None
        block = self.free_at[self.sizes[at][1]]
        self.drop(block)
        return block


def round_bytes(size: int) -> int:
    """Round a request as the allocator does.

    >>> round_bytes(1), round_bytes(513)
    (512, 1024)
    """
    return max(MIN_BLOCK_BYTES, -(-size // MIN_BLOCK_BYTES) * MIN_BLOCK_BYTES)


def segment_bytes(size: int) -> int:
    """Return what is asked of the driver for a rounded request that no free block holds.

    >>> [segment_bytes(mib << 20) // MIB for mib in (1, 2, 10, 11)]
    [2, 20, 10, 12]
    """
    if size <= SMALL_BYTES:
        return SMALL_SEGMENT_BYTES
    if size < MIN_LARGE_BYTES:
        return LARGE_SEGMENT_BYTES
    return -(-size // ROUND_LARGE_BYTES) * ROUND_LARGE_BYTES


class _Allocator:
    def __init__(self, *, capacity_bytes: int | None, expandable: bool) -> None:
        self.small = _Pool(small=True, expandable=expandable)
        self.large = _Pool(small=False, expandable=expandable)
        self.capacity_bytes = capacity_bytes
        self.requested = self.allocated = self.reserved = 0
        self.top = {self.small: 0, self.large: 1 << 60}

    def allocate(self, requested: int) -> _Block | None:
        """Return a block, or None where it does not fit the capacity."""
        size = round_bytes(requested)
        pool = self.small if size <= SMALL_BYTES else self.large
        block = pool.take(size) or self._grow(pool, size)
        if block is None:
            self._release()
            block = self._grow(pool, size)
            if block is None:
                return None
        over = block.bytes - size
        if over >= pool.split_from_bytes:
            rest = _Block(block.address + size, over)
            rest.before, rest.after = block, block.after
            if rest.after is not None:
                rest.after.before = rest
            block.after, block.bytes = rest, size
            if pool.last is block:
                pool.last = rest
            pool.put(rest)
        block.free = False
        block.requested = requested
        self.requested += requested
        self.allocated += block.bytes
        return block

    def free(self, block: _Block) -> None:
        self.requested -= block.requested
        self.allocated -= block.bytes
        pool = self.small if block.address < self.top[self.small] else self.large
        for beside in (block.before, block.after):
            if beside is not None and beside.free:
                pool.drop(beside)
                _merge(block, beside, pool)
        pool.put(block)

    def _grow(self, pool: _Pool, size: int) -> _Block | None:
        """Take memory of the driver for ``size`` bytes: a segment, or pages at the end of the one there is."""
        tail = pool.last if pool.expandable and pool.last is not None and pool.last.free else None
        if pool.expandable:
            missing = size - (tail.bytes if tail else 0)
            new = -(-missing // pool.page_bytes) * pool.page_bytes
        else:
            new = segment_bytes(size)
        if self.capacity_bytes is not None and self.reserved + new > self.capacity_bytes:
            return None
        self.reserved += new
        block = _Block(self.top[pool], new)
        self.top[pool] += new
        if pool.expandable:
            if tail is not None:
                pool.drop(tail)
                tail.bytes += new
                return tail
            block.before, pool.last = pool.last, block
            if block.before is not None:
                block.before.after = block
        return block

    def _release(self) -> None:
        """Give whole free segments (or free pages at the end) back, as before an out-of-memory error."""
        for pool in (self.small, self.large):
            for block in list(pool.free_at.values()):
                if pool.expandable:
                    # whole pages inside a free range are unmapped; what is unmapped in the middle stays unusable here,
                    # a little pessimistic: the real one maps it again
                    if block is not pool.last:
                        continue
                    gone = block.bytes // pool.page_bytes * pool.page_bytes
                    if not gone:
                        continue
                    pool.drop(block)
                    block.bytes -= gone
                    self.top[pool] -= gone
                    self.reserved -= gone
                    if block.bytes:
                        pool.put(block)
                    else:
                        pool.last = block.before
                        if block.before is not None:
                            block.before.after = None
                elif block.before is None and block.after is None:
                    pool.drop(block)
                    self.reserved -= block.bytes


def _merge(block: _Block, beside: _Block, pool: _Pool) -> None:
    block.bytes += beside.bytes
    if beside is block.before:
        block.address, block.before = beside.address, beside.before
        if block.before is not None:
            block.before.after = block
    else:
        block.after = beside.after
        if block.after is not None:
            block.after.before = block
    if pool.last is beside:
        pool.last = block


def replay(
    events: Iterable[tuple[int, int]], *, capacity_bytes: int | None = None, expandable: bool = False
) -> CudaPeak:
    """Replay allocations and frees in their order; return the peaks.

    Args:
        events: (id of a block, bytes) pairs. Bytes above 0 allocate it, 0 or less free it; an id may be used again once
            it was freed. (Freeing by a negative count lets a signed trace be passed as it is; the count is not read.)
        capacity_bytes: what the driver can give; None for no limit. At the first request that does not fit, even after
            unused segments were given back, the replay ends.
        expandable: as ``PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True``.

    >>> peak = replay([(1, 3 << 20), (2, 8 << 20), (1, -1), (3, 12 << 20)])
    >>> peak.allocated // MIB, peak.reserved // MIB, peak.fragmentation // MIB
    (20, 32, 12)
    """
    allocator = _Allocator(capacity_bytes=capacity_bytes, expandable=expandable)
    alive: dict[int, _Block] = {}
    requested = allocated = reserved = fragmentation = peak_event = 0
    failed = None
    for index, (name, size) in enumerate(events):
        if size > 0:
            assert name not in alive, f"event {index} allocates block {name}, which is alive"
            block = allocator.allocate(size)
            if block is None:
                failed = index
                break
            alive[name] = block
            requested = max(requested, allocator.requested)
            reserved = max(reserved, allocator.reserved)
            if allocator.allocated > allocated:
                allocated, peak_event = allocator.allocated, index
                fragmentation = allocator.reserved - allocator.allocated
        else:
            assert name in alive, f"event {index} frees block {name}, which is not alive"
            allocator.free(alive.pop(name))
    return CudaPeak(requested, allocated, reserved, fragmentation, peak_event, failed)
