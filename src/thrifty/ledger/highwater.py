"""Peak memory, of the process and of the accelerator, kept apart for stages that lie in one another."""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROC = Path("/proc/self")
SAMPLE_SECONDS = 0.02


class HighWater:
    """The highest value of something whose own mark all stages of a process share, kept apart for each of them.

    The mark can only be reset for everybody. So before a stage resets it, what it stood at is noted for every stage
    that is open: stages may lie in one another or overlap, also in threads.

    Args:
        now: the value at present.
        mark: the highest since the last reset.
        reset: lower the mark to the present value.
    """

    def __init__(self, now: Callable[[], int], mark: Callable[[], int], reset: Callable[[], None]) -> None:
        self._now, self._mark, self._reset = now, mark, reset
        self._open: dict[object, int] = {}
        self._lock = threading.Lock()

    def begin(self) -> tuple[object, int]:
        """Open a stage; returns its key and the present value."""
        with self._lock:
            self._fold()
            self._reset()
            key, now = object(), self._now()
            self._open[key] = now
            return key, now

    def peak(self, key: object) -> int:
        """Return the highest value since the stage was opened."""
        with self._lock:
            self._fold()
            return self._open[key]

    def end(self, key: object) -> int:
        """Close the stage; returns its highest value."""
        with self._lock:
            self._fold()
            return self._open.pop(key)

    def _fold(self) -> None:
        mark = self._mark() if self._open else 0
        self._open = {key: max(peak, mark) for key, peak in self._open.items()}


def resident(proc: Path = PROC) -> HighWater:
    """Watch this process's resident memory: by the kernel's own mark, or by sampling where that cannot be reset.

    Without ``/proc`` the mark is that of getrusage, which never falls: a stage below an earlier peak then shows 0.
    """
    if not (proc / "status").exists():
        return HighWater(_maxrss_bytes, _maxrss_bytes, lambda: None)
    try:
        # Opened, not written: importing the meter must not lower a mark that others may read.
        os.close(os.open(proc / "clear_refs", os.O_WRONLY))
    except OSError:
        return _Sampled(proc)
    return HighWater(lambda: _status_bytes(proc, "VmRSS"), lambda: _status_bytes(proc, "VmHWM"), lambda: _clear(proc))


class _Sampled(HighWater):
    """Resident memory looked at fifty times a second while a stage is open; shorter peaks are missed."""

    def __init__(self, proc: Path) -> None:
        self._highest, self._watching = 0, False
        self._sample = lambda: _status_bytes(proc, "VmRSS")
        super().__init__(self._sample, self._look, self._lower)

    def _look(self) -> int:
        self._highest = max(self._highest, self._sample())
        return self._highest

    def _lower(self) -> None:
        self._highest = self._sample()
        if not self._watching:
            self._watching = True
            threading.Thread(target=self._watch, name="thrifty-resident", daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(SAMPLE_SECONDS)
            with self._lock:
                if not self._open:
                    self._watching = False
                    return
                self._look()


def resident_bytes(proc: Path = PROC) -> int:
    """Resident memory of this process now; its peak so far where the system does not tell."""
    return _status_bytes(proc, "VmRSS") if (proc / "status").exists() else _maxrss_bytes()


def _clear(proc: Path) -> None:
    # "5" resets the peak resident set size to the present one; see proc_pid_clear_refs(5).
    (proc / "clear_refs").write_text("5")


def _status_bytes(proc: Path, field: str) -> int:
    for line in (proc / "status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return 0


def _maxrss_bytes() -> int:
    # Bytes on macOS, KiB elsewhere; see getrusage(2).
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _cuda() -> Any:
    """Return ``torch.cuda`` when something else has loaded and started it; the meter itself loads no torch."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def on_device() -> HighWater:
    def call(name: str) -> int:
        cuda = _cuda()
        return int(getattr(cuda, name)() or 0) if cuda else 0

    def reset() -> None:
        call("reset_peak_memory_stats")

    return HighWater(lambda: call("memory_allocated"), lambda: call("max_memory_allocated"), reset)
