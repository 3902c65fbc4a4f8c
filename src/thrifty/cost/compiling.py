"""What `torch.compile` costs before the first step, what it may save in each, and what loading a batch takes."""

from __future__ import annotations

import math

from thrifty.cost.recorder import Op
from thrifty.cost.time import times_of
from thrifty.cost.trace import Trace
from thrifty.spec import Device, Interval
from thrifty.spec.units import format_bytes

# First step of compiled small models on 2 cores of an AMD EPYC (Zen 4; torch 2.13.0, gcc 12, empty caches), forward
# and backward: two convolution blocks of 26 operators 14 s; Transformer blocks of 57, 210 and 298 operators 18 to 25,
# 27 and 30 s. On another CPU a BERT of six layers took 16 and 45 s, a ResNet-18 31 s: within these bounds.
# On a GPU, whose kernels Triton compiles in processes of their own: the blocks of GPT-2 of 124 M took an H200's host
# 11 s, in a process that had compiled before those of a GPT of 1.3 G 4.5 s (torch 2.11, 16 cores).
_START_S, _SECONDS_PER_OP = {"cpu": 15.0, "cuda": 7.0}, 0.055
_COMPILE_BOUNDS = {"cpu": (0.5, 1.8), "cuda": (0.4, 2.5)}
# Share of the time of what can be fused that fusing saves: a BERT in bf16 autocast with a third of its step in such
# operators became 17 % faster, a ResNet-18 with an eighth 6 %, a plain Transformer not at all (facts of two CPUs).
_FUSABLE = frozenset(["pointwise", "copy", "layer_norm", "batch_norm", "softmax", "reduction"])
# On a GPU, whose kernels each read and write memory, chains of five and more of them become one or two.
_SAVED = {"cpu": (0.0, 0.4, 0.7), "cuda": (0.3, 0.5, 0.7)}
# What the compiler and what it made leave in a process, beside its own processes that are gone then: 80 MiB resident
# after a GPT of four blocks, 96 at most, and 82 after an MLP (torch 2.13.0, 2 cores of an Intel Xeon).
_COMPILER_BYTES = (64 << 20, 82 << 20, 128 << 20)
# a batch is gathered from its store and copied into a tensor: read and written twice
_LOADING_PASSES = 4


def compile_seconds(trace: Trace, device_kind: str = "cpu", *, blocks: int = 1) -> Interval:
    """Predict the seconds that compiling a model takes before its first step, by the operators of both passes.

    Args:
        trace: of one micro-batch.
        device_kind: that code is made for.
        blocks: that share one compilation; 1 where the model is compiled whole.
    """
    count = math.ceil(sum(1 for op in trace.ops if _in_model(op)) / max(blocks, 1))
    kind = "cuda" if device_kind == "cuda" else "cpu"
    value = _START_S[kind] + _SECONDS_PER_OP * count
    low, high = _COMPILE_BOUNDS[kind]
    how = f"{_START_S[kind]:g} s and {_SECONDS_PER_OP * 1e3:g} ms for each of {count:,} operators, as small models took"
    return Interval(low=value * low, value=value, high=value * high, method=how)


def compile_gain(trace: Trace, device: Device) -> Interval:
    """Predict the seconds of a step that compiling saves; it may be none.

    Compiled code reads and writes chains of small operators once. Products, convolutions, attention and random numbers
    stay as they are.
    """
    fused = [each.seconds for each in times_of(device).price(trace) if _in_model(each.op) and each.op.kind in _FUSABLE]
    shares = _SAVED["cuda" if device.kind == "cuda" else "cpu"]
    low, value, high = (sum(fused) * share for share in shares)
    how = (
        f"{shares[1]:.0%} of the {sum(fused):.3g} s in operators that can be fused, {shares[0]:.0%} to {shares[2]:.0%}"
    )
    return Interval(low=low, value=value, high=high, method=how)


def with_compiler(peak: Interval) -> Interval:
    """Add to the resident memory of a process what a compiler takes in it."""
    low, value, high = _COMPILER_BYTES
    how = f"{peak.method}, and {format_bytes(value)} of the compiler"
    added = {"low": peak.low + low, "value": peak.value + value, "high": peak.high + high, "method": how}
    return peak.model_copy(update={**added, "first": peak.first + value if peak.first else 0.0})


def loading_seconds(trace: Trace, device: Device) -> float:
    """Seconds to bring one micro-batch from memory into tensors, where nothing else runs beside it."""
    return _LOADING_PASSES * trace.input_bytes / device.bytes_per_second.value


def _in_model(op: Op) -> bool:
    return op.phase not in {"clip", "optimizer"}
