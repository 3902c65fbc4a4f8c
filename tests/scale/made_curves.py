"""Losses of a known law with known noise, as small runs would give them."""

from __future__ import annotations

import numpy as np

from thrifty.scale import Point
from thrifty.spec.scaling import Law

SIZES = (25_000, 60_000, 145_000, 350_000)
DATA = (250_000, 500_000, 1_000_000)
# about what small GPTs of characters do
LAW = Law(floor=1.2, size_factor=40.0, size_power=0.42, data_factor=300.0, data_power=0.48)


def points(law: Law = LAW, noise: float = 0.004, seed: int = 0, unique: float = np.inf) -> list[Point]:
    """Runs of every size on every amount of data; ``noise`` is of the logarithm."""
    drawn = np.random.default_rng(seed)
    return [
        Point(size, data, law.loss(size, data, unique) * float(np.exp(noise * drawn.standard_normal())))
        for size in SIZES
        for data in DATA
    ]
