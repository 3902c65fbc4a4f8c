"""Shares of a device's two rates that operators reach in the micro-benchmarks: the source of `cost/rates.py`.

python -m benchmarks.rate_shares
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from thrifty import hardware
from thrifty.cost.features import place
from thrifty.cost.ops import KIND_OF
from thrifty.spec import Device

REDUCTIONS = ("sum", "mean", "amax", "max", "all", "any", "linalg_vector_norm")
PRECISIONS = {"float32": "fp32", "bfloat16": "bf16"}
# shorter operators, and those that move less, are mostly dispatch
LEAST_S, LEAST_BYTES = 2e-4, 4 << 20


def shares(device: Device) -> dict[tuple[str, str], list[float]]:
    """Shares by kind and precision; ``traffic`` for kinds that their memory bounds."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for point in (each for each in device.kernels if each.shapes and each.dtype in PRECISIONS):
        kind = KIND_OF.get(point.name) or ("reduction" if point.name in REDUCTIONS else "pointwise")
        precision = PRECISIONS[point.dtype]
        if kind in {"matmul", "convolution", "attention"}:
            if point.warm_s > LEAST_S:
                rate = device.flops_per_second[precision].value
                found[kind, precision].append(place(point).work / point.warm_s / rate)
        elif point.moved_bytes > LEAST_BYTES:
            found[kind, "traffic"].append(point.moved_bytes / point.cold_s / device.bytes_per_second.value)
    return found


if __name__ == "__main__":
    for (kind, which), values in sorted(shares(hardware.here(kind="cpu")).items()):
        low, middle, high = np.quantile(values, (0.1, 0.5, 0.9))
        print(f"{kind} {which}: {middle:.2f} ({low:.2f} to {high:.2f}, {len(values)} points)")
