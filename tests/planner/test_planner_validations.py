"""How often a run is validated: priced, bounded, spread evenly; pinned by the job, and by a schedule that counts."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrifty.planner.validations import (
    AIMED_SHARE,
    FEW_SHARE,
    FEWEST,
    SPARE_SECONDS,
    USUAL,
    Aims,
    interval,
    reason,
    validations,
)

SECONDS = st.floats(1e-4, 1e3)
STEPS = st.integers(1, 1_000_000)
AIMS = st.builds(Aims, per_epoch=st.integers(1, 100_000), target=st.booleans(), patience=st.integers(0, 20))


def overhead(count: float, steps: int, step_s: float, validation_s: float) -> float:
    """Seconds that so many validations cost a run that a target ends: their own, and half an interval past it."""
    return count * validation_s + steps * step_s / (2 * count)


@given(AIMS, STEPS, SECONDS, SECONDS)
def test_validations_take_a_bounded_share_and_one_is_always_made(
    aims: Aims, steps: int, step_s: float, validation_s: float
) -> None:
    count = validations(aims, steps, step_s, validation_s)
    assert 1 <= count <= steps
    share = FEW_SHARE if count <= FEWEST else AIMED_SHARE
    assert count == 1 or count * validation_s <= max(share * steps * step_s, SPARE_SECONDS) * (1 + 1e-9)
    every = interval(steps, count)
    # spread evenly over the run, and not more of them than were priced
    assert (every - 1) * count < steps <= every * count


@given(AIMS, STEPS, SECONDS, SECONDS)
def test_more_is_never_bought_of_what_is_dearer_nor_less_in_a_longer_run(
    aims: Aims, steps: int, step_s: float, validation_s: float
) -> None:
    count = validations(aims, steps, step_s, validation_s)
    assert validations(aims, steps, step_s, 2 * validation_s) <= count
    assert validations(aims, 2 * steps, step_s, validation_s) >= count


@given(st.integers(1, 100_000), STEPS, SECONDS, SECONDS)
def test_a_target_is_looked_for_at_about_the_least_price(
    per_epoch: int, steps: int, step_s: float, validation_s: float
) -> None:
    count = validations(Aims(per_epoch, target=True), steps, step_s, validation_s)
    usual = validations(Aims(per_epoch), steps, step_s, validation_s)
    assert count >= usual
    least = math.sqrt(steps * step_s / (2 * validation_s))
    if count > max(usual, FEWEST) and count * validation_s < 0.9 * AIMED_SHARE * steps * step_s and count < steps:
        tried = [max(1, int(least * share)) for share in (0.25, 0.5, 0.8, 1.25, 2, 4)]
        cost = overhead(count, steps, step_s, validation_s)
        assert cost <= min(overhead(each, steps, step_s, validation_s) for each in tried) * 1.05


@given(st.integers(1, 100_000), st.integers(1, 20), st.booleans(), STEPS, SECONDS, SECONDS)
def test_patience_spans_an_epoch_or_a_quarter_of_a_shorter_run(
    per_epoch: int, patience: int, target: bool, steps: int, step_s: float, validation_s: float
) -> None:
    count = validations(Aims(per_epoch, target, patience), steps, step_s, validation_s)
    assert patience * interval(steps, count) >= min(per_epoch, steps / FEWEST) * (1 - 1e-9)


@given(AIMS, st.integers(1, 1000), STEPS, SECONDS, SECONDS)
def test_what_the_job_asks_for_is_done_whatever_it_costs(
    aims: Aims, asked: int, steps: int, step_s: float, validation_s: float
) -> None:
    assert validations(replace(aims, asked=asked), steps, step_s, validation_s) == min(asked, steps)


@given(AIMS, STEPS, SECONDS, SECONDS, SECONDS)
def test_a_schedule_that_counts_validations_learns_the_same_on_a_slower_machine(
    aims: Aims, steps: int, step_s: float, validation_s: float, other_s: float
) -> None:
    counting = replace(aims, plateau=True)
    assert validations(counting, steps, step_s, validation_s) == validations(counting, steps, other_s, other_s)


# what, aims, steps, seconds of a step, of a validation: steps between validations
RUNS = [
    ("SST-2, 4 epochs", Aims(217), 868, 0.14, 0.4, 87),
    ("the same, to a target", Aims(217, target=True), 868, 0.14, 0.4, 73),
    ("the same, a validation that costs five times as much", Aims(217), 868, 0.14, 2.0, 217),
    ("digits, 10 epochs: within a second or two nothing is spared", Aims(23), 230, 0.005, 0.03, 23),
    ("digits, 100 epochs: one an epoch would take 43 %", Aims(23), 2300, 0.005, 0.05, 115),
    ("one long epoch", Aims(10_000), 10_000, 0.1, 2.0, 1000),
    ("one long epoch, to a target: sqrt(2 N v / t) = 633", Aims(10_000, target=True), 10_000, 0.1, 2.0, 667),
    ("patience of one waits for an epoch", Aims(217, patience=1), 868, 0.14, 0.4, 217),
    ("patience of three for a third of one", Aims(217, patience=3), 868, 0.14, 0.4, 73),
    ("a validation as long as training", Aims(100, target=True), 1000, 0.1, 100.0, 1000),
    ("the plateau schedule", Aims(100, plateau=True), 1000, 0.1, 100.0, 100),
    ("the plateau schedule in less than an epoch", Aims(5000, plateau=True), 1000, 0.1, 1.0, 100),
    ("five asked for", Aims(100, asked=5), 1000, 0.1, 100.0, 200),
]


@pytest.mark.parametrize(
    ("aims", "steps", "step_s", "validation_s", "every"), [r[1:] for r in RUNS], ids=[r[0] for r in RUNS]
)
def test_runs(aims: Aims, steps: int, step_s: float, validation_s: float, every: int) -> None:
    assert interval(steps, validations(aims, steps, step_s, validation_s)) == every


REASONS = [
    (Aims(217), "a validation takes 400 ms, a step 140 ms: 10 of them take 3.3 % of the time of training", "rule"),
    (Aims(217, target=True), "12 of them take 3.9 % of the time of training; fewer would train longer past", "rule"),
    (Aims(217, patience=2), "patience of 2 spans at least an epoch", "rule"),
    (Aims(217, plateau=True), "the plateau schedule counts validations", "rule"),
    (Aims(217, asked=4), "train.evaluations asks for 4; a validation takes 400 ms", "job"),
]


@pytest.mark.parametrize(("aims", "says", "source"), REASONS, ids=[row[1] for row in REASONS])
def test_the_reason_names_both_prices_and_the_share(aims: Aims, says: str, source: str) -> None:
    said, came_from, doubt = reason(aims, 868, 0.14, 0.4)
    assert says in said and "400 ms" in said and "140 ms" in said
    assert came_from == source
    assert ("lucky" in doubt) == aims.target
    assert USUAL == 10, "the table above goes by it"
