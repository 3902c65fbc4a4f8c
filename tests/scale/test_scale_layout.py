"""The small runs: they keep every limit, are as large as it allows, and what is too small is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrifty.errors import BudgetError, DataError
from thrifty.scale.layout import LENGTHS, SIZES, Layout, lay_out, total, within
from thrifty.spec.scaling import Quantity, Size

UNIT, BATCH = 64, 8
FAMILY = [
    Size(
        model=f"gpt-nano@2x{width}x2",
        layers=2,
        width=width,
        parameters=24 * width**2,
        whole=24 * width**2,
        flops=6.0 * 24 * width**2 * UNIT,
    )
    for width in (32, 48, 64, 96, 128, 176, 256, 368, 512)
]


def price(size: Size, steps: int) -> dict[Quantity, float]:
    flops = size.flops * steps * BATCH
    return {"flops": flops, "seconds": 5.0 + flops / 5e10, "joules": 0.0, "usd": 0.0}


def lay(limits: dict[Quantity, float], samples: int = 16_000, aim: float = 1e14) -> Layout:
    return lay_out(FAMILY, price, limits, batch=BATCH, samples=samples, unit=UNIT, aim=lambda size: aim)


@given(st.floats(200, 20_000), st.integers(512, 100_000), st.floats(1e12, 1e18))
def test_what_is_laid_out_keeps_its_limits(seconds: float, samples: int, aim: float) -> None:
    layout = lay({"seconds": seconds}, samples, aim)
    assert within(total(layout.sizes, layout.steps, price), {"seconds": seconds})
    assert layout.foreseen == pytest.approx(total(layout.sizes, layout.steps, price))
    assert (len(layout.sizes), len(layout.steps)) == (SIZES, LENGTHS)
    assert layout.steps[-1] * BATCH <= 4 * samples


def test_more_may_be_spent_and_larger_ones_run() -> None:
    small, large = lay({"seconds": 300}), lay({"seconds": 6_000})
    assert large.sizes[-1].parameters * large.steps[-1] > 2 * small.sizes[-1].parameters * small.steps[-1]


def test_every_limit_counts() -> None:
    layout = lay({"seconds": 6_000, "flops": 1e12})
    assert layout.foreseen["flops"] <= 1e12


def test_less_than_the_small_runs_take_is_told_with_what_one_takes() -> None:
    with pytest.raises(
        BudgetError, match=r"4\.0 s is too little for the small runs: one of the smallest .* takes about 5"
    ):
        lay({"seconds": 4})


def test_too_little_data_is_told_with_a_batch_that_would_do() -> None:
    with pytest.raises(DataError, match=r"100 samples are too few .* Set train\.batch to 1 or less"):
        lay({"seconds": 1e6}, samples=100)
