"""Price the operators of a traced step, of any model, on a device of the catalogue."""

from __future__ import annotations

import math
from functools import lru_cache

from thrifty.cost.calibrations import Calibration
from thrifty.cost.choose import calibration_for
from thrifty.cost.kernels import Kernel, Kernels, Rates, kernel_seconds, rates_of
from thrifty.cost.recorder import Op
from thrifty.spec import Device

# Segments of `trace_kernels`.
FORWARD, BACKWARD, UPDATE = 0, 1, 2
SEGMENTS = 3
_SEGMENT = {"forward": FORWARD, "backward": BACKWARD, "recompute": BACKWARD, "clip": UPDATE, "optimizer": UPDATE}
HALVES = ("float16", "bfloat16")
_PRECISION = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32", "float64": "fp32"}
# Calibrations lay all of the host's time on the 16 kernels forward and 28 backward that `transformer.py` counts in a
# block; traced under autocast, a block of `models/gpt.py` has 20 and 32 operators. An operator therefore takes this
# share of ``launch_s``.
HOST_SHARE = 0.85
# Nor more than this: 12 and 14 us of the host for an operator in the median, 3 to 15 beside it in a backward pass, 5 to
# 27 for a module forward, which has about three (micro-benchmarks of `gpu_bench` on the hosts of an H200 and an H100).
# What fits took up beside it is the waiting of many devices.
MOST_LAUNCH_S = 2.5e-5
# What cuDNN multiplies in TF32 where the device can, unless it is forbidden to (torch.backends.cudnn.allow_tf32).
_BY_CUDNN = ("convolution", "rnn")


def op_kernel(op: Op) -> Kernel:
    """Say as a kernel what an operator does: a product for what multiplies matrices, else its traffic.

    Convolutions are products of output positions, output channels and the window; their backward is two of them. What
    lies next to each other in memory are channels, which convolution libraries fill up to what tensor cores take: 8 of
    them, 4 in a first layer (NVIDIA, Convolutional Layers User's Guide). In fp32 nothing needs filling up.
    """
    segment = _SEGMENT[op.phase]
    moved = float(op.bytes_read + op.bytes_written)
    if not op.flops:
        return Kernel(segment, "other", 0.0, moved, precision=op.dtype)
    if op.kind == "attention":
        # A fused causal kernel skips the half that the mask would hide; the trace counts it.
        seen = 0.5 if "is_causal=True" in op.layouts else 1.0
        return Kernel(segment, "attention", seen * op.flops, moved, precision=op.dtype)
    batch, m, n = _sides(op)
    k = max(1.0, op.flops / (2 * batch * m * n))
    if op.kind == "convolution":
        k, n = _eights(k * _filled(op)), _eights(n)
    by_cudnn = op.dtype == "float32" and any(part in op.name for part in _BY_CUDNN)
    return Kernel(segment, "matmul", float(op.flops), moved, batch, m, n, k, 1, "tf32" if by_cudnn else op.dtype)


def _sides(op: Op) -> tuple[float, float, float]:
    """Batch, rows and columns of the product behind an operator, from the shapes it was recorded with."""
    given, _, results = op.shapes.partition("->")
    shapes = [[int(side) for side in shape.split("x")] for shape in results.split(",") if shape and shape[0].isdigit()]
    if op.kind == "convolution":
        if "backward" in op.name:  # the gradient of the output comes first
            shapes = [[int(side) for side in given.split(",")[0].split("x")]]
        first = shapes[0]
        return 1.0, float(first[0] * math.prod(first[2:])), float(first[1] if len(first) > 1 else 1)
    shape = next((shape for shape in shapes if shape), [1, 1])
    if len(shape) < 2:
        return 1.0, float(shape[0]), 1.0
    return float(math.prod(shape[:-2])), float(shape[-2]), float(shape[-1])


def _filled(op: Op) -> float:
    """How much longer the window of a convolution gets by filling up its input channels."""
    given = op.shapes.partition("->")[0].split(",")
    weight = given[2 if "backward" in op.name else 1] if len(given) > 1 else ""
    if op.dtype not in HALVES or weight.count("x") < 2:
        return 1.0
    channels = int(weight.split("x")[1])
    return (4 if channels <= 4 else _eights(channels)) / channels


def _eights(side: float) -> float:
    return 8.0 * math.ceil(side / 8 - 1e-6)


def op_seconds(op: Op, device: Device, calibration: Calibration | None = None) -> float:
    """Return seconds of one operator on the device itself, whatever its kind; launching it is not in it.

    Raises:
        JobError: the device has no arithmetic of the operator's precision.
    """
    calibration = calibration or calibration_for(device)
    kernel = op_kernel(op)
    rates = _rates(device, calibration, kernel.precision, op.flops > 0)
    return float(kernel_seconds(Kernels([kernel], SEGMENTS), rates)[0])


def _rates(device: Device, calibration: Calibration, dtype: str, multiplies: bool) -> Rates:
    precision = _PRECISION.get(dtype, "fp32")
    if dtype == "tf32" and device.kind == "cuda" and "tf32" in device.flops_per_second:
        precision = "tf32"
    if not multiplies and precision not in device.flops_per_second:
        precision = next(iter(device.flops_per_second))
    return rates_of(device, calibration, precision)


@lru_cache(maxsize=256)
def trace_kernels(ops: tuple[Op, ...]) -> dict[str, Kernels]:
    """Return the kernels of a traced step by the precision they compute in."""
    found: dict[str, list[Kernel]] = {}
    for op in ops:
        kernel = op_kernel(op)
        found.setdefault(kernel.precision if op.flops else "", []).append(kernel)
    return {dtype: Kernels(kernels, SEGMENTS) for dtype, kernels in found.items()}


def trace_seconds(ops: tuple[Op, ...], device: Device, calibration: Calibration) -> list[list[float]]:
    """Return, for forward, backward and update, seconds of products, attention, other operators, and waiting.

    The device's time of each operator is summed; where the host needs longer to launch them it is waited for, joined as
    in `segment_seconds`.
    """
    table = [[0.0] * 4 for _ in range(SEGMENTS)]
    launches = [0.0] * SEGMENTS
    for dtype, kernels in trace_kernels(ops).items():
        seconds = kernel_seconds(kernels, _rates(device, calibration, dtype, bool(dtype)))
        for segment, kind, spent in zip(kernels.segment, kernels.kind, seconds, strict=True):
            table[segment][kind] += float(spent)
            launches[segment] += 1
    launches[UPDATE] = 0.0  # accelerators update all parameters at once, traced one after another
    for row, count in zip(table, launches, strict=True):
        own, host = sum(row), count * min(HOST_SHARE * calibration.launch_s, MOST_LAUNCH_S)
        hidden = (own**4 + host**4) ** 0.25 - own
        row[3] = calibration.blocking * host + (1 - calibration.blocking) * hidden
    return table
