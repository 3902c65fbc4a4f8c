"""What a language model is asked in one step, and what it answers: plain values, which can go to another process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from thrifty.models.paged import Part
from thrifty.models.wishes import Wishes
from thrifty.serve.generation.order import Told

NO_MOVES: Mapping[int, int] = {}


@dataclass(frozen=True)
class Turn:
    """A text's share of a step.

    Attributes:
        part: tokens that are read.
        wishes: how the token after them is chosen; None where there is more to read first.
        number: that it is drawn by, from 0 up to but not 1.
        likeliest: tell so many likeliest tokens in its place; None tells no probability.
    """

    part: Part
    wishes: Wishes | None = None
    number: float = 0.0
    likeliest: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a turn: nothing yet, a token, or why there is none.

    Attributes:
        token: that follows; None where more is to be read first, or it failed.
        told: of that token, where probabilities were asked for.
        failed: what went wrong with this text; empty otherwise.
    """

    token: int | None = None
    told: Told | None = None
    failed: str = ""


@dataclass(frozen=True)
class Room:
    """How much a model keeps of texts.

    Attributes:
        length: the longest context: the model's, or what the cache holds.
        pages: of the cache.
    """

    length: int
    pages: int


class Steps(Protocol):
    """A language model that takes steps for many texts at once, here or in a process of its own."""

    @property
    def cpu_seconds(self) -> float:
        """Processor time so far of what computes."""

    def begin(self) -> Room:
        """Have it ready to take steps, if it is not; with nothing in its pages where it was not.

        Raises:
            WorkerLostError: it cannot be started.
        """

    def take(
        self, turns: Sequence[Turn], *, fresh: Sequence[int] = (), moves: Mapping[int, int] = NO_MOVES
    ) -> list[Outcome]:
        """Take a step.

        Args:
            turns: those whose part is one token first.
            fresh: pages that are new to their texts, and hold nothing.
            moves: pages to copy to their new places, before all else.

        Raises:
            WorkerLostError: it died or hung; what its pages held is lost.
        """
