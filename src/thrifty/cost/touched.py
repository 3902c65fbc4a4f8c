"""Pages of the C library's heap that are resident, or would be once blocks that nobody wrote to were written."""

from __future__ import annotations

import ctypes
import functools
import mmap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thrifty.hardware.pages import trim

_HUGE_BYTES = 2 << 20
_ASKED_BYTES = 1 << 20


class _MallInfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


@functools.cache
def mallinfo() -> Callable[[], _MallInfo] | None:
    """glibc's account of its heap; None where there is another C library, or one before 2.33."""
    try:
        found = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        return None
    found.restype = _MallInfo
    return found


def accounts() -> bool:
    """Whether glibc accounts for torch's blocks: there is glibc, and no other allocator was loaded before it."""
    told = mallinfo()
    if told is None:
        return False
    before = _used_bytes(told())
    block = torch.empty(_ASKED_BYTES, dtype=torch.uint8)
    return _used_bytes(told()) - before >= block.nbytes


class Touched:
    """What the heap of a process that keeps its pages grows to, block by block; it begins with what is free given back.

    A block of the heap makes its pages resident for good, wherever it lies: in a hole that earlier blocks left, or
    beyond. A block that is mapped for itself is resident while it lives.

    Args:
        huge: the kernel gives huge pages unasked; looked up when left out.
        maps: blocks may be mapped for themselves; where none are, glibc need not be asked, which walks its whole heap.
    """

    def __init__(self, huge: bool | None = None, *, maps: bool = True) -> None:
        trim()
        self._base, end = _heap()
        self._held = _resident(self._base, end)
        self._before = self._count = int(self._held.sum())
        self._maps = maps
        self._mapped_before = _mapped_bytes()
        self._huge = _huge_pages() if huge is None else huge

    @property
    def grown_bytes(self) -> int:
        """What is resident beyond what was at the beginning."""
        mapped = _mapped_bytes() - self._mapped_before if self._maps else 0
        return (self._count - self._before) * mmap.PAGESIZE + mapped

    def lie(self, tensor: Tensor) -> None:
        """Count the block of a tensor as written to."""
        storage = tensor.untyped_storage()
        first = storage.data_ptr() - self._base
        end = first + storage.nbytes()
        if end <= first or first < 0 or end > _top() - self._base:
            return
        self._hold(first // mmap.PAGESIZE, -(-end // mmap.PAGESIZE))

    def look(self) -> None:
        """Count what else was written to: objects that are no tensors."""
        seen = _resident(self._base, _top())
        self._reach(len(seen))
        self._held[: len(seen)] |= seen
        self._count = int(self._held.sum())

    def _hold(self, first: int, end: int) -> None:
        if self._huge:
            first, end = self._widened(first), self._widened(end, up=True)
        self._reach(end)
        self._count += end - first - int(self._held[first:end].sum())
        self._held[first:end] = True

    def _widened(self, page: int, up: bool = False) -> int:
        """The edge of the huge page that a page lies in, where the kernel would give one: none of it is held."""
        pages = _HUGE_BYTES // mmap.PAGESIZE
        offset = self._base // mmap.PAGESIZE
        low = max((page + offset) // pages * pages - offset, 0)
        high = -(-(page + offset) // pages) * pages - offset
        return page if self._held[low:high].any() else high if up else low

    def _reach(self, pages: int) -> None:
        if pages > len(self._held):
            more = np.zeros(max(pages, 2 * len(self._held)) - len(self._held), dtype=bool)
            self._held = np.concatenate([self._held, more])


def _heap() -> tuple[int, int]:
    """Addresses of the first byte of the heap and of the first beyond it, whole pages (proc(5), maps)."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    found = [int(line.split("-")[0], 16) for line in lines if line.endswith("[heap]")]
    top = _top()
    return min(found, default=top), top


@functools.cache
def _sbrk() -> Callable[[int], int]:
    found = ctypes.CDLL(None).sbrk
    found.restype, found.argtypes = ctypes.c_void_p, (ctypes.c_ssize_t,)
    return found


def _top() -> int:
    return -(-int(_sbrk()(0)) // mmap.PAGESIZE) * mmap.PAGESIZE


def _resident(first: int, end: int) -> NDArray[np.bool_]:
    """Which pages of a range are resident; those of a copied process too that it shares with the other (mincore(2))."""
    seen = np.zeros((end - first) // mmap.PAGESIZE, dtype=np.uint8)
    mincore = ctypes.CDLL(None).mincore
    mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    if len(seen) and mincore(first, end - first, seen.ctypes.data):
        return np.zeros(len(seen), dtype=bool)
    return (seen & 1).astype(bool)


def _used_bytes(told: _MallInfo) -> int:
    return int(told.uordblks + told.hblkhd)


def _mapped_bytes() -> int:
    told = mallinfo()
    return int(told().hblkhd) if told is not None else 0


def _huge_pages() -> bool:
    """Whether the kernel gives huge pages to who does not ask (Documentation/admin-guide/mm/transhuge.rst)."""
    try:
        return "[always]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(encoding="ascii")
    except OSError:
        return False
