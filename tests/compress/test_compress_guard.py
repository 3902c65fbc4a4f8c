"""The guard: what is allowed, what is proven, what noise explains, and how many rows would tell."""

from __future__ import annotations

import math

import numpy as np
import pytest

from thrifty.compress.answers import Tally
from thrifty.compress.guard import compared, parse_drop
from thrifty.errors import JobError


def _rights(right: np.ndarray) -> Tally:
    return Tally(np.stack([right, np.ones_like(right)], 1), lambda sums: sums[..., 0] / sums[..., 1])


def _rows(rows: int, wrong: int, *, lost: int, gained: int) -> tuple[Tally, Tally]:
    ours = np.ones(rows)
    ours[:wrong] = 0
    theirs = ours.copy()
    theirs[:gained] = 1
    theirs[rows - lost :] = 0
    return _rights(ours), _rights(theirs)


def test_a_small_drop_of_many_rows_is_within() -> None:
    found = compared(*_rows(20_000, 2000, lost=40, gained=20), "accuracy", "validation", parse_drop("0.5%"))
    assert (found.held, found.rows_needed) == ("within", 0)
    assert found.drop == pytest.approx(0.001)
    assert found.allowed == pytest.approx(0.0045)
    assert found.low < found.drop < found.high <= found.allowed
    assert found.seen


def test_few_rows_are_no_proof_and_it_says_how_many_would_be() -> None:
    found = compared(*_rows(200, 20, lost=0, gained=0), "accuracy", "validation", parse_drop("0.5%"))
    assert found.held == "unproven"
    assert 500 < found.rows_needed < 700
    assert not found.seen
    more = compared(
        *_rows(found.rows_needed, found.rows_needed // 10, lost=0, gained=0), "accuracy", "v", parse_drop("0.5%")
    )
    assert more.held == "within"


def test_a_drop_that_noise_explains_is_none() -> None:
    found = compared(*_rows(1000, 100, lost=12, gained=8), "accuracy", "validation", parse_drop("2%"))
    assert found.drop > 0
    assert not found.seen
    assert found.held == "within"


def test_a_real_drop_is_over() -> None:
    found = compared(*_rows(1000, 100, lost=60, gained=5), "accuracy", "validation", parse_drop("0.5%"))
    assert (found.held, found.rows_needed) == ("over", 0)
    assert found.low > found.allowed


def test_answers_that_are_no_numbers_are_over() -> None:
    ours, theirs = _rights(np.ones(50)), _rights(np.full(50, np.nan))
    assert compared(ours, theirs, "loss", "validation", parse_drop("0.5%")).held == "over"


@pytest.mark.parametrize(
    ("text", "metric", "before", "allowed"),
    [
        ("0.5%", "accuracy", 0.8, 0.004),
        ("0.5%", "wer", 0.2, 0.004),
        ("1 %", "rmse", 30.0, 0.3),
        ("0.01", "loss", 2.0, 0.01),
        ("0", "accuracy", 0.8, 0.0),
    ],
    ids=["accuracy", "wer", "rmse", "absolute", "none"],
)
def test_what_is_allowed(text: str, metric: str, before: float, allowed: float) -> None:
    assert parse_drop(text).of(metric, before) == pytest.approx(allowed)


@pytest.mark.parametrize("text", ["", "half", "-1%", "100%", "1pp", "nan", "1e999"], ids=str)
def test_what_is_no_drop(text: str) -> None:
    with pytest.raises(JobError, match="--max-drop"):
        parse_drop(text)


def test_infinite_drops_are_never_within() -> None:
    ours, theirs = _rights(np.ones(50)), _rights(np.ones(50) * math.inf)
    assert compared(ours, theirs, "loss", "validation", parse_drop("1")).held == "over"
