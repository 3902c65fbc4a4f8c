"""Memory of a device beside the tensors: context, communicators, and the holes its allocator cannot give back."""

from __future__ import annotations

from dataclasses import dataclass

from thrifty.spec.device import DeviceKind
from thrifty.spec.layout import Layout

MIB = 1 << 20

# Context, kernels, libraries' workspaces; low, value, high. cuda: 1343 MiB is what Hugging Face measured on a
# V100 (docs/source/en/perf_train_gpu_one.mdx); lazily loaded kernels (CUDA 11.7 on) take 450 to 600. rocm and tpu are
# assumed. cpu: the interpreter with torch, as in `thrifty.cost.memory`.
_CONTEXT_BYTES: dict[DeviceKind, tuple[int, int, int]] = {
    "cuda": (450 * MIB, 1343 * MIB, 1800 * MIB),
    "rocm": (500 * MIB, 1500 * MIB, 2500 * MIB),
    "tpu": (100 * MIB, 300 * MIB, 600 * MIB),
    "cpu": (285 * MIB, 335 * MIB, 400 * MIB),
}
# NCCL's buffers of one communicator: channels x 2 directions x about 5 MiB of protocol buffers (NCCL_BUFFSIZE 4 MiB and
# the low-latency protocols'); 12 to 32 channels on NVLink machines. Assumed from its defaults.
_COMMUNICATOR_BYTES = (64 * MIB, 200 * MIB, 400 * MIB)
# Holes: a share of what comes and goes (activations and temporaries), and of the lesser of a block's and the loss's
# temporaries, whose large tensors cannot fill each other's segments; and how far below and above that share they were.
# Fitted by benchmarks/memory_slack.py to 168 replays of Transformer steps through `thrifty.cost.cuda_allocator`.
HOLES = {"full": (0.102, 0.526, 0.099, 0.134), "kept": (0.035, 0.176, 0.035, 0.080)}


@dataclass(frozen=True)
class Bounds:
    """A number of bytes, and the bounds it should fall between nine times in ten."""

    low: float
    value: float
    high: float


def context_bytes(kind: DeviceKind, layout: Layout) -> Bounds:
    """Return what a device holds before the first tensor: its context, and a communicator for each kind of group.

    The groups are those of the degrees above 1, and the whole world.
    """
    groups = sum(each > 1 for each in (layout.data, layout.tensor, layout.pipeline, layout.context, layout.expert))
    communicators = groups + 1 if groups else 0
    low, value, high = (
        base + communicators * each for base, each in zip(_CONTEXT_BYTES[kind], _COMMUNICATOR_BYTES, strict=True)
    )
    return Bounds(low, value, high)


def hole_bytes(kind: DeviceKind, layout: Layout, *, swept: float, block: float, loss: float) -> Bounds:
    """Return the holes in what PyTorch's allocator holds when it has given back what it can.

    Args:
        kind: of the device; XLA lays memory out ahead of time and leaves none on a TPU.
        layout: its checkpointing is read: without it, tensors of a few sizes come and go in the same order.
        swept: bytes that come and go at the moment of the peak.
        block, loss: bytes beside activations while a block's backward runs, and the loss's.
    """
    if kind == "tpu":
        return Bounds(0.0, 0.0, 0.0)
    share, mixing, below, above = HOLES["full" if layout.checkpointing == "full" else "kept"]
    value = share * swept + mixing * min(block, loss)
    return Bounds(max(0.0, value - below * swept), value, value + above * swept)
