"""Micro-benchmarks of operators: what they catch, how they time, and that what is timed comes back whole."""

from __future__ import annotations

import time

import pytest
import torch

from thrifty.hardware import bench as bench_module
from thrifty.hardware.bench import Bench, bench, merged, points
from thrifty.hardware.capture import Captured, Key
from thrifty.hardware.kernels import ARITHMETIC, FAMILIES
from thrifty.hardware.overheads import BACKWARD, FLUSH, FORGOTTEN, FORWARD, PAGES, PARAMETER, tiny_layers
from thrifty.hardware.signature import note_of
from thrifty.hardware.sizes import CPU
from thrifty.hardware.stopwatch import once, repeated
from thrifty.spec.device import KernelPoint

ASIDE = {FORWARD, BACKWARD, PARAMETER, PAGES, FLUSH, FORGOTTEN}


def test_a_layer_is_caught_forward_and_backward_without_its_views() -> None:
    x, weight = torch.randn(8, 4, requires_grad=True), torch.randn(2, 4, requires_grad=True)
    with Captured() as captured:
        torch.nn.functional.linear(x, weight).sum().backward()
    assert Key("mm", "float32", "8x4,4x2->8x2", "ct>c") in captured.calls
    names = [key.name for key in captured.order]
    assert names.count("mm") == 3
    assert not {"t", "view", "expand", "empty"} & set(names)
    first = next(call for key, call in captured.calls.items() if key.name == "mm")
    assert first.moved_bytes == 4 * (8 * 4 + 4 * 2 + 8 * 2)


def test_what_tells_one_call_from_another_is_noted() -> None:
    attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    q = torch.randn(1, 1, 4, 8)
    assert note_of(attend, (q, q, q, 0.0, True), {}) == "is_causal=True"
    assert note_of(attend, (q, q, q), {}) == ""
    assert note_of(torch.ops.aten.gelu.default, (q,), {"approximate": "tanh"}) == "approximate=tanh"


def test_every_family_runs_in_both_precisions() -> None:
    assert set(FAMILIES) >= ARITHMETIC
    for name, family in FAMILIES.items():
        for dtype in (torch.float32, torch.bfloat16):
            with Captured() as captured:
                next(family(dtype, CPU))()
            assert captured.calls, name


@pytest.mark.alone
def test_time_is_taken_of_one_call() -> None:
    taken, _ = once(lambda: time.sleep(0.002), burst=3)
    assert 0.002 <= taken < 0.02
    timing = repeated(lambda: time.sleep(0.001), 4)
    assert timing.median_s >= 0.001
    assert 0 <= timing.spread < 1


def test_disturbed_tries_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import thrifty.hardware.stopwatch as stopwatch

    tries = iter([(5.0, 1), (1.0, 0), (6.0, 2), (2.0, 0)])
    monkeypatch.setattr(stopwatch, "once", lambda work, burst: next(tries))
    assert stopwatch.repeated(lambda: None, 2) == stopwatch.Timing((1.0, 2.0), True)
    always = iter([(5.0, 1), (3.0, 1), (4.0, 1), (6.0, 1)])
    monkeypatch.setattr(stopwatch, "once", lambda work, burst: next(always))
    assert stopwatch.repeated(lambda: None, 2) == stopwatch.Timing((3.0,), False)


def test_benches_are_averaged_point_by_point() -> None:
    def point(seconds: float, name: str = "mm") -> KernelPoint:
        return KernelPoint(
            name=name, dtype="float32", shapes="1x1,1x1->1x1", layouts="cc>c", tensors=2, moved_bytes=12,
            warm_s=seconds, cold_s=2 * seconds, spread=0.0,
        )  # fmt: skip

    found = merged(
        [Bench(kernels=(point(1.0), point(5.0, "add")), disturbed=0.2), Bench(kernels=(point(3.0),), disturbed=0.0)]
    )
    assert found.disturbed == pytest.approx(0.1)
    assert [(each.name, each.warm_s, each.cold_s, each.spread) for each in found.kernels] == [
        ("mm", 2.0, 4.0, 0.5),
        ("add", 5.0, 10.0, 0.0),
    ]


def test_a_process_that_fails_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_module.sys, "executable", "/bin/false")
    assert bench(1, last_cache_bytes=1 << 20, seconds=0.1) == Bench(kernels=(), disturbed=0.0)


def test_small_layers_leave_the_tensor_as_it_was() -> None:
    x = torch.randn(4, 16)
    assert tiny_layers()[3](x).equal(x)


@pytest.mark.alone
@pytest.mark.slow
def test_points_of_a_short_run() -> None:
    found = points(last_cache_bytes=4 << 20, seconds=6.0)
    assert {point.name for point in found.kernels} >= ASIDE | {"addmm", "mm", "convolution", "_softmax"}
    for point in found.kernels:
        assert point.cold_s >= point.warm_s >= 0
        if point.shapes:
            assert point.warm_s > 0
            assert point.moved_bytes > 0
    assert 0 <= found.disturbed <= 1


@pytest.mark.alone
@pytest.mark.slow
def test_a_process_of_its_own_says_the_same_things() -> None:
    found = bench(1, last_cache_bytes=4 << 20, seconds=4.0)
    assert {point.dtype for point in found.kernels} >= {"float32", "bfloat16"}
