"""Corrections: nothing without history, towards what was seen with it, and intervals that hold nine times in ten."""

from __future__ import annotations

import math
import random

import pytest

from thrifty.ledger import Entry, StageEntry
from thrifty.planner.correction import Seen, correct, seen
from thrifty.spec import Cost, Interval, Spent

PREDICTED = Interval(low=70.0, value=100.0, high=143.0, method="traced")
SPREAD = math.log(143 / 70) / (2 * 1.645)


def runs(*residuals: float, family: str = "gpt") -> list[Seen]:
    return [Seen(family, {"seconds": residual}) for residual in residuals]


def test_without_history_nothing_changes() -> None:
    assert correct(PREDICTED, "seconds", "gpt", []) == PREDICTED
    assert correct(PREDICTED, "peak_bytes", "gpt", runs(0.3)) == PREDICTED


def test_one_run_moves_it_part_of_the_way_and_many_nearly_all() -> None:
    one = correct(PREDICTED, "seconds", "gpt", runs(0.3))
    many = correct(PREDICTED, "seconds", "gpt", runs(*[0.3] * 20))
    assert 100 < one.value < many.value < 100 * math.exp(0.3)
    assert many.value == pytest.approx(100 * math.exp(0.3), rel=0.02)
    assert many.high / many.low < one.high / one.low < PREDICTED.high / PREDICTED.low * 2
    assert one.first == many.first == 100
    assert "20 runs" in many.method


def test_runs_that_differ_keep_the_interval_wide() -> None:
    steady = correct(PREDICTED, "seconds", "gpt", runs(*[0.1] * 10))
    unsteady = correct(PREDICTED, "seconds", "gpt", runs(*[0.4, -0.2] * 5))
    assert steady.high / steady.low < unsteady.high / unsteady.low


def test_a_family_with_runs_enough_is_taken_by_itself() -> None:
    history = [*runs(*[-0.3] * 10, family="resnet"), *runs(*[0.3] * 5)]
    assert correct(PREDICTED, "seconds", "gpt", history).value > 125
    assert correct(PREDICTED, "seconds", "mlp", history).value < 100


def covered(count: int, bias_share: float | None, trials: int = 400) -> float:
    """Share of runs inside their interval, on machines with a bias of their own and runs that scatter around it."""
    random_ = random.Random(count)
    inside = 0
    for _ in range(trials):
        share = random_.uniform(0.05, 0.95) if bias_share is None else bias_share
        bias_spread, noise = SPREAD * math.sqrt(share), SPREAD * math.sqrt(1 - share)
        bias = random_.gauss(0, bias_spread)
        history = runs(*(random_.gauss(bias, noise) for _ in range(count)))
        interval = correct(PREDICTED, "seconds", "gpt", history)
        inside += interval.low <= 100 * math.exp(random_.gauss(bias, noise)) <= interval.high
    return inside / trials


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 10, 30])
@pytest.mark.slow
def test_nominal_ninety_per_cent_intervals_are_honest(count: int) -> None:
    assert 0.80 <= covered(count, None) <= 0.97


@pytest.mark.parametrize("bias_share", [0.1, 0.5, 0.98])
@pytest.mark.slow
def test_they_are_not_too_narrow_whatever_the_machine_is_like(bias_share: float) -> None:
    for count in (1, 3, 10):
        assert covered(count, bias_share, 200) >= 0.80


def entry(**changes: object) -> Entry:
    """A run of half the planned work in half the uncorrected time and 1.2 times that; corrected by 1.5 before."""
    flat = Interval.around(100.0, 0.1, "traced")
    cost = Cost(
        seconds=Interval(low=100, value=150, high=200, method="corrected", first=100.0),
        peak_bytes=flat, joules=flat, usd=flat, flops=flat,
    )  # fmt: skip
    spent = Spent(wall_s=60.0, peak_rss_bytes=90, flops=50.0)
    return Entry(
        id=1, name="a", key="k", folder="f", status="done", started="", finished="", attempts=1, pid=1,
        stages=(StageEntry(stage="train", attempt=1, spent=spent),), predicted=cost, total=spent, metrics={}, reason="",
        code="", device="here", model="gpt-nano",
    ).model_copy(update=changes)  # fmt: skip


def test_runs_tell_of_the_model_s_own_prediction_for_the_work_they_did() -> None:
    (told,) = seen([entry()], "here")
    assert told.family == "gpt"
    assert told.residuals["seconds"] == pytest.approx(math.log(60 / 50))
    assert told.residuals["peak_bytes"] == pytest.approx(math.log(0.9))


def test_runs_that_failed_or_ran_elsewhere_tell_nothing() -> None:
    assert seen([entry(status="failed"), entry(device="there"), entry(predicted=None)], "here") == []
