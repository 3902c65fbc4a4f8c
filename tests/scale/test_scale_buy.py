"""What a budget buys: the size that a known curve says, the data there is, and what is left open by noise."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from made_curves import LAW, points

from thrifty.errors import BudgetError
from thrifty.scale import fit
from thrifty.scale.buy import Bought, buy
from thrifty.spec.scaling import Carried, Curve, Purse, Size

UNIT, BATCH = 64, 8
SIZES = [
    Size(
        model=f"gpt-nano@2x{width}x2",
        layers=2,
        width=width,
        parameters=24 * width**2,
        whole=24 * width**2,
        flops=6.0 * 24 * width**2 * UNIT,
    )
    for width in (32, 48, 64, 96, 128, 176, 256, 368, 512, 736, 1024, 1472)
]
CARRIED = Carried(how="mup", rate=2e-3, width=32, power=0.0, init="mup", says="")


def bought(curve: Curve, flops: float, **more: object) -> Bought:
    asked = {"batch": BATCH, "unit": UNIT, "least_data": 250_000.0, "largest": 350_000} | more
    left = Purse(quantity="flops", amount=flops)
    return buy(SIZES, lambda size: {"flops": size.flops}, left, curve, CARRIED, **asked)  # type: ignore[arg-type]


def test_the_size_that_the_law_itself_would_buy_is_bought() -> None:
    flops = 2e14
    found = bought(fit(points(noise=0.0005), math.inf, draws=60), flops)
    best = min(SIZES, key=lambda size: LAW.loss(size.parameters, flops / size.flops * UNIT))
    assert abs(SIZES.index(found.offers[found.best].size) - SIZES.index(best)) <= 1
    assert found.parameters.low <= best.parameters <= found.parameters.high
    assert found.determined
    assert sum(offer.share for offer in found.offers) == pytest.approx(1)


@pytest.mark.slow
def test_every_offer_spends_the_budget_and_no_more() -> None:
    found = bought(fit(points(), math.inf, draws=20), 2e14)
    for offer in found.offers:
        assert 2e14 - 2 * offer.size.flops * BATCH <= offer.flops <= 2e14
        assert offer.data == offer.steps * BATCH * UNIT >= 250_000
        assert offer.loss.low <= offer.loss.value <= offer.loss.high


@pytest.mark.slow
def test_a_larger_budget_buys_a_larger_model() -> None:
    curve = fit(points(noise=0.001), math.inf, draws=40)
    small, large = bought(curve, 2e13), bought(curve, 2e15)
    assert large.offers[large.best].size.parameters > small.offers[small.best].size.parameters


@pytest.mark.slow
def test_data_that_end_before_the_budget_bound_what_is_bought() -> None:
    unique = 1e6
    found = bought(fit(points(unique=unique), unique, draws=40), 1e16)
    for offer in found.offers:
        assert offer.epochs <= 4
    assert found.offers[0].data_bound


@pytest.mark.slow
def test_noise_that_hides_the_size_leaves_it_open() -> None:
    curve = fit(points(noise=0.08, seed=3), math.inf, draws=80)
    found = bought(curve, 2e15)
    assert not found.determined
    assert found.parameters.high > 16 * found.parameters.low or curve.bounds


@pytest.mark.slow
def test_no_size_is_offered_that_is_far_beyond_what_ran() -> None:
    found = bought(fit(points(), math.inf, draws=20), 2e16, largest=1_000)
    assert max(offer.size.parameters for offer in found.offers) <= 1_000_000


def test_a_budget_that_buys_nothing_is_told() -> None:
    with pytest.raises(BudgetError, match=r"1\.0 GFLOP are left of the budget .* Raise --budget"):
        bought(fit(points(), math.inf, draws=20), 1e9)


@pytest.mark.slow
def test_sizes_that_do_not_fit_end_the_row() -> None:
    curve = fit(points(), math.inf, draws=20)
    left = Purse(quantity="seconds", amount=1000.0)

    def price(size: Size) -> dict[str, float] | None:
        return {"flops": size.flops, "seconds": size.flops / 5e10} if size.width < 100 else None

    found = buy(SIZES, price, left, curve, CARRIED, batch=BATCH, unit=UNIT, least_data=1e5, largest=350_000)  # type: ignore[arg-type]
    assert [offer.size.width for offer in found.offers] == [32, 48, 64, 96]
    assert found.offers[0].seconds <= 1000
