"""`Pool`: which pages of a cache are whose; numbers alone."""

from __future__ import annotations

import heapq
from collections.abc import Iterable


class Pool:
    """Pages that texts take as they grow and give back when they end.

    A text is let in when all that it may ever need can be promised to it, so that no text that was begun has to wait
    for another's pages. The lowest free page is taken first: what is in use lies close together.

    Args:
        pages: how many there are.

    >>> pool = Pool(4)
    >>> pool.promise(3), pool.promise(2)
    (True, False)
    >>> pool.take(), pool.take(), pool.used, pool.free
    (0, 1, 2, 2)
    """

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self._free = list(range(pages))
        self._promised = 0

    @property
    def used(self) -> int:
        """Pages that texts hold."""
        return self.pages - len(self._free)

    @property
    def free(self) -> int:
        """Pages that no text holds."""
        return len(self._free)

    def promise(self, pages: int) -> bool:
        """Promise so many pages, held ones counted, or say that there are not as many."""
        if self._promised + pages > self.pages:
            return False
        self._promised += pages
        return True

    def take(self) -> int:
        """Take the lowest free page of what was promised."""
        return heapq.heappop(self._free)

    def give_back(self, pages: Iterable[int], promised: int) -> None:
        """Take back a text's pages and the promise."""
        for page in pages:
            heapq.heappush(self._free, page)
        self._promised -= promised

    def closer(self, held: Iterable[int]) -> dict[int, int]:
        """Say where pages are to move when they lie far apart, over twice as wide as they need; they move at once.

        >>> pool = Pool(8)
        >>> pages = [pool.take() for _ in range(6)]
        >>> pool.give_back(pages[:4], 0)
        >>> pool.closer([4, 5])
        {5: 0, 4: 1}
        """
        there = sorted(held)
        if not there or there[-1] + 1 <= 2 * len(there):
            return {}
        moves: dict[int, int] = {}
        for page in reversed(there):
            if self._free[0] > page:
                break
            moves[page] = heapq.heappop(self._free)
        for page in moves:
            heapq.heappush(self._free, page)
        return moves
