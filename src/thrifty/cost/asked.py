"""Which operators of a step to ask a device about, and what a trace knows once it was asked.

Libraries choose among kernels by rules of their own, and what their choice takes, in time and in memory beside the
results, no interpolation foresees. No step is taken and no model is held: what a kind of operator takes at a time is
its arguments and results.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from thrifty.cost.time import Priced
from thrifty.cost.trace import Trace
from thrifty.hardware.asking import Asker
from thrifty.hardware.capture import Call, Key

# reads a workspace of the forward pass whose size and contents no fake step knows, and breaks on another
_NEEDS_WORKSPACE = frozenset(["mkldnn_rnn_layer_backward"])
# of a step's time, what a CPU is asked about: the rest is many small operators
SHARE = 0.97

# What cuBLAS works in, for each thread that calls it, and cuBLASLt beside it: defaults of PyTorch 2.11
# (aten/src/ATen/cuda/CublasHandlePool.cpp). The passes run in a thread each.
_CUBLAS_BYTES = {True: 4096 * 8 << 10, False: (4096 * 2 + 16 * 8) << 10}
_CUBLAS_LT_BYTES, _THREADS = 1 << 20, 2


def heard(trace: Trace, asker: Asker) -> Trace:
    """A trace that knows what a device says of its operators, now and as more is asked."""
    gpu = asker.device == "cuda"
    return replace(trace, timed=asker.known, workspace_bytes=workspace_bytes() if gpu else 0)


def slowest(trace: Trace, priced: Sequence[Priced], share: float = SHARE) -> dict[Key, Call]:
    """The calls of the operators that take so much of a step, the slowest first.

    Args:
        trace: of one step.
        priced: its operators, as `thrifty.cost.time.Times.price` foresees them.
        share: of the step's time.
    """
    seconds: dict[Key, float] = defaultdict(float)
    for each in priced:
        seconds[each.op.key] += each.seconds
    left_s = share * sum(seconds.values())
    wanted: dict[Key, Call] = {}
    for key in sorted(seconds, key=lambda key: -seconds[key]):
        if left_s <= 0:
            break
        left_s -= seconds[key]
        if key in trace.calls and key.name not in _NEEDS_WORKSPACE:
            wanted[key] = trace.calls[key]
    return wanted


def workspace_bytes() -> int:
    """Bytes that the libraries of matrix products keep on the current GPU from their first calls on."""
    import torch

    newest = torch.cuda.get_device_capability() in ((9, 0), (10, 0))
    return _THREADS * _CUBLAS_BYTES[newest] + _CUBLAS_LT_BYTES
