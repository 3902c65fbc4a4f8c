"""The meter: what a stage took of time, processor, memory, storage, energy and money, and how each was got."""

from __future__ import annotations

import contextlib
import resource
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from thrifty.ledger.counters import POWERCAP, Rapl, best_counter
from thrifty.ledger.highwater import PROC, on_device, resident
from thrifty.spec.cost import Spent
from thrifty.spec.device import Device
from thrifty.spec.layout import arithmetic_of

# A package's counter wraps after its range, on servers under load within some twenty minutes.
_RAPL_SECONDS = 30.0

# The marks belong to the process, so all meters share them.
_RESIDENT = resident()
_ON_DEVICE = on_device()


def _written_bytes(proc: Path = PROC) -> int:
    """Bytes this process caused to be written to storage; children's are not in it, nor what goes to memory disks."""
    try:
        fields = dict(line.split(": ") for line in (proc / "io").read_text().splitlines())
        return int(fields["write_bytes"])
    except (OSError, KeyError, ValueError):
        # Blocks of 512 bytes; see getrusage(2).
        return resource.getrusage(resource.RUSAGE_SELF).ru_oublock * 512


def _cpu_seconds() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


@dataclass(frozen=True)
class _Reading:
    wall_s: float
    cpu_s: float
    written_bytes: int
    joules: float
    counted_by: str


@dataclass(frozen=True)
class _Final:
    reading: _Reading
    rss_peak: int
    device_peak: int


class Stage:
    """One stretch of work being metered; made by `Meter.stage`."""

    def __init__(self, meter: Meter, peak_above: int | None) -> None:
        self._meter = meter
        self._final: _Final | None = None
        self._rss_key, now = _RESIDENT.begin()
        self._rss_start = now if peak_above is None else peak_above
        self._device_key, _ = _ON_DEVICE.begin()
        self._start = meter.read()

    def spent(self, flops: float = 0.0, precision: str = "fp32") -> Spent:
        """Say what the stage took until now, or until it ended.

        Args:
            flops: operations that it did.
            precision: they were done at; ``peak_share`` is 0 where the device has no measured rate for it.
        """
        final = self._final or _Final(
            self._meter.read(), _RESIDENT.peak(self._rss_key), _ON_DEVICE.peak(self._device_key)
        )
        return self._meter.bill(self._start, final, self._rss_start, flops, precision)

    def close(self) -> None:
        """End the stage: what it spent stands still from here."""
        if self._final is None:
            reading = self._meter.read()
            self._final = _Final(reading, _RESIDENT.end(self._rss_key), _ON_DEVICE.end(self._device_key))


class Meter:
    """Meters stages of work on a device; stages may lie in one another and overlap.

    Processor time, memory, writes and energy are the whole process's, so of two stages at once each shows both.

    Args:
        device: whose watts, price and peak the figures are derived from.
        powercap: folder of the RAPL counters.
        boards: accelerators of its kind that work together; watts and price of ``device`` are those of all of them.
    """

    def __init__(self, device: Device, *, powercap: Path = POWERCAP, boards: int = 1) -> None:
        self._device = device
        self._counter = best_counter(device, powercap, boards)
        self._stages = 0
        self._wake = threading.Condition()
        self._rested_s, self._rested_joules = 0.0, 0.0
        self._resting_since: _Reading | None = None

    @contextlib.contextmanager
    def stage(self, *, peak_above: int | None = None) -> Iterator[Stage]:
        """Meter the work of a ``with`` block; the stage can be asked in it and after it, also when the work failed.

        Args:
            peak_above: resident bytes above which peak memory is counted; those at the beginning when left out.
        """
        stage = Stage(self, peak_above)
        with self._counting():
            try:
                yield stage
            finally:
                stage.close()

    @contextlib.contextmanager
    def _counting(self) -> Iterator[None]:
        """Look at the energy counter now and then while a stage is open, so that no wrap goes unseen."""
        with self._wake:
            self._stages += 1
            if self._stages == 1 and isinstance(self._counter, Rapl):
                threading.Thread(target=self._look, name="thrifty-energy", daemon=True).start()
        try:
            yield
        finally:
            with self._wake:
                self._stages -= 1
                self._wake.notify_all()

    def _look(self) -> None:
        with self._wake:
            while self._stages:
                self._wake.wait(_RAPL_SECONDS)
                self._joules()

    def _joules(self) -> tuple[float, str]:
        """Joules counted and by what; nothing by nothing without a counter."""
        counter = self._counter
        if counter is None:
            return 0.0, ""
        try:
            return counter.joules(), counter.method
        except (OSError, ValueError):
            # The counter went away while it was read: from here the declared watts must do.
            self._counter = None
            return 0.0, ""

    def rest(self) -> None:
        """Have time, energy and money stand still until `go_on`: work that waits is compared with no prediction."""
        self._resting_since = self._resting_since or self._read()

    def go_on(self) -> None:
        """Go on metering after `rest`; without one nothing changes."""
        if self._resting_since is not None:
            now, since = self._read(), self._resting_since
            self._rested_s += now.wall_s - since.wall_s
            # a counter that went away meanwhile counts nothing any more
            self._rested_joules += max(0.0, now.joules - since.joules)
            self._resting_since = None

    def read(self) -> _Reading:
        """Read all that only grows, without what it was while resting."""
        now = self._resting_since or self._read()
        return replace(now, wall_s=now.wall_s - self._rested_s, joules=now.joules - self._rested_joules)

    def _read(self) -> _Reading:
        return _Reading(time.perf_counter(), _cpu_seconds(), _written_bytes(), *self._joules())

    def bill(self, start: _Reading, final: _Final, rss_start: int, flops: float, precision: str) -> Spent:
        """Make the bill of a stage from its first and last reading."""
        device, end = self._device, final.reading
        wall_s, cpu_s = end.wall_s - start.wall_s, end.cpu_s - start.cpu_s
        joules, joules_method = self._declared(wall_s, cpu_s)
        if start.counted_by and end.counted_by:
            joules, joules_method = end.joules - start.joules, end.counted_by
        rate = device.flops_per_second.get(arithmetic_of(precision))
        price = device.usd_per_hour
        return Spent(
            wall_s=wall_s,
            cpu_s=cpu_s,
            peak_rss_bytes=max(0, final.rss_peak - rss_start),
            device_peak_bytes=final.device_peak if device.kind == "cuda" else 0,
            written_bytes=end.written_bytes - start.written_bytes,
            flops=flops,
            peak_share=flops / wall_s / rate.value if rate and rate.value > 0 and wall_s > 0 else 0.0,
            joules=joules,
            joules_method=joules_method,
            usd=wall_s * price.value / 3600,
            usd_method=f"{price.value:g} USD an hour: {price.source}",
        )

    def _declared(self, wall_s: float, cpu_s: float) -> tuple[float, str]:
        device = self._device
        watts = f"{device.idle_watts.value:.3g} W idle to {device.busy_watts.value:.3g} W busy"
        if device.kind == "cuda":
            share, used = 1.0, "taken as busy throughout"
        else:
            share = cpu_s / (wall_s * device.cores) if wall_s > 0 else 0.0
            used = f"by the processor time used of {device.cores} cores"
        source = device.busy_watts.source.split(";")[0]
        said = f"declared {watts}, {used}: no energy counter can be read here; {source} (thrifty hardware says more)"
        return device.watts(share) * wall_s, said
