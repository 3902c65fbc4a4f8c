"""Search a space of ways for the cheap ones: knows nothing of what a move means, prunes by bound, keeps the front.

A way is an assignment of a value to each field. Its price says what it takes in dollars, seconds, joules and bytes;
less is better in each. The front holds every way that no other is at least as good as in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Settings = Mapping[str, Any]
# in this order a choice is made: money first, where it is the same time, and so on
OBJECTIVES = ("usd", "seconds", "joules", "peak_bytes")
# Ways whose cost differs by less than predictions can tell apart are taken for equal: then the plainest wins.
INDIFFERENCE = 0.01


@dataclass(frozen=True)
class Constraint:
    """What must hold between some fields, and how to say it.

    Attributes:
        fields: it is asked as soon as these are all assigned.
        holds: of their values, in this order.
        says: the rule as a clause, such as ``tensor divides the 96 heads``.
    """

    fields: tuple[str, ...]
    holds: Callable[..., bool]
    says: str


@dataclass(frozen=True)
class Space:
    """Fields with the values they may take, and what must hold between them."""

    dimensions: Mapping[str, Sequence[Any]]
    constraints: Sequence[Constraint] = ()

    def candidates(self) -> Iterator[dict[str, Any]]:
        """Yield every assignment that keeps all constraints, the first values first.

        >>> even = Constraint(("a", "b"), lambda a, b: (a + b) % 2 == 0, "a and b add up to an even number")
        >>> list(Space({"a": (1, 2), "b": (3, 4)}, (even,)).candidates())
        [{'a': 1, 'b': 3}, {'a': 2, 'b': 4}]
        """
        fields = list(self.dimensions)
        asked_at = {rule: max(map(fields.index, rule.fields)) for rule in self.constraints}
        rules = [[rule for rule, depth in asked_at.items() if depth == at] for at in range(len(fields))]

        def extend(done: dict[str, Any], depth: int) -> Iterator[dict[str, Any]]:
            if depth == len(fields):
                yield done
                return
            for value in self.dimensions[fields[depth]]:
                grown = {**done, fields[depth]: value}
                if all(rule.holds(*(grown[name] for name in rule.fields)) for rule in rules[depth]):
                    yield from extend(grown, depth + 1)

        yield from extend({}, 0)


@dataclass(frozen=True)
class Priced:
    """What a way takes; ``detail`` is whatever the one who priced it wants to find again.

    ``risk_bytes`` is the upper end of the memory's interval: a way is only taken for safe when that fits.
    """

    usd: float
    seconds: float
    joules: float
    peak_bytes: float
    risk_bytes: float = 0.0
    detail: Any = field(default=None, compare=False)


@dataclass(frozen=True)
class Way:
    """A candidate with its price."""

    settings: Settings
    price: Priced


@dataclass(frozen=True)
class Relaxation:
    """A limit that would have to give way: from what to what, and the way that would then fit."""

    quantity: str
    limit: float
    needed: float
    way: Way

    @property
    def ratio(self) -> float:
        """Needed over limit."""
        return self.needed / self.limit


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        feasible: every way that was priced and keeps the limits.
        front: of those, the ones that no other beats or equals in everything; the cheapest first.
        choice: the cheapest of the front; of those that cost within 1 % of it, the plainest: the one with the fewest
            values that are not the first of their field, then with the least memory; None when nothing fits.
        candidates: how many ways keep the constraints.
        priced: how many of them were priced; the rest could not have been on the front, by their bounds.
    """

    feasible: tuple[Way, ...]
    front: tuple[Way, ...]
    choice: Way | None
    candidates: int
    priced: int


Price = Callable[[Settings], Priced]
Bound = Callable[[Settings], Priced]


