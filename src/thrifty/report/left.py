"""`Left`: what a run left beside its plan, its events and its bill, each where it came so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from thrifty.spec import Compression
from thrifty.spec.answering import Answering
from thrifty.spec.beside import Beside
from thrifty.spec.mistakes import Mistakes
from thrifty.spec.traced import Traced


@dataclass(frozen=True)
class Left:
    """Parts of a page that not every run has.

    Attributes:
        traced: where memory and time of a step go.
        mistakes: the worst answers to the test split, and the calibration.
        beside: another trainer's curves.
        answerings: what servers measured of its bundle.
        compression: of its bundle.
    """

    traced: Traced | None = None
    mistakes: Mistakes | None = None
    beside: Beside | None = None
    answerings: Sequence[Answering] = ()
    compression: Compression | None = None


NOTHING_LEFT = Left()
