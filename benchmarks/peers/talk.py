"""Says what a process does, in lines of JSON on stdout, each with the time of the machine's steady clock."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


class Talk:
    """Tells the parent what happens: ``ready`` before the first step, ``evaluated`` with figures, ``done`` at the end.

    Steps are kept in memory until something else is said, so that telling of them costs a step next to nothing.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[float, int, int]] = []
        self._highest = 0
        self.say("started")

    def step(self, samples: int, tokens: int = 0) -> None:
        """A step of so many samples, or tokens of them, has just ended."""
        self._steps.append((time.monotonic(), samples, tokens))

    def say(self, event: str, **facts: Any) -> None:
        """Say something now; steps since the last time go first."""
        if self._steps:
            at, samples, tokens = zip(*self._steps, strict=True)
            self._line("steps", at=at, samples=samples, tokens=tokens)
            self._steps = []
        self._line(event, at=time.monotonic(), **facts)

    def done(self, **facts: Any) -> None:
        """Say that all is done, and the most memory that this process had resident."""
        self.look()
        self.say("done", peak_bytes=self._highest, **facts)

    def look(self) -> None:
        """Look at the peak of resident memory: somebody is about to lower its mark."""
        self._highest = max(self._highest, peak_bytes())

    def _line(self, event: str, **facts: Any) -> None:
        # one write a line: tools write to stdout as well
        sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
        sys.stdout.flush()


def peak_bytes() -> int:
    """The most memory that was resident so far; 0 where the system does not tell.

    Not by getrusage, whose mark begins with what the parent held.
    """
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)
