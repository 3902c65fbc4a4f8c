"""The alternate stack that signals of a thread are handled on, kept as it was around libraries that change it.

OpenVINO gives the thread that loads its plugin of the processor a stack of its own, and takes it away with the plugin:
of two that are not unloaded in the reverse order of their loading, the second leaves the thread with the stack of the
first, which is gone. The next signal, be it Ctrl-C, then ends the process with a segmentation fault.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator


class _Stack(ctypes.Structure):
    """``stack_t`` of glibc and musl (man 2 sigaltstack)."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("bytes", ctypes.c_size_t))


def address() -> int | None:
    """Return where this thread's alternate stack begins; None where it has none, or on another system than Linux."""
    if sys.platform != "linux":
        return None
    now = _Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(now))
    return now.address


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Give this thread back the alternate stack that it had when the block began."""
    if sys.platform != "linux":
        yield
        return
    system, before = ctypes.CDLL(None), _Stack()
    system.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        system.sigaltstack(ctypes.byref(before), None)
