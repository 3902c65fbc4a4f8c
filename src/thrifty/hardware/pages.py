"""What the process keeps of the memory it was given, and what it gives back."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from collections.abc import Iterator
from typing import Any, Literal

from thrifty.spec import Checkpointing, DeviceKind

# What a process keeps of freed memory: "all"; "small", which is all but blocks of `LARGE_BYTES` and more, for each of
# them is mapped for itself; or "default", which is up to the C library.
Keeping = Literal["all", "small", "default"]
LARGE_BYTES = 32 << 20
# parameters of mallopt (malloc.h of glibc); it takes no higher threshold than that for blocks that are mapped (man
# mallopt), so for "all" none may be mapped; a threshold of -1 is never reached
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_TOP_PAD_BYTES = 16 << 20
_MOST_MAPPED = {"all": 0, "small": 65_536}


def give_back() -> None:
    """Give what is freed of the heap back to the kernel, where the C library can (glibc); cycles are freed first."""
    gc.collect()
    trim()


@contextlib.contextmanager
def settled() -> Iterator[None]:
    """Leave what lies in memory now out of each look for garbage within: with torch imported one takes 0.2 s.

    Nothing changes where whoever runs this has left out something himself.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def trim() -> None:
    """Give what is free of the heap back to the kernel, where the C library can (glibc)."""
    malloc_trim = _of_glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def keeping(kind: DeviceKind, checkpointing: Checkpointing) -> Keeping:
    """What training here keeps: on a CPU under glibc all, or where blocks are computed again all but large blocks.

    Smaller blocks that come to lie where a large one was make the heap grow for the next large one. Computing again has
    large blocks come and go beside small ones that stay, and is done to save memory: six blocks with results of 64 MiB
    took 1,645 MiB with all kept and nothing computed again, 1,632 MiB with all computed again, and 767 MiB with all
    computed again and large blocks mapped.

    >>> keeping("cuda", "none")
    'default'
    """
    if kind != "cpu" or _of_glibc("mallopt") is None:
        return "default"
    return "all" if checkpointing == "none" else "small"


def keep_pages(what: Keeping) -> bool:
    """Have glibc keep freed memory, for the whole process and those it forks; True where it obeys.

    By default each block of 32 MiB and more is mapped for itself, and the heap's free top is given back: the kernel
    then clears every page anew, step after step, at a microsecond or more for 4 KiB. What is kept goes back by
    `give_back` alone. With "default", and elsewhere than on glibc, nothing happens.
    """
    mallopt = _of_glibc("mallopt")
    if mallopt is None or what == "default":
        return False
    settings = {
        _MMAP_MAX: _MOST_MAPPED[what], _MMAP_THRESHOLD: LARGE_BYTES, _TRIM_THRESHOLD: -1, _TOP_PAD: _TOP_PAD_BYTES,
    }  # fmt: skip
    return [mallopt(name, value) for name, value in settings.items()] == [1] * len(settings)


def _of_glibc(name: str) -> Any:
    """A function of the C library that only glibc has; None elsewhere."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
