"""The micro-benchmarks of a GPU, on the CPU with a clock in place of CUDA's events: what they yield, not how fast."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from thrifty.hardware import gpu_bench
from thrifty.hardware.capture import Captured
from thrifty.hardware.overheads import BACKWARD, FORGOTTEN, MODULE, PARAMETER, START, TO_DEVICE, WATCHED
from thrifty.hardware.sizes import CPU, GPU


class Clock:
    """What ``torch.cuda.Event`` does."""

    def __init__(self, **_: Any) -> None:
        self.at = 0.0

    def record(self) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, other: Clock) -> float:
        return (other.at - self.at) * 1e3


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run what is meant for a GPU on the CPU."""
    monkeypatch.setattr(gpu_bench, "DEVICE", "cpu")
    monkeypatch.setattr("thrifty.hardware.sizes.GPU", CPU)
    for name, stand_in in {
        "Event": Clock,
        "synchronize": lambda: None,
        "_sleep": lambda cycles: None,
        "empty_cache": lambda: None,
        "memory_allocated": lambda: 0,
        "max_memory_allocated": lambda: 4096,
        "reset_peak_memory_stats": lambda: None,
        "get_device_properties": lambda device: SimpleNamespace(L2_cache_size=1 << 20),
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.skipif(torch.cuda.is_available(), reason="a CPU stands for a GPU here, where there is none")
@pytest.mark.usefixtures("no_gpu")
def test_operators_host_and_copies_are_timed() -> None:
    found = gpu_bench.points(seconds=2.0)
    aside = {(point.name, point.dtype): point for point in found if not point.shapes}
    for dtype in ("float32", "bfloat16"):
        for name in (MODULE, BACKWARD, PARAMETER):
            assert {(name, dtype), (f"{name} {START}", dtype)} <= set(aside)
    assert {(f"{WATCHED} hooks", ""), (f"{WATCHED} selective", ""), (TO_DEVICE, ""), (FORGOTTEN, "")} <= set(aside)
    assert all(0 <= point.warm_s <= 1 and math.isfinite(point.warm_s) for point in aside.values())
    timed = [point for point in found if point.shapes]
    assert {"addmm", "mm"} <= {point.name for point in timed}
    assert all(0 < point.warm_s <= point.cold_s and point.host_s > 0 for point in timed)
    assert all(point.scratch_bytes == 4096 for point in timed)


@pytest.mark.usefixtures("no_gpu")
def test_calls_in_a_row_are_each_their_share() -> None:
    asked = gpu_bench.asked(lambda: time.sleep(0.002), 5, 1e-3)
    assert 0.002 <= asked.busy_s < 0.01
    assert 0.002 <= asked.host_s < 0.01
    both = gpu_bench.asked(lambda: time.sleep(0.002), 5, 1e-3, between=lambda: time.sleep(0.003))
    assert both.busy_s > asked.busy_s + 0.002


@pytest.mark.usefixtures("no_gpu")
def test_a_call_is_timed_with_what_tells_it_from_others() -> None:
    x = torch.rand(8, 8)
    with Captured() as captured:
        torch.nn.functional.gelu(x)
    (key, call), *_ = captured.calls.items()
    point = gpu_bench.time_call(key, call)
    assert (point.name, point.dtype, point.shapes) == ("gelu", "float32", "8x8->8x8")
    assert point.cold_s == point.warm_s > 0


def test_a_gpu_takes_larger_sizes_and_none_beyond_its_noise() -> None:
    for field in set(CPU._fields) - {"numbers", "masked"}:
        assert set(getattr(GPU, field)) >= set(getattr(CPU, field)), field
    largest = [
        *(m * k for m, k, _ in GPU.linear), *(k * n for _, k, n in GPU.linear), *(n * w for n, w in GPU.rows),
        *(b * r * max(s, c) for b, r, s, c in GPU.batched), *GPU.counts, *(n * w for n, w, _ in GPU.tables),
        *(b * c * s * s for b, c, s in GPU.images), *(size for _, size in GPU.updates),
        *(b * c * h * w for b, c, h, w, *_ in GPU.convolutions), *(b * h * t * w for b, h, t, w, _ in GPU.attention),
    ]  # fmt: skip
    assert max(largest) <= GPU.numbers
