"""The next steps' batches, made by a thread while a step is computed: the same batches in the same order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from thrifty.data.batches import Batches
from thrifty.data.samples import Batch

# One step that waits hides what a batch takes in the mean; the second hides that some take longer than a step.
STEPS_AHEAD = 2


class Ahead:
    """Makes the steps of `Batches`, those that follow before they are asked for.

    A context, at whose end its thread ends: it waits for the step being made, no longer. What a step holds depends on
    its number alone, so whether it is made ahead changes nothing. An error in making a step is raised, with its trace,
    where that step is asked for.

    Args:
        batches: of the run; nobody else asks them meanwhile.
        steps: that wait or are being made, at most; with 0 each is made when it is asked for, and there is no thread.
        following: the step that will be asked for after one; None where there is none.

    >>> import numpy as np
    >>> class Numbers:
    ...     micro = 1
    ...     def step(self, index):
    ...         return [{"x": np.full(2, index)}]
    >>> with Ahead(Numbers(), 2, lambda step: step + 1) as ahead:
    ...     [int(ahead.step(index)[0]["x"].sum()) for index in (0, 1, 7)]
    [0, 2, 14]
    """

    def __init__(self, batches: Batches, steps: int, following: Callable[[int], int | None]) -> None:
        assert steps >= 0
        self._batches, self._steps, self._following = batches, steps, following
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="thrifty-batches") if steps else None
        self._coming: deque[tuple[int, Future[list[Batch]]]] = deque()

    def __enter__(self) -> Ahead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._coming.clear()
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    @property
    def micro(self) -> int:
        """Samples computed at once, at most; what was made for another number is thrown away."""
        return self._batches.micro

    @micro.setter
    def micro(self, samples: int) -> None:
        if samples != self._batches.micro:
            self._forget()
            self._batches.micro = samples

    def step(self, index: int) -> list[Batch]:
        """Return the micro-batches of a step as `Batches.step` does, and have those that follow made."""
        if self._thread is None:
            return self._batches.step(index)
        if not self._coming or self._coming[0][0] != index:
            self._forget()
            self._order(index)
        parts = self._coming.popleft()[1].result()
        last: int | None = self._coming[-1][0] if self._coming else index
        while len(self._coming) < self._steps and last is not None and (last := self._following(last)) is not None:
            self._order(last)
        return parts

    def _order(self, index: int) -> None:
        assert self._thread is not None
        self._coming.append((index, self._thread.submit(self._batches.step, index)))

    def _forget(self) -> None:
        """Wait until the thread is at rest, and throw away what it made."""
        for _, made in self._coming:
            if not made.cancel():
                made.exception()
        self._coming.clear()
