"""The micro-benchmarks: plausible, said with shape and spread, and torch left as it was."""

from __future__ import annotations

import re

import pytest
import torch

from thrifty.hardware import measure
from thrifty.hardware.probe import probe

SAID = r"measured 20\d\d-\d\d-\d\d, torch \S+, 1 threads, \d+x\d+x\d+, [1-5] repeats, \S+ to \S+ T(;|$)"


@pytest.mark.alone
@pytest.mark.slow
def test_the_cpu() -> None:
    before = torch.get_num_threads()
    found = measure.measure_cpu(1, last_cache_bytes=8 << 20, memory_bytes=1 << 30, kernel_seconds=0)
    assert not found.kernels
    assert torch.get_num_threads() == before
    assert set(found.flops_per_second) == {"fp32", "bf16"}
    for rate in found.flops_per_second.values():
        assert 1e8 < rate.value < 1e14
        assert re.match(SAID, rate.source), rate.source
        low, high = (float(text) * 1e12 for text in re.findall(r"([\d.e+-]+) to ([\d.e+-]+) T", rate.source)[0])
        assert low * 0.99 <= rate.value <= high * 1.01
    assert 1e8 < found.bytes_per_second.value < 1e13
    assert "copy of 64 MiB" in found.bytes_per_second.source
    assert found.threads == 1
    assert 0 < found.seconds < 60
    assert found.measured_on in found.bytes_per_second.source


def test_a_slow_precision_is_measured_on_small_shapes_alone() -> None:
    shapes: list[float] = []

    class Slow(measure._CpuTimer):
        def once(self, work: object) -> float:
            flops = 2.0 * work.args[0].shape[0] * work.args[1].numel()  # type: ignore[attr-defined]
            shapes.append(flops)
            return flops / 1e8

    rate = measure._products(Slow(), "cpu", torch.float32, "as if emulated")
    assert set(shapes) == {2.0 * 512**3}
    assert rate.value == pytest.approx(1e8)
    assert "512x512x512, 1 repeats" in rate.source


def test_time_taken_by_others_is_noticed() -> None:
    timer = measure._CpuTimer()
    timer.once(lambda: sum(range(200_000)))
    assert timer.taken_by_others(1) < 1
    assert 0.4 < timer.taken_by_others(2) < 1, "one thread cannot use two cores"


def test_no_gpu_is_no_error() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert measure.measure_cuda() is None


@pytest.mark.gpu
def test_the_gpu() -> None:
    if not probe().gpus or not torch.cuda.is_available():
        pytest.skip("needs a CUDA device that torch can use")
    found = measure.measure_cuda()
    assert found is not None
    assert found.processors > 0
    assert found.flops_per_second["fp16"].value > found.flops_per_second["fp32"].value > 1e11
    assert found.bytes_per_second.value > 5e10
