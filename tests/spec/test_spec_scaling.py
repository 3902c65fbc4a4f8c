"""Budgets of `thrifty scale`, and laws: amounts told apart by their unit, and what a law says of size and data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrifty.errors import JobError
from thrifty.spec.scaling import Law, parse_purse, quantile


@pytest.mark.parametrize(
    ("text", "quantity", "amount"),
    [
        ("1e18flop", "flops", 1e18),
        ("3 EFLOP", "flops", 3e18),
        ("2.5TFLOP", "flops", 2.5e12),
        ("10h", "seconds", 36_000.0),
        ("2kWh", "joules", 7.2e6),
        ("50USD", "usd", 50.0),
    ],
)
def test_an_amount_is_told_by_its_unit(text: str, quantity: str, amount: float) -> None:
    purse = parse_purse(text)
    assert (purse.quantity, purse.amount) == (quantity, pytest.approx(amount))


@pytest.mark.parametrize("text", ["", "5", "5 bananas", "-1h", "0flop", "infflop", "4GiB", "1e18Flop"])
def test_what_is_no_amount_is_told_with_the_units(text: str) -> None:
    with pytest.raises(JobError, match=r"is no amount of FLOPs, time, energy or money.*flop.*kWh.*USD"):
        parse_purse(text)


@given(st.floats(1e3, 1e9), st.floats(1e4, 1e12))
def test_a_law_falls_by_size_and_by_data_and_never_below_its_floor(parameters: float, data: float) -> None:
    law = Law(floor=1.0, size_factor=100, size_power=0.3, data_factor=200, data_power=0.3)
    assert law.loss(2 * parameters, data) < law.loss(parameters, data)
    assert law.loss(parameters, 2 * data) < law.loss(parameters, data)
    assert law.loss(parameters, data) > law.floor
    assert law.loss(parameters, 2 * data, data) > law.loss(parameters, 2 * data)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.floats(0, 1))
def test_a_quantile_lies_within_what_it_is_of(values: list[float], share: float) -> None:
    ordered = tuple(sorted(values))
    assert ordered[0] <= quantile(ordered, share) <= ordered[-1] + 1e-9
