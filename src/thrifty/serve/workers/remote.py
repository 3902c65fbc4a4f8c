"""`Remote`: the engine of a language model in a process of its own, which can die and be started again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from thrifty.serve.generation.turn import NO_MOVES, Outcome, Room, Turn
from thrifty.serve.workers.process import Process


class Remote:
    """Takes steps elsewhere; called by one thread at a time.

    Args:
        process: started with an order that ``writes``.
        patience: seconds after which a step counts as hung.
    """

    def __init__(self, process: Process, patience: float) -> None:
        self._process, self._patience = process, patience

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all its processes so far."""
        return self._process.cpu_seconds

    def begin(self) -> Room:
        """Start the process if there is none, and say what room it has; `Steps.begin` says the rest."""
        return msgspec.convert(self._process.begin()["room"], Room)

    def take(
        self, turns: Sequence[Turn], *, fresh: Sequence[int] = (), moves: Mapping[int, int] = NO_MOVES
    ) -> list[Outcome]:
        """Take a step; `Steps.take` says the rest."""
        step = {"turns": turns, "fresh": fresh, "moves": dict(moves)}
        return msgspec.convert(self._process.ask({"step": step}, self._patience)["outcomes"], list[Outcome])
