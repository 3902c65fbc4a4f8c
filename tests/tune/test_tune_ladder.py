"""The ladder: levels that grow threefold, and rules that let the best third, half, or all of what came as far go on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrifty.tune.ladder import FACTOR, RULES, Ladder, Standing, better_than_half, bracket_of, climbers, ladder


@given(total=st.integers(1, 100_000), per_epoch=st.integers(1, 5_000))
def test_levels_rise_to_the_whole_and_validations_meet_them(total: int, per_epoch: int) -> None:
    levels = ladder(total, per_epoch)
    assert levels.shares[-1] == 1.0
    assert list(levels.shares) == sorted(set(levels.shares))
    steps = levels.steps(total)
    assert steps[-1] == total and all(1 <= step <= total for step in steps)
    assert all(step % levels.every(total) == 0 for step in steps[:-1])
    if total >= FACTOR * per_epoch:
        assert steps[0] % per_epoch == 0, "a whole number of epochs"


@given(total=st.integers(1, 500), other=st.integers(1, 500))
def test_a_trial_of_another_length_has_the_same_levels(total: int, other: int) -> None:
    levels = ladder(total, 10)
    steps = levels.steps(other)
    assert len(steps) == len(levels.shares)
    assert levels.level_of(other, other) == levels.top
    assert levels.level_of(0, other) == -1


def standings(*values: float, waits: bool = True) -> list[Standing]:
    return [Standing(number, (value,), 0, waits) for number, value in enumerate(values, 1)]


def test_the_best_third_goes_on_and_a_newcomer_may_join_it_later() -> None:
    some = standings(0.1, 0.5, 0.3)
    assert climbers("asha", some, 2) == [2]
    # its place was taken by what it climbed to; with six there are two places
    climbed = [Standing(each.number, (0.5, 0.6), 0, True) if each.number == 2 else each for each in some]
    assert climbers("asha", climbed, 2) == []
    more = [*climbed, *(Standing(number, (value,), 0, True) for number, value in ((4, 0.2), (5, 0.4), (6, 0.0)))]
    assert climbers("asha", more, 2) == [5]


def test_the_furthest_go_first_and_those_at_work_stay_where_they_are() -> None:
    upper = [Standing(number, (0.5, 0.1 * number), 0, number < 9) for number in range(7, 10)]
    assert climbers("asha", [*standings(0.9, 0.1, 0.2), *upper], 2)[0] == 1
    assert 9 not in climbers("asha", upper, 2), "it does not wait"


@pytest.mark.parametrize("rule", sorted(RULES))
def test_the_first_trial_always_goes_on_and_one_that_was_cut_off_too(rule: str) -> None:
    first, cut = Standing(0, (-9.0,), 2, True), Standing(5, (), 1, True)
    good = [Standing(number, (1.0,), 0, False) for number in (1, 2, 3)]
    assert climbers(rule, [first, *good, cut], 2)[:2] == [0, 5]


def test_half_of_them_go_on_by_the_median_once_there_are_some() -> None:
    assert better_than_half(standings(0.1, 0.2, 0.3), 0) == [3, 2, 1]
    assert better_than_half(standings(0.1, 0.2, 0.3, 0.4), 0) == [4, 3]


def test_brackets_are_compared_within() -> None:
    low = [Standing(number, (0.1 * number,), 0, True) for number in (1, 2, 3)]
    high = [Standing(number, (0.5, 0.1 * number), 1, True) for number in (4, 5, 6)]
    assert climbers("hyperband", [*low, *high], 2) == [6, 3]


@given(count=st.integers(1, 60))
def test_hyperband_begins_most_trials_at_the_first_level(count: int) -> None:
    brackets = [bracket_of("hyperband", number, 3) for number in range(1, count + 1)]
    counts = [brackets.count(level) for level in range(4)]
    assert counts == sorted(counts, reverse=True)


def test_steps_of_a_short_training_are_levels_too() -> None:
    assert Ladder((1.0,)).steps(5) == (5,)
    assert ladder(2, 100).steps(2)[-1] == 2
