"""`Recent`: how long the latest requests of each model took, so that people are told of now and not of all time.

Units: seconds.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence

MOST = 2048  # of one model


class Recent:
    """The latest requests of each model; added to by one thread, read by any.

    >>> recent = Recent()
    >>> for seconds in (0.1, 0.2, 0.4):
    ...     recent.add("pets:1", seconds)
    >>> recent.quantiles("pets:1", (0.5, 0.99))
    [0.2, 0.4]
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._took: dict[str, deque[tuple[float, float]]] = {}

    def add(self, model: str, seconds: float) -> None:
        """Take in a request that has just been answered."""
        took = self._took.get(model)
        if took is None:
            took = self._took[model] = deque(maxlen=self._most)
        took.append((time.monotonic(), seconds))

    def quantiles(self, model: str, shares: Sequence[float], *, within_s: float = math.inf) -> list[float]:
        """Seconds that these shares of the latest requests took at most, each a real request's.

        Args:
            model: its label.
            shares: from 0 to 1.
            within_s: looks back so far only.

        Returns:
            One for each share; empty where there was no request.
        """
        since = time.monotonic() - within_s
        took = sorted(seconds for at, seconds in self._took.get(model, deque()).copy() if at >= since)
        return [took[max(0, math.ceil(share * len(took)) - 1)] for share in shares] if took else []

    def forget(self, model: str) -> None:
        """Let go of a model that left."""
        self._took.pop(model, None)
