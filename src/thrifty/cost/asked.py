"""Ask a GPU about the operators of a step: each kind is called a few times alone, on noise, and timed.

No step is taken and no model is held: what a kind of operator takes at a time is its arguments and results. Libraries
choose among kernels by rules of their own, and what their choice takes, in time and in memory beside the results, no
interpolation foresees.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from thrifty.hardware.capture import Call, Key
from thrifty.hardware.gpu_bench import time_call
from thrifty.spec.device import KernelPoint

# What cuBLAS works in, for each thread that calls it, and cuBLASLt beside it: defaults of PyTorch 2.11
# (aten/src/ATen/cuda/CublasHandlePool.cpp). The passes run in a thread each.
_CUBLAS_BYTES = {True: 4096 * 8 << 10, False: (4096 * 2 + 16 * 8) << 10}
_CUBLAS_LT_BYTES, _THREADS = 1 << 20, 2

_known: dict[Key, KernelPoint] = {}


def workspace_bytes() -> int:
    """Bytes that the libraries of matrix products keep on the current GPU from their first calls on."""
    import torch

    newest = torch.cuda.get_device_capability() in ((9, 0), (10, 0))
    return _THREADS * _CUBLAS_BYTES[newest] + _CUBLAS_LT_BYTES


def ask(calls: Mapping[Key, Call]) -> dict[Key, KernelPoint]:
    """Time calls on the current GPU, each kind once in a process; those that do not run there are left out.

    Args:
        calls: of a trace, with blanks for tensors.
    """
    import torch

    with torch.no_grad():
        for key, call in calls.items():
            if key not in _known:
                with contextlib.suppress(RuntimeError):
                    _known[key] = time_call(key, call.filled("cuda"))
    torch.cuda.empty_cache()
    return {key: _known[key] for key in calls if key in _known}
