"""Figures of races: what counts as steady, when a target is reached, and the peak's arithmetic."""

from __future__ import annotations

import math
from typing import Any

import pytest
from benchmarks.figures import best, notes, rate, reached_s, seconds, spread, table, target_ratio
from benchmarks.peak import transformer_flops
from benchmarks.race import Finish, Race, Step


def finish(at: list[float], paused: tuple[int, ...] = (0,), **more: Any) -> Finish:
    steps = tuple(Step(when, 2, 6, paused=place in paused) for place, when in enumerate(at))
    return Finish("a", steps, **more)


SAID = (
    {"event": "ready", "at_s": 10.0, "versions": {"torch": "2"}, "precision": "bf16", "flags": ["compile"]},
    {"event": "evaluated", "at_s": 20.0, "accuracy": 0.6, "loss": 1.0},
    {"event": "evaluated", "at_s": 30.0, "accuracy": 0.8, "loss": 0.7},
    {"event": "evaluated", "at_s": 40.0, "accuracy": 0.7, "loss": 0.8},
)


def test_steady_steps_leave_out_the_first_and_what_follows_a_pause() -> None:
    # five seconds to warm up, an evaluation of a hundred before the fifth step
    run = finish([5.0, 10.0, 11.0, 12.0, 112.0, 113.5], paused=(0, 4))
    assert seconds(run) == {2: 1.0, 3: 1.0, 5: 1.5}
    assert rate(run) == pytest.approx(6 / 3.5)
    assert rate(run, "tokens", warm_up=1) == pytest.approx(24 / 8.5)


def test_too_few_steps_have_no_rate() -> None:
    with pytest.raises(ValueError, match="a took 2 steps"):
        rate(finish([1.0, 2.0]))


@pytest.mark.parametrize(
    ("figure", "target", "rising", "training", "expected"),
    [
        ("accuracy", 0.6, True, False, 20.0),
        ("accuracy", 0.79, True, False, 30.0),
        ("accuracy", 0.79, True, True, 20.0),
        ("accuracy", 0.9, True, False, math.inf),
        ("loss", 0.75, False, False, 30.0),
        ("bleu", 0.1, True, False, math.inf),
    ],
)
def test_target_is_reached_at_the_first_evaluation_as_good(
    figure: str, target: float, rising: bool, training: bool, expected: float
) -> None:
    assert reached_s(finish([], said=SAID), figure, target, rising=rising, training=training) == expected


def test_best_of_a_run() -> None:
    assert best(finish([], said=SAID), "accuracy", rising=True) == 0.8
    assert best(finish([], said=SAID), "loss", rising=False) == 0.7
    assert math.isnan(best(finish([]), "loss", rising=False))


def test_a_target_that_we_miss_counts_against_us() -> None:
    assert target_ratio([math.inf, math.inf, 1.0], [(10.0, 12.0)]) == 0.0
    assert target_ratio([2.0], [(math.inf, 12.0)]) == 6.0


def test_table_and_notes_say_what_failed_and_what_was_disturbed() -> None:
    found = Race({"a": [finish([1.0, 2.0, 3.0], said=SAID, others=0.4)]}, [Finish("b", failed="exit 1: no\nmemory")])
    assert "| a | 1 | 2 | 1000 |" in table(found, ["a", "b"])
    assert "| b | 0 | failed |" in table(found, ["a", "b"])
    said = notes(found)
    assert "b failed: exit 1: no memory" in said
    assert "torch 2; bf16; flags compile" in said
    assert "1 of 1 runs" in said
    assert "up to 40%" in said


def test_spread_of_one_is_itself() -> None:
    assert spread([1.5]) == "1.5"


def test_operations_of_a_token() -> None:
    # GPT-2: 124 M weights less the positions', and attention over 1,024 tokens
    assert transformer_flops(12, 768, 1024, 50257) == pytest.approx(6 * 123.5e6 + 12 * 12 * 768 * 1024, rel=2e-3)
