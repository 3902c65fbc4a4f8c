"""Time short work on the CPU, and notice when other processes took the cores meanwhile."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

Work = Callable[[], object]
# a rest after a disturbed try, for what disturbed it to pass
_REST_S = 0.01


class Timing(NamedTuple):
    """Seconds of a few repeats; ``clean`` when in at least half of them no thread lost its core."""

    seconds: tuple[float, ...]
    clean: bool

    @property
    def median_s(self) -> float:
        """The median of the repeats."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Median deviation from the median, as a share of it."""
        return statistics.median(abs(each - self.median_s) for each in self.seconds) / self.median_s


def once(work: Work, burst: int = 1) -> tuple[float, int]:
    """Seconds of one call, as the mean of a burst, and how often a thread lost its core meanwhile.

    Threads wait for each other spinning, so one that loses its core costs them all a slice of the scheduler's time.
    """
    switched = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    began = time.perf_counter()
    for _ in range(burst):
        work()
    taken_s = (time.perf_counter() - began) / burst
    return taken_s, resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - switched


def repeated(work: Work, repeats: int, *, burst: int = 1, before: Work | None = None) -> Timing:
    """Time so many undisturbed repeats; after twice as many tries, the best half of what there is.

    >>> len(repeated(lambda: sum(range(100)), 3).seconds) in (1, 3)
    True
    """
    clean: list[float] = []
    every: list[float] = []
    while len(clean) < repeats and len(every) < 2 * repeats:
        if before is not None:
            before()
        taken_s, switches = once(work, burst)
        every.append(taken_s)
        if switches:
            time.sleep(_REST_S)
        else:
            clean.append(taken_s)
    if 2 * len(clean) >= repeats:
        return Timing(tuple(clean), True)
    return Timing(tuple(sorted(every)[: max(repeats // 2, 1)]), False)
