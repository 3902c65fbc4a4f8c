"""Curves through timed operators: exact at a point, sensible between, doubtful beyond, and for strangers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrifty.cost.curves import BORROWED_DOUBT, UNKNOWN_DOUBT, Curves
from thrifty.cost.features import place
from thrifty.hardware.overheads import FLUSH
from thrifty.spec.device import KernelPoint


def timed(
    name: str, shapes: str, moved: int, warm_s: float, dtype: str = "float32", layouts: str = "cc>c"
) -> KernelPoint:
    return KernelPoint(
        name=name, dtype=dtype, shapes=shapes, layouts=layouts, tensors=2, moved_bytes=moved,
        warm_s=warm_s, cold_s=warm_s, spread=0.02,
    )  # fmt: skip


def seconds(count: float) -> float:
    """Of a sum of two tensors: 2 µs, and 24 bytes/ns up to where caches end, a third of that beyond."""
    return 2e-6 + 12 * count / 24e9 * (1 if count < 1 << 18 else 3)


def sums(name: str = "add", dtype: str = "float32") -> list[KernelPoint]:
    return [
        timed(name, f"{n},{n}->{n}", 12 * n, seconds(n), dtype) for n in (1 << 8, 1 << 12, 1 << 15, 1 << 17, 1 << 20)
    ]


def test_a_timed_operator_takes_what_it_took() -> None:
    curves = Curves(sums())
    for point in sums():
        found = curves.estimate(point, "float32")
        assert found is not None
        assert found.warm_s == pytest.approx(point.warm_s, rel=0.1)


@given(st.integers(9, 19))
def test_between_points_it_lies_between(power: int) -> None:
    n = 1 << power
    found = Curves(sums()).estimate(timed("add", f"{n},{n}->{n}", 12 * n, 1.0), "float32")
    assert found is not None
    assert 0.4 * seconds(n) < found.warm_s < 2.5 * seconds(n)
    assert 0 < found.doubt < 1


def test_beyond_the_points_work_counts_on_and_doubt_grows() -> None:
    curves = Curves(sums())
    inside, outside = (
        curves.estimate(timed("add", f"{n},{n}->{n}", 12 * n, 1.0), "float32") for n in (1 << 20, 1 << 26)
    )
    assert inside is not None and outside is not None
    assert outside.warm_s == pytest.approx(64 * inside.warm_s, rel=0.3)
    assert outside.doubt > inside.doubt


def test_another_precision_or_name_is_lent_with_its_doubt() -> None:
    curves = Curves(sums())
    half = curves.estimate(sums(dtype="bfloat16")[2], "bfloat16")
    in_place = curves.estimate(sums("add_")[2], "float32")
    stranger = curves.estimate(sums("some_new_thing")[2], "float32")
    assert half is not None and in_place is not None and stranger is not None
    assert half.doubt >= BORROWED_DOUBT
    assert in_place.doubt >= BORROWED_DOUBT
    assert stranger.doubt == UNKNOWN_DOUBT
    assert stranger.warm_s == pytest.approx(sums()[2].warm_s, rel=0.5)


def test_nothing_timed_says_nothing() -> None:
    assert Curves([]).estimate(sums()[0], "float32") is None


def test_what_emptying_the_caches_costs_anything_is_taken_off() -> None:
    flush = timed(FLUSH, "", 0, 3e-5, dtype="", layouts="")
    cold = [point.model_copy(update={"cold_s": point.warm_s + 3e-5}) for point in sums()]
    found = Curves([flush, *cold]).estimate(cold[1], "float32")
    assert found is not None
    assert found.cold_s == pytest.approx(found.warm_s, rel=0.01)


@pytest.mark.parametrize(
    ("name", "shapes", "layouts", "group", "work"),
    [
        ("addmm", "8,4x2,2x8->4x8", "cct>c", "product", 2 * 4 * 2 * 8),
        ("bmm", "3x4x2,3x2x8->3x4x8", "ct>c", "products", 2 * 3 * 4 * 2 * 8),
        ("mv", "4x2,2->4", "cc>c", "product", 2 * 4 * 2),
        ("convolution", "2x3x8x8,4x3x3x3->2x4x8x8", "cc>c", "convolution", 2 * 2 * 64 * 4 * 27),
        ("convolution_backward", "2x4x8x8,2x3x8x8,4x3x3x3->2x3x8x8,4x3x3x3", "ccc>cc", "convolution_backward",
         2 * 2 * 2 * 64 * 4 * 27),
        ("_softmax", "4x8->4x8", "c>c", "_softmax", 32),
        ("sum", "4x8->1x8", "c>c", "sum", 32),
        ("embedding", "100x8,4->4x8", "cc>c", "embedding", 32),
        ("gelu", "4x8->4x8", "c>c approximate=tanh", "gelu approximate=tanh", 32),
        ("anything", "", "", "anything", 7),
    ],
)  # fmt: skip
def test_operators_are_placed_among_their_like(name: str, shapes: str, layouts: str, group: str, work: float) -> None:
    found = place(timed(name, shapes, 7, 1.0, layouts=layouts))
    assert (found.group, found.work) == (group, work)
    assert all(math.isfinite(each) for each in found.at)


def test_turned_factors_and_memory_order_stand_apart() -> None:
    straight, turned = (place(timed("mm", "4x2,2x8->4x8", 7, 1.0, layouts=layouts)) for layouts in ("cc>c", "ct>c"))
    assert straight.at != turned.at
    sideways = place(timed("clone", "4x8->4x8", 7, 1.0, layouts="t>c"))
    assert sideways.at != place(timed("clone", "4x8->4x8", 7, 1.0, layouts="c>c")).at
