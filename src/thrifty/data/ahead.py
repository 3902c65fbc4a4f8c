"""A little work done ahead of its use, by threads; what comes out is in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")

THREADS = 2


def work_ahead(work: Callable[[Item], Found], items: Iterable[Item]) -> Iterator[Found]:
    """Do something to each item; at most two results wait to be used.

    >>> list(work_ahead(str, [3, 1, 2]))
    ['3', '1', '2']
    """
    with ThreadPoolExecutor(THREADS) as pool:
        left = iter(items)
        coming: deque[Future[Found]] = deque(pool.submit(work, item) for item in islice(left, THREADS))
        while coming:
            found = coming.popleft().result()
            coming.extend(pool.submit(work, item) for item in islice(left, 1))
            yield found


def read_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Go through what is no None, and have the next one made while one is used.

    >>> list(read_ahead(iter("abc")))
    ['a', 'b', 'c']
    """
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item
