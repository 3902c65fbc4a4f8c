"""Images that grow: sides go by the step alone, cost what the mean says, and the last are whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_folders import image_store
from hypothesis import given
from hypothesis import strategies as st

from thrifty.data import Batches
from thrifty.data.images.growth import Growth, shrunk


@given(side=st.integers(9, 300), begin=st.floats(0.25, 0.99), steps=st.integers(1, 3000))
def test_sides_rise_to_the_whole(side: int, begin: float, steps: int) -> None:
    growth = Growth(side, begin, steps)
    sides = [growth.at(step) for step in range(steps)]
    assert sides == sorted(sides) and sides[0] >= 1 and growth.at(steps) == side
    assert all(each % 4 == 0 or each == side for each in sides)
    assert set(sides[-(steps // 5) :]) <= {side} or steps < 5
    mean = sum(each**2 for each in sides) / steps / side**2
    assert growth.area_share == pytest.approx(mean, abs=0.02)
    assert sides[0] <= growth.mean_side <= side


def test_a_step_has_the_side_of_its_number(tmp_path: Path) -> None:
    store = image_store(tmp_path, 12)
    batches = Batches(store, batch=4, micro=2, seed=0, side_at=lambda step: 1 if step < 2 else 2)
    whole = Batches(store, batch=4, micro=2, seed=0)
    for step in (3, 1, 2, 0):
        parts = batches.step(step)
        assert {part["x"].shape[2:] for part in parts} == {(1, 1) if step < 2 else (2, 2)}
        # these images are flat: small ones have the same values, and the order is as it would have been
        for part, other in zip(parts, whole.step(step), strict=True):
            assert np.array_equal(part["y"], other["y"])
            assert np.array_equal(part["x"][:, :, 0, 0], other["x"][:, :, 0, 0])


def test_images_are_averaged_by_area() -> None:
    images = np.arange(2 * 4 * 4 * 1, dtype=np.uint8).reshape(2, 4, 4, 1)
    small = shrunk(images, 2)
    wanted = images.reshape(2, 2, 2, 2, 2, 1).astype(float).mean((2, 4))
    assert small.shape == (2, 2, 2, 1) and np.abs(small - wanted).max() <= 0.5
    assert shrunk(images, 4) is images
