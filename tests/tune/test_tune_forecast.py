"""Forecasts of where a trial ends: right on power laws, honest on noise, silent where nothing is known."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from thrifty.tune.forecast import can_beat, carried_on, error_of, expected_end, forecast

SHARES = [at / 9 for at in range(1, 10)]


def law(scale: float, power: float, *, rises: bool, shares: list[float] = SHARES) -> dict[float, float]:
    errors = {share: scale * share**-power for share in shares}
    return {share: 1 - error if rises else error for share, error in errors.items()}


def until(curve: dict[float, float], share: float) -> dict[float, float]:
    return {at: value for at, value in curve.items() if at <= share + 1e-9}


@given(scale=st.floats(0.01, 0.3), power=st.floats(0.0, 1.0), rises=st.booleans())
def test_a_power_law_is_carried_on(scale: float, power: float, rises: bool) -> None:
    curve = law(scale, power, rises=rises)
    assume(min(error_of(value, rises) for value in curve.values()) > 1e-5)
    assert math.exp(carried_on(until(curve, 4 / 9), rises)) == pytest.approx(scale, rel=1e-6)
    assert expected_end(until(curve, 4 / 9), [], rises=rises) == pytest.approx(curve[1.0], rel=1e-6)


def test_nothing_is_foretold_from_a_single_trial_that_ended() -> None:
    curve = law(0.1, 0.3, rises=True)
    assert forecast(until(curve, 1 / 9), [curve], rises=True) is None
    assert can_beat(0.99, None, rises=True)
    assert forecast(curve, [], rises=True) is not None, "it has ended: there is nothing to foretell"


def test_what_a_schedule_does_at_the_end_is_learned_from_those_that_ended() -> None:
    # all end at half the error that their powers lead to
    some = [{**law(scale, 0.2, rises=True), 1.0: 1 - scale / 2} for scale in (0.1, 0.2, 0.15)]
    end = forecast(until(law(0.12, 0.2, rises=True), 3 / 9), some, rises=True)
    assert end is not None
    assert end.value == pytest.approx(1 - 0.06, abs=1e-6)
    assert end.low < end.value < end.high


@pytest.mark.parametrize("rises", [True, False])
@pytest.mark.parametrize("seen", [2, 4, 8])
def test_nine_in_ten_ends_fall_into_the_interval(seen: int, rises: bool) -> None:
    """Curves of unlike heights and powers, with noise in each validation and an end of its own."""
    generator = random.Random(f"{seen} {rises}")

    def draw() -> dict[float, float]:
        scale, power = generator.uniform(0.05, 0.3), generator.uniform(0.1, 0.5)
        gain = math.exp(generator.gauss(-0.3, 0.1))
        curve = {}
        for share in SHARES:
            error = scale * share**-power * math.exp(generator.gauss(0, 0.05)) * (gain if share == 1 else 1)
            curve[share] = 1 - error if rises else error
        return curve

    inside = 0
    for _ in range(300):
        curve, known = draw(), [draw() for _ in range(seen)]
        end = forecast(until(curve, 3 / 9), known, rises=rises)
        assert end is not None
        inside += end.low <= curve[1.0] <= end.high
    assert inside / 300 >= 0.85


def test_figures_that_are_no_numbers_or_perfect_are_borne() -> None:
    assert error_of(float("nan"), rises=True) == 1e6
    assert error_of(1.0, rises=True) == 1e-6
    end = forecast({1 / 9: 1.0}, [law(0.1, 0.2, rises=True)] * 3, rises=True)
    assert end is not None and end.value <= 1.0
