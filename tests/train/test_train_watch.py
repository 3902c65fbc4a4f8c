"""The watch: what more samples will need is foreseen, and what would pass the limit is broken off before it does."""

from __future__ import annotations

import mmap

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from thrifty.hardware.pages import trim
from thrifty.train.watch import SLACK_BYTES, Need, NoRoom, Watch, can_watch

MIB = 1 << 20
pytestmark = pytest.mark.skipif(not can_watch(), reason="Linux alone tells what is resident")


@given(st.integers(0, 1000), st.integers(0, 1000), st.lists(st.integers(1, 100), min_size=2, unique=True))
def test_a_need_that_is_a_line_is_foreseen_exactly(fixed: int, slope: int, sizes: list[int]) -> None:
    need = Need(fixed=fixed)
    for size in sorted(sizes):
        need.note(size, fixed + slope * size)
        for other in range(size, 200, 37):
            assert need.at(other) == pytest.approx(fixed + slope * other)


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0, 1e6)), min_size=1))
def test_a_need_is_never_less_for_more_samples_nor_below_what_was_seen(seen: list[tuple[int, float]]) -> None:
    need = Need()
    for size, needed in seen:
        need.note(size, needed)
    most = max(size for size, _ in seen)
    values = [need.at(size) for size in range(1, 100)]
    assert values == sorted(values) and values[0] >= 0
    last = [needed for size, needed in seen if size == most]
    assert need.at(most) >= max(last)


def test_nothing_is_foreseen_before_anything_was_seen() -> None:
    assert Need(fixed=5.0).at(10) == 0.0


class Hoard(nn.Module):
    """Keeps as many bytes as it is given numbers, layer by layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Identity(), nn.Identity()
        self.kept: list[mmap.mmap] = []

    def forward(self, x: Tensor) -> Tensor:
        self.kept = []
        for layer in (self.first, self.second):
            block = mmap.mmap(-1, x.numel())
            block[:: mmap.PAGESIZE] = b"x" * len(range(0, x.numel(), mmap.PAGESIZE))
            self.kept.append(block)
            x = layer(x)
        return x

    def free(self) -> None:
        for block in self.kept:
            block.close()
        self.kept = []


def numbers(size: int) -> Tensor:
    """A tensor of so many numbers that takes the memory of one."""
    return torch.zeros(1).expand(size)


@pytest.mark.slow
@pytest.mark.own_process
def test_what_was_seen_of_less_stops_what_is_too_much_before_it_begins() -> None:
    model = Hoard()
    watch = Watch(lambda resident: 0.0, 0.0)
    start = watch.resident()
    watch.off()
    limit = start + 60 * MIB
    watch = Watch(lambda resident: limit, 0.0)
    watch.on(model, [])
    with watch.closely():
        for size in (4 * MIB, 8 * MIB):
            watch.settle()
            model(numbers(size))
            watch.ended()
            model.free()
    watch.relax()
    watch.settle()
    assert watch.fits(16 * MIB, training=True) and not watch.fits(32 * MIB, training=True)
    assert watch.foreseen(16 * MIB, training=True) - watch.base == pytest.approx(32 * MIB, rel=0.2)
    with pytest.raises(NoRoom, match=r"MiB are resident and .* more would be, of"):
        model(numbers(32 * MIB))
    assert not model.kept, "not begun"
    with torch.no_grad():
        assert watch.fits(32 * MIB, training=False), "of validation nothing was seen"
    watch.off()
    model(numbers(32 * MIB))
    model.free()


@pytest.mark.slow
@pytest.mark.own_process
def test_what_nobody_foresaw_is_stopped_between_layers() -> None:
    model = Hoard()
    trim()
    watch = Watch(lambda resident: resident + 10 * MIB + SLACK_BYTES, 0.0)
    watch.on(model, [])
    watch._ask = lambda resident: watch.limit
    with watch.closely(), pytest.raises(NoRoom):
        model(numbers(64 * MIB))
    assert len(model.kept) == 1, "the second layer was not begun"
    model.free()
    watch.off()


def test_no_layer_is_asked_about_while_the_limit_is_far() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    watch = Watch(lambda resident: 10 * resident, 0.0)
    watch.on(model, model.parameters())
    near = []
    for ask in (lambda resident: 10 * resident, lambda resident: 1.2 * resident):
        watch._ask = ask
        model(torch.ones(1, 2)).sum().backward()
        near.append(watch.near)
    assert near == [False, True]
    watch.off()
