"""What computes a model's rows: a function of rows, in this process, or a process of its own that can be lost.

A worker in this process costs no transfer, but what it cannot survive the server cannot either: a segmentation fault,
the kernel's memory killer, native code that never returns. A process can be killed and started again, gives its memory
back when it ends, has cores and a Python of its own, and its processor time is the model's alone. So folders are
served by processes, forked from one that has torch loaded already (``nursery.py``); bundles that a program hands over
as objects are computed in its own process by a thread.
"""

from __future__ import annotations

import os

__all__ = ["has_processes"]


def has_processes() -> bool:
    """Whether this system can hold on to a process that it forked, as Linux can; elsewhere threads compute."""
    return hasattr(os, "pidfd_open") and hasattr(os, "sched_setaffinity")
