"""Workers beside each other: what each has of the machine, and of several GPUs which it sees."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from thrifty.hardware import find_device
from thrifty.hardware.probe import Gpu
from thrifty.spec import Device
from thrifty.tune.task import Task
from thrifty.tune.workers import environment_of, gpus_for, share_for


def gpu(name: str, number: int) -> Gpu:
    return Gpu(name=name, memory_bytes=2**36, uuid=f"GPU-{number}", driver="1", power_limit_watts=700.0)


def h100() -> Device:
    return find_device("h100").model_copy(update={"host_cores": 32})


def test_workers_are_placed_on_gpus_of_a_kind_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    device = h100()
    there = (gpu("NVIDIA L4", 0), *(gpu(device.name, number) for number in (1, 2, 3)))
    monkeypatch.setattr("thrifty.tune.workers.probe", lambda: SimpleNamespace(gpus=there))
    gpus = gpus_for(device, 5)
    assert gpus == ("GPU-1", "GPU-2", "GPU-3")
    assert gpus_for(device, 2) == ("GPU-1", "GPU-2")
    assert gpus_for(device, 1) == ()
    task = Task.model_construct(device=device, gpus=gpus, workers=5)
    seen = [environment_of(task, number)["CUDA_VISIBLE_DEVICES"] for number in range(5)]
    assert seen == ["GPU-1", "GPU-2", "GPU-3", "GPU-1", "GPU-2"]


def test_workers_share_the_only_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    device = h100()
    monkeypatch.setattr("thrifty.tune.workers.probe", lambda: SimpleNamespace(gpus=(gpu(device.name, 0),)))
    assert gpus_for(device, 4) == ()
    task = Task.model_construct(device=device, gpus=(), workers=4)
    assert "CUDA_VISIBLE_DEVICES" not in environment_of(task, 3)


@pytest.mark.parametrize(("workers", "gpus", "beside"), [(4, 1, 4), (4, 4, 1), (5, 4, 2), (2, 2, 1)])
def test_what_is_beside_each_other_on_a_gpu_shares_it(workers: int, gpus: int, beside: int) -> None:
    device = h100()
    share = share_for(device, workers, gpus)
    assert share.memory_bytes == device.memory_bytes // beside
    assert share.usd_per_hour.value == pytest.approx(device.usd_per_hour.value / beside)
    assert share.busy_watts.value == pytest.approx(device.busy_watts.value / beside)
    assert share.host_cores == 32 // workers
