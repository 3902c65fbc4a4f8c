"""Tells how far the work on some files has come, a few times a second."""

from __future__ import annotations

import time

from thrifty.spec.events import Emit, Progress

_SECONDS_BETWEEN = 0.2


class Teller:
    """Counts files and emits `Progress` of stage ``prepare`` now and then, and when the last is done."""

    def __init__(self, total: int, emit: Emit) -> None:
        self._total, self._emit, self._done = total, emit, 0
        self._told = time.monotonic()

    def count(self, files: int) -> None:
        """Note that some more files are done."""
        self._done += files
        now = time.monotonic()
        if self._done == self._total or now - self._told >= _SECONDS_BETWEEN:
            self._told = now
            self._emit(Progress("prepare", self._done, self._total, "files"))
