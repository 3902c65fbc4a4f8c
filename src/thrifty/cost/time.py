"""Price the time of a step: each operator by the larger of its arithmetic and its traffic, then the optimizer.

Rates are FLOP/s and bytes/s as measured on the device; an efficiency is the share of them that a kind of operator
reaches inside a real step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from thrifty.cost.recorder import Op
from thrifty.cost.trace import Trace
from thrifty.spec import Device, Interval


@dataclass(frozen=True)
class Efficiency:
    """What share of a device's measured rates a kind of operator reaches.

    Attributes:
        forward, backward: of the matrix-product rate at the operator's precision; attention on a CPU: at fp32.
        traffic: of the memory bandwidth; above one where results are mostly still in the cache.
    """

    forward: float
    backward: float
    traffic: float


# Measured on 2 cores of an AMD EPYC (Zen 4, 32 MiB L3; torch 2.13.0; products at 190 GFLOP/s fp32 and 410 bf16, copy at
# 29 GB/s), per operator in real steps of resnet8 (batch 128), resnet20 (256), GPTs of 4 x 128 (16 x 64 tokens) and
# 6 x 384 (8 x 256), and an MLP (784-512-512-512-10, batch 256): the best of ten runs of each operator, in contiguous
# layout. The ranges are over models. Kinds marked "assumed" did not occur there.
_CPU: dict[str, dict[str, Efficiency]] = {
    "matmul": {
        "fp32": Efficiency(0.90, 0.90, 1.0),  # 0.77 (1024x128x384) to 1.0
        "bf16": Efficiency(0.85, 0.85, 1.0),  # 0.66 to 0.93
    },
    "convolution": {
        "fp32": Efficiency(0.75, 0.72, 1.0),  # forward 0.67 to 0.84, backward 0.60 to 0.83
        "bf16": Efficiency(0.70, 0.47, 1.0),  # forward 0.65 to 0.76, backward 0.38 to 0.55
    },
    "attention": {
        # 0.69 to 0.75 at 256 tokens; at 64 tokens its traffic bounds it, at 2.3 GB/s
        "fp32": Efficiency(0.72, 0.72, 0.075),
        # torch's CPU kernel gains nothing from bf16: 0.61 of the fp32 rate at 256 tokens, 0.4 to 1.3 GB/s at 64
        "bf16": Efficiency(0.60, 0.60, 0.035),
    },
    "batch_norm": {"fp32": Efficiency(1.0, 1.0, 0.40), "bf16": Efficiency(1.0, 1.0, 0.48)},  # 0.27-0.66; 0.41-0.60
    "layer_norm": {"fp32": Efficiency(1.0, 1.0, 0.95), "bf16": Efficiency(1.0, 1.0, 1.0)},  # 0.46-1.2; 0.56-1.3
    "pointwise": {"fp32": Efficiency(1.0, 1.0, 1.4), "bf16": Efficiency(1.0, 1.0, 1.1)},  # 0.5-2.0; 0.5-1.6
    "reduction": {"fp32": Efficiency(1.0, 1.0, 0.70), "bf16": Efficiency(1.0, 1.0, 0.45)},  # 0.34-0.75; 0.22-0.5
    "softmax": {"fp32": Efficiency(1.0, 1.0, 1.0), "bf16": Efficiency(1.0, 1.0, 1.0)},  # 0.6-2.4
    "gather": {"fp32": Efficiency(1.0, 1.0, 0.65), "bf16": Efficiency(1.0, 1.0, 0.65)},  # 0.32-1.15
    "copy": {"fp32": Efficiency(1.0, 1.0, 0.85), "bf16": Efficiency(1.0, 1.0, 0.85)},  # 0.4-1.35
    # one random number takes 6 to 12 ns, one maximum over 3x3 pixels 4 to 8 ns: microbenchmarks of 2 M elements
    "random": {"fp32": Efficiency(1.0, 1.0, 0.015), "bf16": Efficiency(1.0, 1.0, 0.013)},
    "pool": {"fp32": Efficiency(1.0, 1.0, 0.03), "bf16": Efficiency(1.0, 1.0, 0.02)},
    "other": {"fp32": Efficiency(1.0, 1.0, 0.40), "bf16": Efficiency(1.0, 1.0, 0.40)},  # assumed: as batch norm
}
# The same on a GPU in eager mode: assumed, not measured here. Large products reach 60 to 80 % of the datasheet, and
# published tuned training 35 to 55 % over all; a bandwidth-bound kernel about 80 % of a copy's.
_CUDA: dict[str, Efficiency] = {
    "matmul": Efficiency(0.75, 0.75, 0.8),
    "convolution": Efficiency(0.50, 0.45, 0.8),
    "attention": Efficiency(0.50, 0.40, 0.8),
    "other": Efficiency(1.0, 1.0, 0.7),
}
# what channels-last gains over contiguous, measured as above: convolution 1.29 to 1.43, batch norm 0.74 to 2.7,
# pooling 2 to 60
_CHANNELS_LAST_GAIN = {"convolution": 1.33, "batch_norm": 1.3, "pool": 5.0}
# Convolutions reach less of AMX than of AVX-512: a CIFAR-shaped ResNet-18 in bf16 at 0.6 of the shares above, on two
# cores of a Sapphire-Rapids class Xeon.
_AMX_CONVOLUTION = 0.6

# Seconds beside the operators' own work. CPU: the smallest operators of a real step take 8 to 20 µs, dispatch and
# autograd included. GPU: a launch from Python takes 5 to 10 µs and hides behind longer kernels.
_SECONDS_PER_OP = {"cpu": 12e-6, "cuda": 8e-6}
_SECONDS_PER_PARAMETER_TENSOR = {"cpu": 40e-6, "cuda": 10e-6}
# glibc maps blocks of 32 MiB and more anew each time (M_MMAP_THRESHOLD's ceiling): the kernel zeroes each page as it is
# first touched, 64 and 256 MiB results were written at 3.3 GB/s
_FRESH_BYTES = 32 << 20
_FRESH_BYTES_PER_SECOND = 3.3e9
# a whole step took 1.03 to 1.36 times the sum of its operators' best times
_STEP_OVER_OPS = {"cpu": 1.15, "cuda": 1.0}
# bounds over the value: residuals of the steps measured, widened for machines and models not seen
_LOW = {"cpu": 0.55, "cuda": 0.4}
_HIGH = {"cpu": 1.8, "cuda": 2.5}


def step_seconds(trace: Trace, accumulation: int, device: Device, precision: Literal["fp32", "bf16"]) -> Interval:
    """Predict the seconds of one optimizer step of ``accumulation`` micro-batches, without running anything.

    Args:
        trace: of one micro-batch.
        accumulation: micro-batches in a step.
        device: its measured rates.
        precision: that the model computes in; names the rate where the device has it, else fp32 is taken.
    """
    kind = device.kind
    micro_s = phase_seconds(trace, "forward", device) + phase_seconds(trace, "backward", device)
    bandwidth = device.bytes_per_second.value
    adding_s = 3 * trace.gradient_bytes / bandwidth * (accumulation - 1)
    # clipping reads gradients twice and writes them once; a fused step reads weight and gradient and writes the weight,
    # and reads and writes each state
    passes_bytes = 6 * trace.gradient_bytes + 2 * trace.optimizer_bytes
    optimizer_s = passes_bytes / bandwidth + trace.parameter_tensors * _SECONDS_PER_PARAMETER_TENSOR[kind]
    value = micro_s * accumulation + adding_s + optimizer_s
    took = precision if precision in device.flops_per_second else "fp32"
    basis = "shares of those rates measured per kind on another CPU" if kind == "cpu" else "shares assumed for GPUs"
    return Interval(
        low=value * _LOW[kind],
        value=value,
        high=value * _HIGH[kind],
        method=f"{len(trace.ops)} traced operators, each by arithmetic or traffic at this device's measured {took} and "
        f"memory rates, {basis}; no step was timed",
    )


def phase_seconds(trace: Trace, phase: Literal["forward", "backward"], device: Device) -> float:
    """Predict the seconds of the forward or the backward pass of one micro-batch."""
    ops = (_op_seconds(op, trace.memory_format, device) for op in trace.ops if op.phase == phase)
    return sum(ops) * _STEP_OVER_OPS[device.kind]


def _op_seconds(op: Op, memory_format: str, device: Device) -> float:
    precision = {"bfloat16": "bf16", "float16": "fp16"}.get(op.dtype, "fp32")
    efficiency = _efficiency(op.kind, precision, device)
    gain = _CHANNELS_LAST_GAIN.get(op.kind, 1.0) if memory_format == "channels_last" and device.kind == "cpu" else 1.0
    share = (efficiency.forward if op.phase == "forward" else efficiency.backward) * gain
    named = "fp32" if op.kind == "attention" and device.kind == "cpu" else precision
    rate = device.flops_per_second.get(named) or device.flops_per_second["fp32"]
    moved = op.bytes_read + op.bytes_written
    traffic_s = moved / (device.bytes_per_second.value * efficiency.traffic * (1.0 if op.flops else gain))
    busy_s = max(op.flops / (rate.value * share), traffic_s)
    if device.kind == "cuda":
        return max(busy_s, _SECONDS_PER_OP["cuda"])
    in_place = op.name.endswith("_")
    fresh_s = op.bytes_written / _FRESH_BYTES_PER_SECOND if op.bytes_written >= _FRESH_BYTES and not in_place else 0.0
    return busy_s + fresh_s + _SECONDS_PER_OP["cpu"]


def _efficiency(kind: str, precision: str, device: Device) -> Efficiency:
    if device.kind == "cuda":
        return _CUDA.get(kind, _CUDA["other"])
    found = _CPU.get(kind, _CPU["other"])["bf16" if precision != "fp32" else "fp32"]
    if kind == "convolution" and precision == "bf16" and "amx_bf16" in device.isa:
        return Efficiency(found.forward * _AMX_CONVOLUTION, found.backward * _AMX_CONVOLUTION, found.traffic)
    return found
