"""`WorkerLostError`: what computes a model is gone, and with it what it was computing."""

from __future__ import annotations


class WorkerLostError(Exception):
    """A worker died or hung, or cannot be started; the next call starts it again.

    Attributes:
        by_rows: whether rows were being computed, so that one of them may be at fault.
    """

    def __init__(self, what: str, *, by_rows: bool) -> None:
        super().__init__(what)
        self.by_rows = by_rows
