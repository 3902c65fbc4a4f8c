"""Rates: the best is found from any start, muP is trusted where two widths agree, else a power of the width is."""

from __future__ import annotations

import math

import pytest

from thrifty.errors import DivergedError
from thrifty.scale.rates import best_of, carry, compare
from thrifty.spec.scaling import Size

NARROW, WIDE = (
    Size(model=f"gpt-nano@2x{width}x2", layers=2, width=width, parameters=width**2, whole=width**2, flops=1e6)
    for width in (32, 128)
)


def bowl(best: float) -> dict[float, float]:
    return compare(1e-3, lambda rate: 2 + 0.05 * math.log(rate / best) ** 2)


@pytest.mark.parametrize("best", [2e-4, 1e-3, 5e-3])
def test_the_best_rate_is_found_from_where_one_begins(best: float) -> None:
    losses = bowl(best)
    assert best_of(losses) == pytest.approx(best, rel=0.05)
    assert 3 <= len(losses) <= 7


def test_a_rate_that_breaks_training_off_is_passed_by() -> None:
    losses = compare(1e-2, lambda rate: math.inf if rate > 3e-3 else 2 + abs(math.log(rate / 1e-3)))
    assert best_of(losses) == pytest.approx(1e-3, rel=0.15)
    assert math.inf in losses.values()


def test_where_no_rate_trains_it_is_told() -> None:
    with pytest.raises(DivergedError, match="no rate from"):
        compare(1e-3, lambda rate: math.inf)


def test_two_widths_that_agree_share_one_rate() -> None:
    found = carry((NARROW, bowl(2e-3)), (WIDE, bowl(2.5e-3)), init="mup", mup="")
    assert (found.how, found.power) == ("mup", 0.0)
    assert found.at(32) == found.at(4096) == pytest.approx(2e-3)
    assert "within the grid" in found.says


def test_two_widths_that_do_not_agree_give_a_power_of_the_width() -> None:
    found = carry((NARROW, bowl(8e-3)), (WIDE, bowl(1e-3)), init="mup", mup="")
    assert found.how == "rule"
    assert found.power == pytest.approx(math.log(1 / 8) / math.log(4), rel=0.05)
    assert found.at(32) == pytest.approx(8e-3, rel=0.05)
    assert found.at(128) == pytest.approx(1e-3, rel=0.05)
    assert "muP did not carry the rate" in found.says


def test_without_mup_the_reason_is_told() -> None:
    found = carry((NARROW, bowl(4e-3)), (WIDE, bowl(1e-3)), init=None, mup="train.init is default")
    assert found.how == "rule" and found.power < 0
    assert "train.init is default" in found.says
    same = carry((NARROW, bowl(1e-3)), (WIDE, bowl(1e-3)), init=None, mup="train.init is default")
    assert same.at(32) == same.at(128)


def test_rates_that_are_as_good_agree_though_their_bests_lie_apart() -> None:
    flat = {1e-3: 2.001, 2e-3: 2.0005, 4e-3: 2.0, 8e-3: 2.01}
    steep = {5e-4: 2.1, 1e-3: 2.0, 2e-3: 2.2}
    assert carry((NARROW, flat), (WIDE, steep), init="mup", mup="").at(64) == 1e-3
