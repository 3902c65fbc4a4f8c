"""Tells how far the work on files or rows has come, a few times a second."""

from __future__ import annotations

import time

from thrifty.spec.events import Emit, Progress

_SECONDS_BETWEEN = 0.2


class Teller:
    """Counts files, or what ``unit`` says, and emits `Progress` of stage ``prepare`` now and then, and at the last."""

    def __init__(self, total: int, emit: Emit, unit: str = "files") -> None:
        self._total, self._emit, self._unit, self._done = total, emit, unit, 0
        self._told = time.monotonic()

    def count(self, more: int) -> None:
        """Note that some more are done."""
        self._done += more
        now = time.monotonic()
        if self._done == self._total or now - self._told >= _SECONDS_BETWEEN:
            self._told = now
            self._emit(Progress("prepare", self._done, self._total, self._unit))
