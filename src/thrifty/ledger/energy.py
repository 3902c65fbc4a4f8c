"""The meter: what a stage took of time, processor, memory, storage, energy and money, and how each was got."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from thrifty.spec.cost import Spent
from thrifty.spec.device import Device

_PROC = Path("/proc/self")
_POWERCAP = Path("/sys/class/powercap")
_SAMPLE_SECONDS = 0.02
# A package's counter wraps after its range, on servers under load within some twenty minutes.
_RAPL_SECONDS = 30.0


class Counter(Protocol):
    """Joules since some moment, never falling, and in words what counted them."""

    method: str

    def joules(self) -> float: ...


class Rapl:
    """Joules of all processor packages by Intel's and AMD's running average power limit counters.

    Counts the packages whole: what other processes used is in it; memory and the rest of the machine are not.

    Args:
        root: the folder of powercap.

    Raises:
        OSError: there is no readable counter.
    """

    def __init__(self, root: Path = _POWERCAP) -> None:
        zones = sorted(root.glob("intel-rapl:*"))
        # One colon: the zones of packages and of the platform, without their cores and memory.
        tops = [zone for zone in zones if zone.name.count(":") == 1]
        self._packages = [zone for zone in tops if (zone / "name").read_text().strip().startswith("package")]
        if not self._packages:
            raise FileNotFoundError(f"no package counter under {root}")
        self._ranges = [int((zone / "max_energy_range_uj").read_text()) for zone in self._packages]
        self._last = self._read()
        self._total_uj = 0
        self._lock = threading.Lock()
        self.method = f"RAPL counters of {len(self._packages)} processor package(s), other processes included"

    def joules(self) -> float:
        """Add up what was used since the last look; to be asked more often than a counter wraps."""
        with self._lock:
            now = self._read()
            for before, after, size in zip(self._last, now, self._ranges, strict=True):
                self._total_uj += after - before if after >= before else after - before + size
            self._last = now
            return self._total_uj / 1e6

    def _read(self) -> list[int]:
        return [int((zone / "energy_uj").read_text()) for zone in self._packages]


class Nvml:
    """Joules of one GPU board by NVIDIA's management library (``pynvml``, Volta and later).

    Raises:
        ImportError: the library's binding is not installed.
        OSError: the driver has no counter for such a GPU.
    """

    def __init__(self, name: str) -> None:
        import pynvml

        self._nvml: Any = pynvml
        try:
            pynvml.nvmlInit()
            handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
            named = [handle for handle in handles if _text(pynvml.nvmlDeviceGetName(handle)) == name]
            # Doubt: of several equal boards it is the first that is in use, as CUDA numbers them unless told otherwise.
            self._handle = (named or handles)[0]
            self.joules()
        except (pynvml.NVMLError, IndexError) as error:
            raise OSError(f"no NVML energy counter: {error}") from error
        self.method = "NVML energy counter of the GPU, the host not included"

    def joules(self) -> float:
        """Return joules since the driver was loaded."""
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


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


def resident(proc: Path = _PROC) -> HighWater:
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
            time.sleep(_SAMPLE_SECONDS)
            with self._lock:
                if not self._open:
                    self._watching = False
                    return
                self._look()


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


def _on_device() -> HighWater:
    def call(name: str) -> int:
        cuda = _cuda()
        return int(getattr(cuda, name)() or 0) if cuda else 0

    def reset() -> None:
        call("reset_peak_memory_stats")

    return HighWater(lambda: call("memory_allocated"), lambda: call("max_memory_allocated"), reset)


# The marks belong to the process, so all meters share them.
_RESIDENT = resident()
_ON_DEVICE = _on_device()


def _written_bytes(proc: Path = _PROC) -> int:
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


def best_counter(device: Device, powercap: Path = _POWERCAP) -> Counter | None:
    """Return the energy counter that knows this device, or None when the machine has none that can be read."""
    try:
        return Nvml(device.name) if device.kind == "cuda" else Rapl(powercap)
    except (ImportError, OSError, ValueError):
        return None


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

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._final: _Final | None = None
        self._rss_key, self._rss_start = _RESIDENT.begin()
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
    """

    def __init__(self, device: Device, *, powercap: Path = _POWERCAP) -> None:
        self._device = device
        self._counter = best_counter(device, powercap)
        self._stages = 0
        self._wake = threading.Condition()

    @contextlib.contextmanager
    def stage(self) -> Iterator[Stage]:
        """Meter the work of a ``with`` block; the stage can be asked in it and after it, also when the work failed."""
        stage = Stage(self)
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

    def read(self) -> _Reading:
        """Read all that only grows."""
        return _Reading(time.perf_counter(), _cpu_seconds(), _written_bytes(), *self._joules())

    def bill(self, start: _Reading, final: _Final, rss_start: int, flops: float, precision: str) -> Spent:
        """Make the bill of a stage from its first and last reading."""
        device, end = self._device, final.reading
        wall_s, cpu_s = end.wall_s - start.wall_s, end.cpu_s - start.cpu_s
        joules, joules_method = self._declared(wall_s, cpu_s)
        if start.counted_by and end.counted_by:
            joules, joules_method = end.joules - start.joules, end.counted_by
        rate = device.flops_per_second.get(precision)
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
            used = f"at {min(share, 1.0):.0%} utilisation of {device.cores} cores"
        said = f"declared {watts} {used}; no energy counter can be read here; {device.busy_watts.source}"
        return device.watts(share) * wall_s, said
