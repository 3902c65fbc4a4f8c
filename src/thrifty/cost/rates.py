"""Price an operator by a device's two rates alone: products at its arithmetic, all else at its memory's pace.

For devices whose operators were never timed one by one. Rates are FLOP/s and bytes/s.
"""

from __future__ import annotations

from thrifty.cost.recorder import Op
from thrifty.spec import Device

# Share of the matrix-product rate by kind and precision, and of the memory bandwidth: medians over the micro-benchmarks
# of `thrifty.hardware.kernels` on 2 cores of an AMD EPYC (Zen 4, torch 2.13.0), by `benchmarks/rate_shares.py`; tenth
# and ninetieth percentiles beside. Attention's bf16 kernel for CPUs gains nothing from that precision.
_ARITHMETIC = {
    ("matmul", "fp32"): 0.76,  # 0.52 to 0.93
    ("matmul", "bf16"): 0.80,  # 0.55 to 0.94
    ("convolution", "fp32"): 0.84,  # 0.45 to 1.0
    ("convolution", "bf16"): 0.69,  # 0.20 to 0.95
    ("attention", "fp32"): 0.38,  # 0.20 to 0.65
    ("attention", "bf16"): 0.15,  # 0.05 to 0.33
}
_TRAFFIC = {
    "batch_norm": 0.48, "copy": 0.75, "gather": 0.50, "layer_norm": 0.45, "pointwise": 0.97, "pool": 0.60,
    "random": 0.03, "reduction": 0.60, "softmax": 0.85,
}  # fmt: skip
_OTHER_TRAFFIC = 0.5
# On a GPU in eager mode: assumed, not measured here. Large products reach 60 to 80 % of the datasheet, and published
# tuned training 35 to 55 % over all; a bandwidth-bound kernel about 80 % of a copy's.
_GPU_ARITHMETIC = {"matmul": 0.75, "convolution": 0.47, "attention": 0.45}
_GPU_TRAFFIC = 0.7
# Convolutions reach less of AMX than of AVX-512: a CIFAR-shaped ResNet-18 in bf16 at 0.6 of the share above, on two
# cores of a Sapphire-Rapids class Xeon.
_AMX_CONVOLUTION = 0.6
# what channels-last gains over contiguous, measured as above: batch norm 0.74 to 2.7, pooling 2 to 60
_CHANNELS_LAST_GAIN = {"batch_norm": 1.3, "pool": 5.0}
# Seconds beside an operator's own work. CPU: dispatch, Python and autograd of small layers, as above. GPU: a launch
# from Python takes 5 to 10 µs and hides behind longer kernels.
_SECONDS_PER_OP = {"cpu": 12e-6, "other": 8e-6}
# Where a process does not keep all pages, glibc maps blocks from here on anew each time (M_MMAP_THRESHOLD's ceiling),
# and the kernel clears each page as it is first touched: 3.3 to 4 GB/s
_FRESH_BYTES = 32 << 20
_FRESH_BYTES_PER_SECOND = 3.5e9


def rate_seconds(op: Op, memory_format: str, device: Device) -> float:
    """Seconds of an operator: the larger of its arithmetic and its traffic, and what every operator costs.

    Args:
        op: of a trace.
        memory_format: of images.
        device: its rates; one that lacks the operator's precision takes that of fp32.
    """
    precision = {"bfloat16": "bf16", "float16": "fp16"}.get(op.dtype, "fp32")
    rate = device.flops_per_second.get(precision) or device.flops_per_second["fp32"]
    bandwidth = device.bytes_per_second.value
    moved = op.bytes_read + op.bytes_written
    if device.kind != "cpu":
        arithmetic_s = op.flops / (rate.value * _GPU_ARITHMETIC.get(op.kind, 1.0))
        return max(arithmetic_s, moved / (bandwidth * _GPU_TRAFFIC), _SECONDS_PER_OP["other"])
    share = _ARITHMETIC.get((op.kind, "fp32" if precision == "fp32" else "bf16"), 1.0)
    if op.kind == "convolution" and precision == "bf16" and "amx_bf16" in device.isa:
        share *= _AMX_CONVOLUTION
    gain = _CHANNELS_LAST_GAIN.get(op.kind, 1.0) if memory_format == "channels_last" else 1.0
    traffic_s = moved / (bandwidth * gain * (1.0 if op.flops else _TRAFFIC.get(op.kind, _OTHER_TRAFFIC)))
    return max(op.flops / (rate.value * share), traffic_s) + _SECONDS_PER_OP["cpu"]


def clearing_seconds(op: Op) -> float:
    """Seconds in which the kernel clears the pages of a large result, where a process does not keep those."""
    fresh = op.bytes_written >= _FRESH_BYTES and not op.name.endswith("_")
    return op.bytes_written / _FRESH_BYTES_PER_SECOND if fresh else 0.0