def search(
    space: Space,
    price: Price,
    *,
    limits: Mapping[str, float],
    bounds: Sequence[Bound] = (),
    objectives: Sequence[str] = OBJECTIVES,
) -> Found:
    """Price the ways of a space and return those that keep the limits, their front, and one choice.

    Args:
        space: the ways there are.
        price: of one way.
        limits: the most of each quantity that may be taken, by its name in `Priced`.
        bounds: prices that are never above the real one in any quantity, from the cheapest to work out to the sharpest:
            a way with a bound over a limit, or beaten by a way already priced, is not priced. They change no front and
            no choice; the first gives the order in which ways are looked at.
        objectives: quantities that the front is over, the one to choose by first.
    """
    ways = list(space.candidates())
    first = [bounds[0](settings) for settings in ways] if bounds else [Priced(0.0, 0.0, 0.0, 0.0)] * len(ways)
    order = sorted(range(len(ways)), key=lambda at: (_values(first[at], objectives), at))
    front = _Front(len(objectives))
    feasible: dict[int, Way] = {}
    priced = 0

    def hopeless(price: Priced) -> bool:
        return over(price, limits) or front.beats(_values(price, objectives))

    for at in order:
        if hopeless(first[at]) or any(hopeless(bound(ways[at])) for bound in bounds[1:]):
            continue
        way = Way(ways[at], price(ways[at]))
        priced += 1
        if not over(way.price, limits):
            feasible[at] = way
            front.add(_values(way.price, objectives), at)
    standing = sorted(front.members, key=lambda at: (_values(feasible[at].price, objectives), at))
    return Found(
        feasible=tuple(feasible[at] for at in sorted(feasible)),
        front=tuple(feasible[at] for at in standing),
        choice=_choose([feasible[at] for at in standing], space, limits, objectives),
        candidates=len(ways),
        priced=priced,
    )


def relax(
    space: Space, price: Price, *, limits: Mapping[str, float], bounds: Sequence[Bound] = ()
) -> tuple[Relaxation, ...]:
    """Say what would have to give when nothing keeps the limits: one limit at a time, the smallest step first.

    Each answer is a single limit that lets some way in when it alone is raised. When no single one does, the way that
    oversteps the least by its worst quantity is taken, with each limit that it oversteps.
    """
    everything = search(space, price, limits={}, bounds=bounds, objectives=_all_of(limits)).front
    single = []
    for quantity, limit in limits.items():
        others = {name: most for name, most in limits.items() if name != quantity}
        fitting = [way for way in everything if not over(way.price, others)]
        if fitting:
            way = min(fitting, key=lambda each: getattr(each.price, quantity))
            single.append(Relaxation(quantity, limit, getattr(way.price, quantity), way))
    if single or not everything:
        return tuple(sorted(single, key=lambda each: each.ratio))
    way = min(everything, key=lambda each: max(getattr(each.price, name) / most for name, most in limits.items()))
    return tuple(
        Relaxation(name, most, getattr(way.price, name), way)
        for name, most in limits.items()
        if getattr(way.price, name) > most
    )


def over(price: Priced, limits: Mapping[str, float]) -> bool:
    """Whether a price oversteps a limit."""
    return any(getattr(price, name) > most for name, most in limits.items())


def _choose(front: list[Way], space: Space, limits: Mapping[str, float], objectives: Sequence[str]) -> Way | None:
    """The cheapest, or one hardly dearer that is plainer; one whose memory surely fits, if there is any."""
    most = limits.get("peak_bytes", float("inf"))
    front = [way for way in front if way.price.risk_bytes <= most] or front
    if not front:
        return None
    least = getattr(front[0].price, objectives[0])
    near = [way for way in front if getattr(way.price, objectives[0]) <= least * (1 + INDIFFERENCE)]
    first = {name: values[0] for name, values in space.dimensions.items()}
    return min(near, key=lambda way: (sum(way.settings[f] != v for f, v in first.items()), way.price.peak_bytes))


def _all_of(limits: Mapping[str, float]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*limits, *OBJECTIVES)))


def _values(price: Priced, objectives: Sequence[str]) -> tuple[float, ...]:
    return tuple(getattr(price, name) for name in objectives)


class _Front:
    """The points that none beats: at least as good in every coordinate and better in one."""

    def __init__(self, width: int) -> None:
        self.points = np.empty((0, width))
        self.members: list[int] = []

    def beats(self, values: tuple[float, ...]) -> bool:
        """Whether some member beats a point."""
        no_worse = (self.points <= values).all(axis=1)
        return bool((no_worse & (self.points < values).any(axis=1)).any())

    def add(self, values: tuple[float, ...], member: int) -> None:
        """Take in a point, unless it is beaten; those that it beats leave."""
        if self.beats(values):
            return
        stays = ~((self.points >= values).all(axis=1) & (self.points > values).any(axis=1))
        self.points = np.vstack((self.points[stays], values))
        self.members = [self.members[at] for at in np.flatnonzero(stays)] + [member]
