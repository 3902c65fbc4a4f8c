"""The search: its front is exactly what none beats, bounds change nothing, and a choice keeps its limits."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrifty.planner.search import OBJECTIVES, Constraint, Priced, Settings, Space, Way, over, relax, search

FIELDS = ("a", "b", "c")
PRICES = st.lists(st.tuples(*[st.integers(1, 6)] * 4), min_size=27, max_size=27)
LIMITS = st.dictionaries(st.sampled_from(OBJECTIVES), st.integers(1, 7))
SPACE = Space(dict.fromkeys(FIELDS, (0, 1, 2)), (Constraint(("a", "c"), lambda a, c: a + c != 3, "a and c not 3"),))


def at(settings: Settings) -> int:
    return int(settings["a"] * 9 + settings["b"] * 3 + settings["c"])


def values(price: Priced) -> tuple[float, ...]:
    return tuple(getattr(price, name) for name in OBJECTIVES)


def beats(one: Priced, other: Priced) -> bool:
    pairs = list(zip(values(one), values(other), strict=True))
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)


def key(way: Way) -> int:
    return at(way.settings)


def brute(prices: list[tuple[int, ...]], limits: dict[str, int]) -> tuple[set[int], set[int]]:
    ways = [Way(settings, Priced(*map(float, prices[at(settings)]))) for settings in SPACE.candidates()]
    fits = [way for way in ways if not over(way.price, limits)]
    return {key(way) for way in fits}, {
        key(way) for way in fits if not any(beats(other.price, way.price) for other in fits)
    }


@given(PRICES, LIMITS)
@pytest.mark.slow
def test_the_front_is_exactly_what_none_beats(prices: list[tuple[int, ...]], limits: dict[str, int]) -> None:
    found = search(SPACE, lambda settings: Priced(*map(float, prices[at(settings)])), limits=limits)
    feasible, front = brute(prices, limits)
    assert {key(way) for way in found.feasible} == feasible
    assert {key(way) for way in found.front} == front
    assert len(found.front) == len(front)


@given(PRICES, LIMITS, st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=27, max_size=27))
@pytest.mark.slow
def test_bounds_change_neither_front_nor_choice(
    prices: list[tuple[int, ...]], limits: dict[str, int], shares: list[tuple[float, ...]]
) -> None:
    def price(settings: Settings) -> Priced:
        return Priced(*map(float, prices[at(settings)]))

    def bound(settings: Settings) -> Priced:
        return Priced(*(p * s for p, s in zip(prices[at(settings)], shares[at(settings)], strict=True)))

    def closer(settings: Settings) -> Priced:
        return Priced(*((p + b) / 2 for p, b in zip(values(price(settings)), values(bound(settings)), strict=True)))

    plain, pruned = search(SPACE, price, limits=limits), search(SPACE, price, limits=limits, bounds=(bound, closer))
    assert plain.front == pruned.front
    assert plain.choice == pruned.choice
    assert pruned.priced <= plain.priced == plain.candidates


@given(PRICES, LIMITS)
@pytest.mark.slow
def test_the_choice_keeps_the_limits_and_is_within_a_hundredth_of_the_cheapest(
    prices: list[tuple[int, ...]], limits: dict[str, int]
) -> None:
    found = search(SPACE, lambda settings: Priced(*map(float, prices[at(settings)])), limits=limits)
    assert (found.choice is None) == (not found.feasible)
    if found.choice is not None:
        assert not over(found.choice.price, limits)
        assert found.choice.price.usd <= min(way.price.usd for way in found.feasible) * 1.01


@given(PRICES, st.dictionaries(st.sampled_from(OBJECTIVES), st.integers(1, 3), min_size=1))
@pytest.mark.slow
def test_what_would_fit_does_fit_and_nothing_nearer_does(prices: list[tuple[int, ...]], limits: dict[str, int]) -> None:
    def price(settings: Settings) -> Priced:
        return Priced(*map(float, prices[at(settings)]))

    if search(SPACE, price, limits=limits).feasible:
        return
    steps = relax(SPACE, price, limits=limits)
    assert steps
    assert search(SPACE, price, limits={**limits, **{step.quantity: step.needed for step in steps}}).feasible
    single = [step for step in steps if search(SPACE, price, limits={**limits, step.quantity: step.needed}).feasible]
    assert single in ([], list(steps))
    for step in single:
        below = {**limits, step.quantity: math.nextafter(step.needed, 0)}
        assert not search(SPACE, price, limits=below).feasible
    assert [step.ratio for step in single] == sorted(step.ratio for step in single)


def test_the_choice_prefers_memory_that_surely_fits() -> None:
    prices: dict[str, Priced] = {"tight": Priced(1, 1, 1, 9, risk_bytes=12), "safe": Priced(2, 2, 2, 5, risk_bytes=7)}
    found = search(Space({"way": tuple(prices)}), lambda s: prices[s["way"]], limits={"peak_bytes": 10})
    assert len(found.front) == 2
    assert found.choice is not None
    assert found.choice.settings == {"way": "safe"}


@pytest.mark.alone
@pytest.mark.slow
def test_thousands_of_ways_take_seconds() -> None:
    space = Space({name: tuple(range(12)) for name in "abcd"})

    def price(settings: Settings) -> Priced:
        a, b, c, d = (settings[name] + 1.0 for name in "abcd")
        return Priced(a / b + c, a / b + c, d + 1 / a, b * c / d)

    def bound(settings: Settings) -> Priced:
        exact = price(settings)
        return Priced(*(0.9 * value for value in values(exact)))

    began = time.perf_counter()
    found = search(space, price, limits={"peak_bytes": 40.0}, bounds=(bound,))
    assert time.perf_counter() - began < 10
    assert found.candidates == 12**4
    assert found.priced < found.candidates / 2


def test_constraints_are_asked_as_early_as_can_be() -> None:
    asked: list[Any] = []

    def small(a: int) -> bool:
        asked.append(a)
        return a < 1

    assert len(list(Space({"a": (0, 1), "b": (0, 1)}, (Constraint(("a",), small, "a is 0"),)).candidates())) == 2
    assert asked == [0, 1]
