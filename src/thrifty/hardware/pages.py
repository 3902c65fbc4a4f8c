"""What the process keeps of the memory it was given, and what it gives back."""

from __future__ import annotations

import ctypes
import gc
import sys

# parameters of mallopt (malloc.h of glibc)
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _TOP_PAD = -1, -3, -2
_NEVER = (1 << 31) - 1
_TOP_PAD_BYTES = 16 << 20


def give_back() -> None:
    """Give what is freed of the heap back to the kernel, where the C library can (glibc)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)


def keep_pages() -> bool:
    """Tell glibc's allocator to neither map large blocks anew nor give back what is freed; True where it obeyed.

    By default each block of 32 MiB and more is mapped for itself, and the heap's free top is given back: the kernel
    then clears every page anew, step after step, at a microsecond or more for 4 KiB. Holds for the whole process from
    now on, for memory that is asked for from now on. Elsewhere than on glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_MMAP_THRESHOLD, _NEVER), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _TOP_PAD_BYTES))
    obeyed = [mallopt(name, value) == 1 for name, value in settings]
    return all(obeyed)
