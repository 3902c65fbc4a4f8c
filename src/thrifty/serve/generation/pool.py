"""`Pool`: which pages of a cache are whose, and which are known by what they hold; numbers alone."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from itertools import takewhile


class Pool:
    """Pages that texts take as they grow and give back when they end.

    A text is let in when all that it may ever need can be promised to it, so that no text that was begun has to wait
    for another's pages. The lowest free page is taken first: what is in use lies close together.

    Pages that are full and will not change can be named. Texts that want what they hold share them; once no text holds
    them they are kept for the next one, until their room is needed: then those go first that were left longest ago.

    Args:
        pages: how many there are.

    >>> pool = Pool(4)
    >>> pool.promise(3), pool.promise(2)
    ([], None)
    >>> pages = [pool.take(), pool.take()]
    >>> pool.name(b"once upon", pages)
    >>> pool.give_back(pages, 1)
    >>> pool.used, pool.kept, pool.free
    (0, 2, 2)
    >>> pool.promise(3, [b"once upon", b" a time"])
    [0, 1]
    """

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self._free = list(range(pages))
        self._promised = 0  # and not taken yet
        self._holders: dict[int, int] = {}
        self._known: dict[bytes, list[int]] = {}
        self._names: dict[int, bytes] = {}
        # known pages that no text holds, by name, those left longest ago first
        self._left: dict[bytes, None] = {}

    @property
    def used(self) -> int:
        """Pages that texts hold, each counted once."""
        return len(self._holders)

    @property
    def free(self) -> int:
        """Pages that hold nothing."""
        return len(self._free)

    @property
    def kept(self) -> int:
        """Pages that no text holds, and that hold what one may want again."""
        return self.pages - self.used - self.free

    def promise(self, pages: int, names: Sequence[bytes] = ()) -> list[int] | None:
        """Promise a text so many pages in all, and have it hold the known ones among its first at once.

        Args:
            pages: that it may ever need.
            names: of what its first pages are to hold, in order.

        Returns:
            Pages that it holds from now on; None where there is not as much room.
        """
        known = [page for name in takewhile(self._known.__contains__, names) for page in self._known[name]]
        woken = sum(page not in self._holders for page in known)
        if self.used + woken + self._promised + pages - len(known) > self.pages:
            return None
        self._promised += pages - len(known)
        for page in known:
            self._holders[page] = self._holders.get(page, 0) + 1
            self._left.pop(self._names[page], None)
        return known

    def share(self, name: bytes) -> list[int]:
        """Have a text hold the pages that are known by a name in the place of as many that it was promised, if any."""
        return self.promise(0, [name]) or []

    def take(self) -> int:
        """Take the lowest free page of what was promised; where none is free, after forgetting known ones."""
        if not self._free:
            self._forget(next(iter(self._left)))
        page = heapq.heappop(self._free)
        self._promised -= 1
        self._holders[page] = 1
        return page

    def name(self, name: bytes, pages: Sequence[int]) -> None:
        """Let pages that a text holds, full ones, be known by what they hold; where others are, they stay its own."""
        if name not in self._known:
            self._known[name] = list(pages)
            self._names.update(dict.fromkeys(pages, name))

    def give_back(self, pages: Sequence[int], promised: int) -> None:
        """Take back a text's pages, and the promise of those that it did not take."""
        self._promised -= promised
        # from its end, so that what is forgotten first is what is of no use without the rest
        for page in reversed(pages):
            self._holders[page] -= 1
            if self._holders[page]:
                continue
            del self._holders[page]
            if page in self._names:
                self._left[self._names[page]] = None
            else:
                heapq.heappush(self._free, page)

    def _forget(self, name: bytes) -> None:
        del self._left[name]
        for page in self._known.pop(name):
            del self._names[page]
            heapq.heappush(self._free, page)

    def closer(self) -> dict[int, int]:
        """Say where pages are to move when held ones lie far apart, over twice as wide as they need; they move at once.

        What is kept where a held page goes changes places with it.

        >>> pool = Pool(8)
        >>> _, pages = pool.promise(6), [pool.take() for _ in range(6)]
        >>> pool.give_back(pages[:4], 0)
        >>> pool.closer()
        {5: 0, 4: 1}
        """
        count = len(self._holders)
        if not count or max(self._holders) + 1 <= 2 * count:
            return {}
        beyond = sorted((page for page in self._holders if page >= count), reverse=True)
        moves = dict(zip(beyond, (page for page in range(count) if page not in self._holders), strict=True))
        moves |= {hole: page for page, hole in moves.items() if hole in self._names}
        self._move(moves)
        return moves

    def _move(self, moves: Mapping[int, int]) -> None:
        self._holders = {moves.get(page, page): texts for page, texts in self._holders.items()}
        self._names = {moves.get(page, page): name for page, name in self._names.items()}
        self._known = {name: [moves.get(page, page) for page in pages] for name, pages in self._known.items()}
        places = set(moves.values())
        self._free = [page for page in (*self._free, *moves) if page not in places]
        heapq.heapify(self._free)
