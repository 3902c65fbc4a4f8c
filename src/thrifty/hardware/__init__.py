"""What this machine can do and costs: measured, declared and priced, as `Device`s.

``here()`` is the device to train on; ``devices()`` all of them. A measurement takes seconds and imports torch, so it is
kept in the cache folder; what the machine is, its datasheet and its price are looked up anew each time.
"""

from __future__ import annotations

import importlib.metadata
import re
import time
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import ValidationError

from thrifty.errors import JobError, StorageError
from thrifty.files import write_atomic
from thrifty.hardware.accelerators import gpu_datasheet
from thrifty.hardware.catalogue import cpu_datasheet
from thrifty.hardware.cluster import catalogue_clusters, catalogue_devices, catalogue_rows, find_cluster, find_device
from thrifty.hardware.measure import QUIET_SHARE, Measurement, measure_cpu, measure_cuda
from thrifty.hardware.prices import price
from thrifty.hardware.probe import Gpu, Probe, probe
from thrifty.spec.device import Device
from thrifty.spec.folders import cache_folder

__all__ = [
    "Comparison",
    "Gpu",
    "Probe",
    "catalogue_clusters",
    "catalogue_devices",
    "catalogue_rows",
    "comparison",
    "devices",
    "find_cluster",
    "find_device",
    "here",
    "probe",
]

_MAX_CACHE_BYTES = 8 << 20
# A measurement taken while other processes had the cores serves so long, then the machine is measured again.
_DISTURBED_SECONDS = 600.0


class Comparison(NamedTuple):
    """One figure of a device beside its datasheet; ``datasheet`` and ``share`` are None where there is none.

    Rates are in FLOP/s, or in bytes/s where ``quantity`` is ``memory``.
    """

    quantity: str
    measured: float
    datasheet: float | None
    share: float | None


def here(*, kind: Literal["cpu", "cuda"] | None = None, remeasure: bool = False) -> Device:
    """Return the best device to train on: a GPU that this torch can use, else the CPU.

    Args:
        kind: take this kind of device instead.
        remeasure: measure anew, also when there is a measurement in the cache.

    Raises:
        JobError: a GPU is asked for and there is none that this torch can use.
    """
    found = probe()
    if kind != "cpu":
        for index, gpu in enumerate(found.gpus):
            device = _gpu_device(found, gpu, index, remeasure)
            if device is not None:
                return device
    if kind == "cuda":
        seen = ", ".join(gpu.name for gpu in found.gpus) or "none found by nvidia-smi"
        raise JobError(f"no CUDA device that torch {_torch_version()} can use ({seen})", mend="Leave out kind=cuda.")
    return _cpu_device(found, remeasure)


def devices(*, remeasure: bool = False) -> tuple[Device, ...]:
    """Return every device that this torch can use, the best to train on first; see `here`."""
    found = probe()
    gpus = (_gpu_device(found, gpu, index, remeasure) for index, gpu in enumerate(found.gpus))
    return (*(gpu for gpu in gpus if gpu is not None), _cpu_device(found, remeasure))


def comparison(device: Device) -> list[Comparison]:
    """Set what was measured of a device beside its datasheet: rates by precision, then memory."""
    measured = {name: quantity.value for name, quantity in device.flops_per_second.items()}
    declared = {**device.datasheet_flops_per_second, **device.datasheet_bytes_per_second}
    rows = []
    for name, rate in {**measured, "memory": device.bytes_per_second.value}.items():
        peak = declared[name].value if name in declared else None
        rows.append(Comparison(name, rate, peak, rate / peak if peak else None))
    return rows


def _cpu_device(found: Probe, remeasure: bool) -> Device:
    path = _cache_path(f"{found.fingerprint}-cpu-{found.cores}-operators")
    done = None if remeasure else _cached(path)
    if done is None:
        last = max(found.cache_bytes.items(), default=("", 0))[1]
        done = measure_cpu(found.cores, last_cache_bytes=last, memory_bytes=found.memory_bytes)
        _keep(path, done)
    sheet = cpu_datasheet(found)
    return Device(
        name=found.name,
        kind="cpu",
        cores=found.cores,
        isa=found.isa,
        cache_bytes=found.cache_bytes,
        memory_bytes=found.memory_bytes,
        memory_source=found.memory_source,
        flops_per_second=done.flops_per_second,
        bytes_per_second=done.bytes_per_second,
        datasheet_flops_per_second=sheet.flops_per_second,
        datasheet_bytes_per_second=sheet.bytes_per_second,
        idle_watts=sheet.idle_watts,
        busy_watts=sheet.busy_watts,
        usd_per_hour=price("cpu", found.identity, cores=found.cores, memory_bytes=found.memory_bytes),
        measured_on=done.measured_on,
        disturbed=done.disturbed,
        kernels=done.kernels,
        calibration=sheet.calibration,
    )


def _gpu_device(found: Probe, gpu: Gpu, index: int, remeasure: bool) -> Device | None:
    if not _torch_has_cuda():
        return None
    path = _cache_path(f"{found.fingerprint}-{gpu.uuid}-{gpu.driver}-operators")
    done = None if remeasure else _cached(path)
    if done is None:
        done = measure_cuda(index, uuid=gpu.uuid)
        if done is None:
            return None
        _keep(path, done)
    sheet = gpu_datasheet(gpu)
    return Device(
        name=gpu.name,
        kind="cuda",
        cores=done.processors,
        isa=(),
        cache_bytes=done.cache_bytes,
        memory_bytes=gpu.memory_bytes,
        memory_source="installed memory of the GPU",
        flops_per_second=done.flops_per_second,
        bytes_per_second=done.bytes_per_second,
        datasheet_flops_per_second=sheet.flops_per_second,
        datasheet_bytes_per_second=sheet.bytes_per_second,
        idle_watts=sheet.idle_watts,
        busy_watts=sheet.busy_watts,
        usd_per_hour=price("cuda", gpu.name),
        measured_on=done.measured_on,
        host_cores=found.cores,
        kernels=done.kernels,
        calibration=sheet.calibration,
    )


def _torch_version() -> str:
    return importlib.metadata.version("torch")


def _torch_has_cuda() -> bool:
    """Whether torch was built for CUDA, as its version says; a build without the mark may, and is asked itself."""
    return not re.search(r"\+(cpu|rocm|xpu)", _torch_version())


def _cache_path(key: str) -> Path:
    name = re.sub(r"[^A-Za-z0-9.+-]", "_", f"{key}-torch{_torch_version()}")
    return cache_folder() / "hardware" / f"{name}.json"


def _cached(path: Path) -> Measurement | None:
    """Return a measurement kept before; None when none can be read, or a disturbed one has had its time."""
    try:
        about = path.stat()
        if about.st_size > _MAX_CACHE_BYTES:
            return None
        done = Measurement.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    expired = done.disturbed > QUIET_SHARE and time.time() - about.st_mtime > _DISTURBED_SECONDS
    return None if expired else done


def _keep(path: Path, done: Measurement) -> None:
    try:
        write_atomic(path, done.model_dump_json(indent=1), purpose="the measurement of this machine")
    except StorageError:
        # A cache that cannot be written costs the next start its seconds again, and nothing else.
        return
