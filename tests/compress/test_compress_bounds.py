"""Bounds of a drop: as often right as they say, with few rows, with none that differ, and of any metric."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrifty.compress.answers import Tally
from thrifty.compress.bounds import bootstrapped, paired_shares, rows_that_prove


@pytest.mark.parametrize(("lost", "gained"), [(0.02, 0.02), (0.05, 0.01), (0.004, 0.0)], ids=str)
def test_the_upper_bound_of_a_share_lies_above_the_true_drop_as_often_as_it_says(lost: float, gained: float) -> None:
    draw, rows, times = np.random.default_rng(0), 300, 400
    held = 0
    for _ in range(times):
        both = draw.multinomial(rows, [lost, gained, 1 - lost - gained])
        held += paired_shares(both[0], both[1], rows)[1] >= lost - gained
    # 95 in 100; three deviations of 400 draws are 3 in 100
    assert held / times > 0.92


@given(rows=st.integers(1, 10_000), lost=st.integers(0, 50), gained=st.integers(0, 50))
def test_bounds_enclose_what_was_seen_and_mirror(rows: int, lost: int, gained: int) -> None:
    lost, gained = min(lost, rows // 2), min(gained, rows // 2)
    low, high = paired_shares(lost, gained, rows)
    assert -1 <= low <= (lost - gained) / rows <= high <= 1
    assert (-high, -low) == pytest.approx(paired_shares(gained, lost, rows), abs=1e-9)


def test_rows_that_do_not_differ_prove_little_when_they_are_few() -> None:
    # the rule of three, at this confidence 2.7: of 100 rows none differs, and 2.6 in 100 may
    assert paired_shares(0, 0, 100)[1] == pytest.approx(2.706 / 102.706, rel=1e-3)
    needed = rows_that_prove(100, 0.005, lambda count: paired_shares(0, 0, count)[1])
    assert paired_shares(0, 0, needed)[1] <= 0.005 < paired_shares(0, 0, needed * 0.9)[1]


def test_no_number_of_rows_proves_a_drop_that_is_larger_than_allowed() -> None:
    assert rows_that_prove(100, 0.005, lambda count: 0.01 + 1 / math.sqrt(count)) == 0


def _losses(values: np.ndarray) -> Tally:
    return Tally(np.stack([values, np.ones_like(values)], 1), lambda sums: sums[..., 0] / sums[..., 1])


def test_the_bootstrap_keeps_pairs_together() -> None:
    draw = np.random.default_rng(1)
    losses = draw.exponential(2.0, 1000)
    noise = draw.normal(0.01, 0.1, 1000)
    low, high = bootstrapped("loss", _losses(losses), _losses(losses + noise))
    # of rows by themselves the spread is 2 / sqrt(1000); of pairs 0.1 / sqrt(1000)
    assert low < noise.mean() < high
    assert high - low == pytest.approx(2 * 1.645 * 0.1 / math.sqrt(1000), rel=0.15)


def test_what_is_counted_and_never_differs_is_not_proof() -> None:
    errors = _losses(np.zeros(50))
    assert bootstrapped("wer", errors, errors) == pytest.approx((-0.0513, 0.0513), abs=1e-3)
    assert bootstrapped("loss", errors, errors) == (0.0, 0.0)
