"""The devices of this machine: measured once, read from the cache without torch, and never stopped by a bad cache."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from thrifty import hardware
from thrifty.errors import JobError
from thrifty.hardware.measure import Measurement
from thrifty.hardware.probe import Gpu, Probe, probe
from thrifty.spec.device import Device, Quantity

L4 = Gpu(name="NVIDIA L4", memory_bytes=23034 << 20, uuid="GPU-33/44", driver="550.54.15", power_limit_watts=72.0)


def a_measurement(rate: float = 2e11, device: str = "cpu") -> Measurement:
    return Measurement(
        device=device,
        torch="2.13.0",
        threads=2,
        processors=58 if device != "cpu" else 0,
        flops_per_second={"fp32": Quantity(value=rate, source="measured 2026-11-01")},
        bytes_per_second=Quantity(value=2e10, source="measured 2026-11-01"),
        measured_on="2026-11-01",
        seconds=3.0,
    )


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("THRIFTY_CACHE", str(tmp_path))
    monkeypatch.delenv("THRIFTY_PRICES", raising=False)
    return tmp_path / "hardware"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the measurements, and spare their seconds."""
    times: list[int] = []

    def quick(threads: int, **_: int) -> Measurement:
        times.append(threads)
        return a_measurement(rate=1e11 * len(times))

    monkeypatch.setattr(hardware, "measure_cpu", quick)
    return times


def test_measured_once_and_again_when_asked(cache: Path, measured: list[int]) -> None:
    first = hardware.here(kind="cpu")
    assert hardware.here(kind="cpu") == first
    assert len(measured) == 1
    assert hardware.here(kind="cpu", remeasure=True).flops_per_second["fp32"].value == 2e11
    assert hardware.here(kind="cpu").flops_per_second["fp32"].value == 2e11
    assert measured == [first.cores] * 2
    (file,) = cache.iterdir()
    assert file.name.startswith(probe().fingerprint)
    assert f"-cpu-{first.cores}-operators-torch" in file.name


def test_another_torch_measures_for_itself(cache: Path, measured: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    hardware.here(kind="cpu")
    monkeypatch.setattr(hardware, "_torch_version", lambda: "2.11.0+cpu")
    hardware.here(kind="cpu")
    assert len(measured) == len(list(cache.iterdir())) == 2


def test_a_disturbed_measurement_serves_for_ten_minutes(
    cache: Path, measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    disturbed = a_measurement().model_copy(update={"disturbed": 0.5})
    monkeypatch.setattr(hardware, "measure_cpu", lambda *_, **__: measured.append(1) or disturbed)
    assert hardware.here().disturbed == 0.5
    assert hardware.here().disturbed == 0.5 and len(measured) == 1
    (file,) = cache.iterdir()
    os.utime(file, (time.time() - 700,) * 2)
    hardware.here()
    assert len(measured) == 2


@pytest.mark.parametrize("damage", [b"", b"{", b'{"device": "cpu"}', b"\xff\xfe", b"[" * 100_000, b" " * (2 << 20)])
def test_a_damaged_cache_is_measured_again(cache: Path, measured: list[int], damage: bytes) -> None:
    device = hardware.here(kind="cpu")
    (file,) = cache.iterdir()
    file.write_bytes(damage)
    again = hardware.here(kind="cpu")
    assert again.name == device.name
    assert len(measured) == 2
    assert hardware.here(kind="cpu") == again
    assert len(measured) == 2, "and is whole again"


def test_a_cache_that_cannot_be_written_only_costs_time(
    tmp_path: Path, measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file in the folder's place refuses every user, the superuser too, where a mode would not.
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("THRIFTY_CACHE", str(tmp_path / "taken"))
    assert hardware.here(kind="cpu").kind == "cpu"
    assert hardware.here(kind="cpu").kind == "cpu"
    assert len(measured) == 2


def test_the_price_is_not_cached(cache: Path, measured: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    hardware.here(kind="cpu")
    own = cache.parent / "own.csv"
    own.write_text(
        "pattern,kind,instance,cores,memory_gib,usd_per_hour,region,date,source\n.,cpu,mine,,,7,home,2026-11,bill\n"
    )
    monkeypatch.setenv("THRIFTY_PRICES", str(own))
    assert hardware.here(kind="cpu").usd_per_hour.value == 7
    assert len(measured) == 1


def test_reading_from_the_cache_loads_no_torch(cache: Path, measured: list[int]) -> None:
    hardware.here(kind="cpu")
    code = "import sys; from thrifty.hardware import devices; print(len(devices()), 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "THRIFTY_CACHE": str(cache.parent), "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.stdout.split() == ["1", "False"]


def with_gpu(monkeypatch: pytest.MonkeyPatch, torch: str) -> Probe:
    found = probe().model_copy(update={"gpus": (L4,)})
    monkeypatch.setattr(hardware, "probe", lambda: found)
    monkeypatch.setattr(hardware, "_torch_version", lambda: torch)
    return found


def test_a_gpu_goes_before_the_cpu(cache: Path, measured: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpu(monkeypatch, "2.13.0+cu130")
    monkeypatch.setattr(hardware, "measure_cuda", lambda index, uuid: a_measurement(1.2e14, "NVIDIA L4"))
    device = hardware.here()
    assert (device.kind, device.name, device.cores) == ("cuda", "NVIDIA L4", 58)
    assert device.memory_bytes == L4.memory_bytes
    assert device.busy_watts == Quantity(value=72.0, source="power limit by nvidia-smi")
    assert device.usd_per_hour.value > 0
    monkeypatch.setattr(hardware, "measure_cuda", lambda index, uuid: pytest.fail("it is in the cache"))
    assert [each.kind for each in hardware.devices()] == ["cuda", "cpu"]
    assert hardware.here(kind="cpu").kind == "cpu"


def test_a_gpu_that_torch_cannot_use_is_passed_over(
    cache: Path, measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpu(monkeypatch, "2.13.0+cpu")
    assert hardware.here().kind == "cpu"
    with pytest.raises(JobError, match=re.escape("no CUDA device that torch 2.13.0+cpu can use (NVIDIA L4)")):
        hardware.here(kind="cuda")
    # Built for CUDA, but without a driver that works: torch is asked, and says no.
    with_gpu(monkeypatch, "2.13.0")
    monkeypatch.setattr(hardware, "measure_cuda", lambda index, uuid: None)
    assert hardware.here().kind == "cpu"
    assert [each.kind for each in hardware.devices()] == ["cpu"]


def test_comparison_sets_measured_beside_datasheet(cache: Path, measured: list[int]) -> None:
    device = hardware.here(kind="cpu").model_copy(
        update={
            "flops_per_second": {"fp32": Quantity(value=1e11, source=""), "bf16": Quantity(value=3e11, source="")},
            "datasheet_flops_per_second": {"fp32": Quantity(value=2e11, source="")},
            "datasheet_bytes_per_second": {"memory": Quantity(value=1e10, source="")},
        }
    )
    assert hardware.comparison(device) == [
        ("fp32", 1e11, 2e11, 0.5),
        ("bf16", 3e11, None, None),
        ("memory", 2e10, 1e10, 2.0),
    ]


def test_a_device_goes_to_json_and_back(cache: Path, measured: list[int]) -> None:
    device = hardware.here(kind="cpu")
    assert Device.model_validate_json(device.model_dump_json()) == device
