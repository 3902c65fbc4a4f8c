"""Batches: every sample once an epoch, whatever the cut; any step directly; windows that go round."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from data_folders import image_store, token_store
from hypothesis import given
from hypothesis import strategies as st

from thrifty.data import Batches, Store, sweep

FEW = st.integers(1, 40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@cache
def images(folder: Path, count: int) -> Store:
    return image_store(folder, count)


@cache
def tokens(folder: Path, count: int, length: int) -> Store:
    return token_store(folder, count, length)


def predicted(batch: dict[str, np.ndarray]) -> list[int]:
    """The tokens to be predicted; each must be the one after its input, or the end token's first follower."""
    x, y = batch["x"], batch["y"]
    real = y != -100
    assert (y[real] == x[real] + 1).all()
    assert (x[~real] == 0).all()
    return [int(token) for token in y[real]]


@given(count=FEW, batch=FEW, micro=FEW, seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 5))
def test_every_image_once_an_epoch(folder: Path, count: int, batch: int, micro: int, seed: int, epoch: int) -> None:
    batches = Batches(images(folder, count), batch=batch, micro=micro, seed=seed)
    steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
    seen: list[int] = []
    for step in steps:
        parts = batches.step(step)
        sizes = [len(part["y"]) for part in parts]
        assert len(sizes) == -(-batches.samples(step) // micro)
        assert max(sizes) <= micro
        assert max(sizes) - min(sizes) <= 1
        labels = [int(label) for part in parts for label in part["y"]]
        assert len(labels) == batches.samples(step)
        assert len(labels) == batch or step == steps[-1]
        seen += labels
    assert sorted(seen) == list(range(count))


@given(count=FEW, batch=FEW, micro=FEW, other=FEW, seed=st.integers(0, 99), step=st.integers(0, 200))
def test_the_cut_into_micro_batches_changes_nothing(
    folder: Path, count: int, batch: int, micro: int, other: int, seed: int, step: int
) -> None:
    store = images(folder, count)
    one = Batches(store, batch=batch, micro=micro, seed=seed).step(step)
    two = Batches(store, batch=batch, micro=other, seed=seed).step(step)
    for name in ("x", "y"):
        assert np.array_equal(np.concatenate([b[name] for b in one]), np.concatenate([b[name] for b in two]))


@given(step=st.integers(0, 300), seed=st.integers(0, 99))
def test_any_step_can_be_had_directly(folder: Path, step: int, seed: int) -> None:
    store = tokens(folder, 100, 8)
    going = Batches(store, batch=4, micro=4, seed=seed)
    for index in range(max(0, step - 9), step):
        going.step(index)
    fresh = Batches(store, batch=4, micro=4, seed=seed)
    for one, two in zip(going.step(step), fresh.step(step), strict=True):
        assert np.array_equal(one["x"], two["x"])
        assert np.array_equal(one["y"], two["y"])


def test_the_order_follows_seed_and_epoch_alone(folder: Path) -> None:
    def order(seed: int, epoch: int, batch: int = 5) -> list[int]:
        batches = Batches(images(folder, 40), batch=batch, micro=5, seed=seed)
        steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
        return [int(label) for step in steps for part in batches.step(step) for label in part["y"]]

    assert order(0, 0) == order(0, 0, batch=13)
    assert len({tuple(order(*place)) for place in ((0, 0), (0, 1), (1, 0), (1, 1))}) == 4


def test_image_batches_are_normalised(folder: Path) -> None:
    (batch,) = Batches(images(folder, 40), batch=3, micro=3, seed=0).step(0)
    assert batch["x"].dtype == np.float32
    assert batch["x"].shape == (3, 1, 2, 2)
    assert batch["y"].dtype == np.int64
    assert np.allclose(batch["x"][:, 0, 0, 0], (batch["y"] / 255 - 0.5) / 0.25, atol=1e-6)


@given(
    count=st.integers(1, 120), length=st.integers(1, 20), batch=FEW, micro=FEW,
    seed=st.integers(0, 999), epoch=st.integers(0, 3),
)  # fmt: skip
def test_every_token_is_predicted_once_an_epoch(
    folder: Path, count: int, length: int, batch: int, micro: int, seed: int, epoch: int
) -> None:
    batches = Batches(tokens(folder, count, length), batch=batch, micro=micro, seed=seed)
    seen: list[int] = []
    for step in range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch):
        for part in batches.step(step):
            assert part["x"].shape == part["y"].shape == (len(part["x"]), length)
            assert part["x"].dtype == part["y"].dtype == np.int64
            seen += predicted(part)
    assert sorted(seen) == list(range(1, count + 1))


def test_windows_begin_elsewhere_in_each_epoch(folder: Path) -> None:
    batches = Batches(tokens(folder, 96, 8), batch=12, micro=12, seed=0)
    borders = {tuple(sorted(batches.step(epoch)[0]["x"][:, 0] % 8)) for epoch in range(10)}
    assert len(borders) > 3


@given(count=st.integers(1, 120), length=st.integers(1, 20), micro=FEW)
def test_a_sweep_meets_every_token_once_and_in_order(folder: Path, count: int, length: int, micro: int) -> None:
    found = list(sweep(tokens(folder, count, length), "validation", micro))
    assert all(len(batch["x"]) == micro for batch in found[:-1])
    assert [token for batch in found for token in predicted(batch)] == list(range(1, count + 1))


@given(count=FEW, micro=FEW)
def test_a_sweep_meets_every_image_once_and_in_order(folder: Path, count: int, micro: int) -> None:
    found = list(sweep(images(folder, count), "test", micro))
    assert np.concatenate([batch["y"] for batch in found]).tolist() == list(range(count))
