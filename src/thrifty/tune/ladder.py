"""Which trials go on: levels of training that grow threefold, and rules that tell who may climb to the next one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# of trials at a level, one in so many goes on; each level is so many times as long
FACTOR = 3
# the first level is about this share of the whole training, and at least an epoch where there are three
LEAST_SHARE = 1 / 27
# a level nearer to the end than this share of it is left out: it would tell what the end tells
NEAR = 0.8
# trials at a level before the median stops any
MEDIAN_STARTS = 4


@dataclass(frozen=True)
class Ladder:
    """Levels of training, as shares of the whole.

    Attributes:
        shares: ascending, the last is 1.
    """

    shares: tuple[float, ...]

    @property
    def top(self) -> int:
        """Number of the last level."""
        return len(self.shares) - 1

    def every(self, total: int) -> int:
        """Steps between validations of a trial of so many steps: the first level's."""
        return max(1, round(self.shares[0] * total))

    def steps(self, total: int) -> tuple[int, ...]:
        """Steps at the end of each level of a trial of so many, all but the last a multiple of the first.

        >>> Ladder((0.1, 0.3, 1.0)).steps(70)
        (7, 21, 70)
        """
        every = self.every(total)
        return (*(min(every * FACTOR**level, total) for level in range(self.top)), total)

    def level_of(self, step: int, total: int) -> int:
        """Levels that so many steps have completed, less one: -1 for none."""
        return sum(step >= needed for needed in self.steps(total)) - 1


def ladder(total: int, per_epoch: int) -> Ladder:
    """Make the levels of a training: whole epochs where there are enough of them.

    >>> ladder(700, 100).shares == (1 / 7, 3 / 7, 1.0)
    True

    Args:
        total: steps of the whole training.
        per_epoch: steps of an epoch.
    """
    unit = per_epoch if total >= FACTOR * per_epoch else max(1, math.ceil(total / FACTOR**2))
    first = unit * max(1, round(LEAST_SHARE * total / unit))
    shares = []
    length = first
    while length < NEAR * total:
        shares.append(length / total)
        length *= FACTOR
    return Ladder((*shares, 1.0))


@dataclass(frozen=True)
class Standing:
    """A trial on the ladder.

    Attributes:
        number: of the trial.
        values: how good it was at each level that it completed; more is better.
        bracket: level that it went to at once.
        waits: it stopped where it is and can go on.
    """

    number: int
    values: tuple[float, ...]
    bracket: int
    waits: bool

    @property
    def level(self) -> int:
        """The last level that it completed; -1 for none."""
        return len(self.values) - 1


# Tells which of the trials that wait at a level may go on; it is given all that completed the level.
Rule = Callable[[Sequence[Standing], int], list[int]]


def best_third(standings: Sequence[Standing], level: int) -> list[int]:
    """Those among the best third of all that came as far (Li et al. 2020, asynchronous successive halving).

    >>> best_third([Standing(n, (value,), 0, True) for n, value in enumerate((0.5, 0.9, 0.7))], 0)
    [1]
    """
    ranked = sorted(standings, key=lambda each: (-each.values[level], each.number))
    return [each.number for each in ranked[: len(ranked) // FACTOR] if each.waits and each.level == level]


def best_third_of_brackets(standings: Sequence[Standing], level: int) -> list[int]:
    """Likewise, each beside those of its bracket alone (Li et al. 2018, Hyperband; brackets run at the same time)."""
    brackets = sorted({each.bracket for each in standings})
    return [
        number
        for bracket in brackets
        for number in best_third([each for each in standings if each.bracket == bracket], level)
    ]


def better_than_half(standings: Sequence[Standing], level: int) -> list[int]:
    """Those no worse than the median of all that came as far; all while there are few."""
    middle = statistics.median(each.values[level] for each in standings)
    few = len(standings) < MEDIAN_STARTS
    return [
        each.number
        for each in sorted(standings, key=lambda each: (-each.values[level], each.number))
        if each.waits and each.level == level and (few or each.values[level] >= middle)
    ]


def everyone(standings: Sequence[Standing], level: int) -> list[int]:
    """All of them, the first first."""
    return sorted(each.number for each in standings if each.waits and each.level == level)


RULES: dict[str, Rule] = {
    "asha": best_third,
    "hyperband": best_third_of_brackets,
    "median": better_than_half,
    "none": everyone,
}


def climbers(rule: str, standings: Sequence[Standing], top: int) -> list[int]:
    """Return the trials that may go on to their next level, those furthest up first.

    The first trial of a study, its start, always may, and so may one that has not come to where it began for yet.

    Args:
        rule: of `RULES`.
        standings: all trials that completed a level or wait.
        top: number of the last level.
    """
    found = [each.number for each in standings if each.waits and (each.level < each.bracket or each.number == 0)]
    for level in range(top - 1, -1, -1):
        reached = [each for each in standings if each.level >= level]
        found += [number for number in RULES[rule](reached, level) if number not in found] if reached else []
    return found


def bracket_of(rule: str, number: int, top: int) -> int:
    """The level that a new trial goes to at once: 0, but for Hyperband, which spends about as much on each bracket.

    The first trial goes to the end.

    >>> [bracket_of("hyperband", number, 2) for number in range(1, 9)]
    [0, 0, 1, 0, 2, 0, 1, 0]
    >>> bracket_of("asha", 7, 2), bracket_of("none", 7, 2), bracket_of("asha", 0, 2)
    (0, 2, 2)
    """
    if rule == "none" or number == 0:
        return top
    if rule != "hyperband":
        return 0
    # of s + 1 brackets, that which begins at level b has about FACTOR^(s - b) / (s - b + 1) trials a round
    weights = [FACTOR ** (top - level) / (top - level + 1) for level in range(top + 1)]
    given = [0.0] * (top + 1)
    chosen = 0
    for _ in range(number):
        chosen = min(range(top + 1), key=lambda level: (given[level] + 1) / weights[level])
        given[chosen] += 1
    return chosen
