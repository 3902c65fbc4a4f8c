"""Seconds of a kernel on a device: arithmetic against traffic, at efficiencies that a calibration gives.

Units: ``_s`` seconds, ``flops`` operations (a multiply-add counts two), ``bytes`` moved to or from device memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thrifty.cost.calibrations import Calibration
from thrifty.errors import JobError
from thrifty.spec import Device, arithmetic_of

Kind = Literal["matmul", "attention", "other"]
KINDS: tuple[Kind, ...] = ("matmul", "attention", "other")

# A matrix product is cut into tiles of 256 x 128, whichever way round wastes less, that the multiprocessors compute in
# waves: of the 183 products on an A100 of simumax_op_efficiency.csv the median is off by 2.5 %, the ninth decile by 9 %
# (with tiles of 128 x 128 by 2.7 and 11 %); of the 514 on a B200 by 6 and 25 %, whatever the tile.
# Smaller tiles fill more multiprocessors and read more for each element: the last figure, its price, is assumed.
TILES = ((256.0, 128.0, 1.0), (128.0, 256.0, 1.0), (128.0, 64.0, 1.2), (64.0, 64.0, 1.5))
# Roofline corners are round: the two times are joined by the norm of this order instead of their maximum.
SHARPNESS = 4.0
# Of a GPU's products in fp32, which no tensor core computes: they need no sides of eight, and reach half their rate at
# this inner length. Of the 110 timed on an H200 (operators-nvidia-h200-2026-11-26.json.gz of benchmarks/reports) the
# median is off by 13 %, with 128 by 32 %.
FP32_INNER_HALF = 32.0
# No kernel of a training step ends sooner after it starts; see the launch-bound rows of the vTrain table.
SHORTEST_S = 3e-6


class Kernel(NamedTuple):
    """One kernel, or several equal ones.

    Attributes:
        segment: an index that its times are summed under.
        kind: of its efficiency.
        flops, bytes: of one.
        batch, m, n, k: of a matrix product ``batch x [m, k] @ [k, n]``; 0 for all other kinds.
        times: that it runs.
        precision: of its arithmetic.
    """

    segment: int
    kind: Kind
    flops: float
    bytes: float
    batch: float = 0
    m: float = 0
    n: float = 0
    k: float = 0
    times: float = 1
    precision: str = ""


@dataclass(frozen=True)
class Rates:
    """What a device does at full efficiency under one calibration: the few numbers that price a kernel.

    Attributes:
        flops_per_second: reached by large matrix products of the layout's precision.
        wide_flops_per_second: by those that fp8 leaves in 16 bits.
        attention_flops_per_second: by fused attention.
        bytes_per_second: by kernels that only move data.
        processors: multiprocessors, over which tiles are spread.
        inner_half: inner length at which half of a product's rate is reached.
        wave_loss, unaligned, grouped: as of a `Calibration`.
        launch_s, blocking: likewise.
    """

    flops_per_second: float
    wide_flops_per_second: float
    attention_flops_per_second: float
    bytes_per_second: float
    processors: int
    inner_half: float
    wave_loss: float
    unaligned: float
    grouped: float
    launch_s: float
    blocking: float


class Kernels:
    """Kernels as columns, so that all are priced at once. Equal only to itself, hence usable as a cache's key."""

    def __init__(self, kernels: Sequence[Kernel], segments: int) -> None:
        column = [np.array(values, dtype=float) for values in zip(*(k[2:9] for k in kernels), strict=True)]
        self.flops, self.bytes, self.batch, self.m, self.n, self.k, self.times = column
        self.kind = np.array([KINDS.index(k.kind) for k in kernels])
        self.segment = np.array([k.segment for k in kernels])
        self.wide = np.array([k.precision == "wide" for k in kernels])
        self.unaligned = (self.n % 8 > 0) | (self.k % 8 > 0)
        self.grouped = (self.batch > 1) & ~self.wide
        self.segments = segments
        self.launches = np.bincount(self.segment, self.times, segments)
        self.segment_flops = np.bincount(self.segment, self.flops * self.times, segments)


