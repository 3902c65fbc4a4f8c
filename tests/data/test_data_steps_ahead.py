"""Steps made ahead: the same batches in the same order, whatever is asked for; errors come where they belong."""

from __future__ import annotations

import threading
import time
import traceback
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from data_folders import image_store
from hypothesis import given, settings
from hypothesis import strategies as st

from thrifty.data import Ahead, Batch, Batches, Store
from thrifty.spec import Augment

CHANGED = Augment(flip=True, crop=2, mixup=0.2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    images(folder)
    return folder


@cache
def images(folder: Path) -> Store:
    return image_store(folder, 23)


def made(folder: Path) -> Batches:
    return Batches(
        images(folder), batch=6, micro=4, seed=3, augment=CHANGED, side_at=lambda step: (1, 2)[step // 5 % 2]
    )


def following(step: int) -> int | None:
    return step + 1 if step < 40 else None


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("thrifty-batches")]


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        mine.keys() == its.keys() and all(np.array_equal(mine[name], its[name]) for name in mine)
        for mine, its in zip(one, other, strict=True)
    )


# threads take turns as they come
@settings(deadline=None, max_examples=15)
@given(
    ahead=st.integers(0, 3),
    asked=st.lists(
        st.tuples(st.integers(0, 39), st.integers(1, 4), st.sampled_from([2, 4, 6])), min_size=1, max_size=3
    ),
)
def test_steps_are_what_they_are_without(folder: Path, ahead: int, asked: list[tuple[int, int, int]]) -> None:
    """Runs of steps from anywhere, cut anew between them as where memory is short."""
    alone = made(folder)
    with Ahead(made(folder), ahead, following) as batches:
        for first, count, micro in asked:
            alone.micro = batches.micro = micro
            for step in range(first, first + count):
                assert same(batches.step(step), alone.step(step))
    assert not threads()


class Slow:
    """Stands for batches that take a while, and note when they were made."""

    micro = 1

    def __init__(self, seconds: float = 0.0, *, fails_at: int | None = None) -> None:
        self.seconds, self.fails_at = seconds, fails_at
        self.steps: list[int] = []

    def step(self, index: int) -> list[Batch]:
        if index == self.fails_at:
            raise ValueError(f"step {index} is broken")
        time.sleep(self.seconds)
        self.steps.append(index)
        return [{"x": np.full(1, index)}]


def ahead(batches: Slow, steps: int) -> Ahead:
    return Ahead(batches, steps, following)  # type: ignore[arg-type]


def wait_for(batches: Slow, count: int) -> None:
    deadline = time.monotonic() + 10
    while len(batches.steps) < count and time.monotonic() < deadline:
        time.sleep(0.001)


def test_no_more_are_made_than_wait() -> None:
    slow = Slow()
    with ahead(slow, 2) as batches:
        batches.step(0)
        wait_for(slow, 3)
        time.sleep(0.01)
        assert slow.steps == [0, 1, 2]
        batches.step(1)
        wait_for(slow, 4)
    assert slow.steps == [0, 1, 2, 3]


def test_nothing_is_made_after_the_last() -> None:
    slow = Slow()
    with ahead(slow, 2) as batches:
        for step in range(38, 41):
            batches.step(step)
    assert slow.steps == [38, 39, 40]


def test_a_step_that_was_made_meanwhile_is_not_waited_for() -> None:
    slow = Slow(0.05)
    with ahead(slow, 1) as batches:
        batches.step(0)
        wait_for(slow, 2)
        asked_at = time.perf_counter()
        batches.step(1)
        assert time.perf_counter() - asked_at < 0.04


def test_an_error_comes_with_its_trace_where_its_step_is_asked_for() -> None:
    slow = Slow(fails_at=2)
    with ahead(slow, 2) as batches:
        batches.step(0)
        batches.step(1)
        with pytest.raises(ValueError, match="step 2 is broken") as caught:
            batches.step(2)
        frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        # the frame that failed, of the other thread
        assert frames[-1] == "step" and "run" in frames
    assert not threads()


def test_the_end_waits_for_the_one_being_made_alone() -> None:
    slow = Slow(0.05)
    with pytest.raises(KeyboardInterrupt), ahead(slow, 2) as batches:
        batches.step(0)
        raise KeyboardInterrupt
    assert len(slow.steps) <= 2 and not threads()
