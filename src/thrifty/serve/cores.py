"""The machine's cores shared out by model, so that two that compute at once do not fight for them.

A model's process is kept to its cores by the system, and torch has as many threads there; a runtime that counts the
cores it may use when it loads (OpenVINO) finds the same. What is left idle by one model is not lent to another: a
share that is sure is worth more to a deadline than one that comes and goes.

A container may see all cores of its machine and be granted the time of a few: then there are fewer threads than cores.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from functools import cache

from thrifty.hardware.cgroup import cpu_quota


def here() -> list[int]:
    """Return the cores that this process may use; all, where the system keeps none to some."""
    allowed = getattr(os, "sched_getaffinity", None)
    return sorted(allowed(0)) if allowed else list(range(os.cpu_count() or 1))


def shares(names: Iterable[str], cores: Sequence[int]) -> dict[str, list[int]]:
    """Return the cores of each name: neighbours, all different while there are enough, else one each in turn.

    Versions of a name share its cores: they are swapped, not raced.

    >>> shares(["cats", "dogs"], [0, 1, 2])
    {'cats': [0, 1], 'dogs': [2]}
    >>> shares(["a", "b", "c"], [0, 1])
    {'a': [0], 'b': [1], 'c': [0]}
    """
    unique = list(dict.fromkeys(names))
    if len(unique) > len(cores):
        return {name: [cores[number % len(cores)]] for number, name in enumerate(unique)}
    edges = [-(-number * len(cores) // max(1, len(unique))) for number in range(len(unique) + 1)]
    return {name: list(cores[edges[number] : edges[number + 1]]) for number, name in enumerate(unique)}


def threads(cores: Sequence[int]) -> int:
    """Return how many threads compute on these cores: one each, as far as the system grants their time.

    >>> 1 <= threads([0, 1]) <= 2
    True
    """
    return max(1, math.ceil(min(len(cores), _granted())))


@cache
def _granted() -> float:
    quota = cpu_quota()
    return math.inf if quota is None else quota[0]