def rates_of(device: Device, calibration: Calibration, precision: str) -> Rates:
    """Return the rates of a device at a layout's precision.

    Raises:
        JobError: the device has no arithmetic of that precision.
    """
    arithmetic = arithmetic_of(precision)
    peaks = device.flops_per_second
    peak = peaks.get(arithmetic) or (
        peaks.get("bf16" if arithmetic == "fp16" else "fp16") if arithmetic in _HALF else None
    )
    if peak is None or not peak.value:
        raise JobError(f"{device.name} has no {precision} arithmetic", mend=f"It has: {', '.join(sorted(peaks))}.")
    half = peaks.get("bf16") or peaks.get("fp16") or peak
    half_value = max(half.value, peaks["fp16"].value) if "fp16" in peaks else half.value
    if arithmetic != "fp8":
        half_value = peak.value
    plain = arithmetic == "fp32" and device.kind == "cuda"
    large = {"fp8": calibration.matmul_fp8, "fp32": calibration.matmul_fp32}.get(arithmetic, calibration.matmul)
    return Rates(
        flops_per_second=peak.value * large,
        wide_flops_per_second=half_value * (large if arithmetic == "fp32" else calibration.matmul),
        attention_flops_per_second=half_value * calibration.attention,
        bytes_per_second=device.bytes_per_second.value * calibration.memory,
        processors=max(1, device.cores),
        inner_half=min(calibration.inner_half, FP32_INNER_HALF) if plain else calibration.inner_half,
        wave_loss=calibration.wave_loss,
        unaligned=1.0 if plain else calibration.unaligned,
        grouped=calibration.grouped,
        launch_s=calibration.launch_s,
        blocking=calibration.blocking,
    )


_HALF = ("bf16", "fp16")


def kernel_seconds(kernels: Kernels, rates: Rates) -> NDArray[np.float64]:
    """Return seconds on the device of each kernel (as often as it runs), without the host's part.

    A matrix product takes ``2 x batch x m x n x (k + inner_half)`` operations, its sides ``m`` and ``n`` rounded up to
    tiles, in waves of one tile a multiprocessor; any other kernel takes its FLOPs. Joined with its traffic over the
    bandwidth by ``(a^4 + b^4)^(1/4)``, at least `SHORTEST_S`.
    """
    area = np.min([_waves(kernels, rates.processors, rates.wave_loss, *tile) for tile in TILES], axis=0)
    padded = 2 * area * rates.processors * (kernels.k + rates.inner_half)
    rate = np.where(kernels.wide, rates.wide_flops_per_second, rates.flops_per_second)
    rate = rate / np.where(kernels.unaligned, rates.unaligned, 1.0)
    rate = np.where(kernels.grouped, rate * rates.grouped, rate)
    arithmetic = np.where(
        kernels.kind == 0,
        padded / rate,
        kernels.flops / np.where(kernels.kind == 1, rates.attention_flops_per_second, rate),
    )
    traffic = kernels.bytes / rates.bytes_per_second
    joined = (arithmetic**SHARPNESS + traffic**SHARPNESS) ** (1 / SHARPNESS)
    result: NDArray[np.float64] = np.maximum(joined, SHORTEST_S) * kernels.times
    return result


def _waves(
    kernels: Kernels, processors: int, lost: float, most_m: float, most_n: float, price: float
) -> NDArray[np.float64]:
    """Waves that a product takes times the elements of a tile; a side shorter than its tile is cut to 32s."""
    tile_m = np.where(kernels.m < most_m, np.maximum(32, np.ceil(kernels.m / 32) * 32), most_m)
    tile_n = np.where(kernels.n < most_n, np.maximum(32, np.ceil(kernels.n / 32) * 32), most_n)
    waves = kernels.batch * np.ceil(kernels.m / tile_m) * np.ceil(kernels.n / tile_n) / processors
    result: NDArray[np.float64] = (lost * np.ceil(waves) + (1 - lost) * np.maximum(waves, 1)) * tile_m * tile_n * price
    return result


@lru_cache(maxsize=16_384)
def segment_seconds(kernels: Kernels, rates: Rates) -> NDArray[np.float64]:
    """Return seconds by segment (rows) and, in columns, of matrix products, attention, other kernels, and waiting.

    The last is what the host adds where it cannot launch kernels as fast as the device ends them: it is ``launch_s`` a
    kernel, joined with the device's own time by the same norm, or added to it where every launch is waited for.
    """
    seconds = kernel_seconds(kernels, rates)
    table = np.zeros((kernels.segments, 4))
    for kind in range(3):
        table[:, kind] = np.bincount(kernels.segment, np.where(kernels.kind == kind, seconds, 0.0), kernels.segments)
    device = table.sum(axis=1)
    host = kernels.launches * rates.launch_s
    hidden = (device**SHARPNESS + host**SHARPNESS) ** (1 / SHARPNESS) - device
    table[:, 3] = rates.blocking * host + (1 - rates.blocking) * hidden
    return table
