"""Energy counters that a machine may have: RAPL for processors, NVML for NVIDIA's boards."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Protocol

from thrifty.spec.device import Device

POWERCAP = Path("/sys/class/powercap")


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

    def __init__(self, root: Path = POWERCAP) -> None:
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
    """Joules of GPU boards by NVIDIA's management library (``pynvml``, Volta and later).

    Args:
        name: of the kind of board.
        boards: how many of them are in use.

    Raises:
        ImportError: the library's binding is not installed.
        OSError: the driver has no counter for such a GPU.
    """

    def __init__(self, name: str, boards: int = 1) -> None:
        import pynvml

        self._nvml: Any = pynvml
        try:
            pynvml.nvmlInit()
            handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
            named = [handle for handle in handles if _text(pynvml.nvmlDeviceGetName(handle)) == name]
            # Doubt: of several equal boards the first are in use, as CUDA numbers them unless told otherwise.
            self._handles = [(named or handles)[at] for at in range(boards)]
            self.joules()
        except (pynvml.NVMLError, IndexError) as error:
            raise OSError(f"no NVML energy counter: {error}") from error
        which = "the GPU" if boards == 1 else f"{boards} GPUs"
        self.method = f"NVML energy counter of {which}, the host not included"

    def joules(self) -> float:
        """Return joules since the driver was loaded."""
        return sum(float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(each)) for each in self._handles) / 1e3


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def best_counter(device: Device, powercap: Path = POWERCAP, boards: int = 1) -> Counter | None:
    """Return the energy counter that knows this device, or None when the machine has none that can be read."""
    try:
        return Nvml(device.name, boards) if device.kind == "cuda" else Rapl(powercap)
    except (ImportError, OSError, ValueError):
        return None
