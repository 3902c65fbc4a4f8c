"""Peak memory: what moves it, the largest micro-batch that fits, and real processes inside the interval."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import real_step
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thrifty.cost import HeapPeak, Op, Trace, largest_micro_batch, peak_bytes, trace_step
from thrifty.cost.allocations import Allocations, Block
from thrifty.cost.memory import RUNTIME_MIB
from thrifty.hardware.capture import Key
from thrifty.hardware.runtime import PARTS, runtime_bytes
from thrifty.optim import by_name
from thrifty.spec.device import KernelPoint

MIB = 1 << 20
LIVE = 100 * MIB
ASKED = KernelPoint(
    name="mm", dtype="float32", shapes="2->2", layouts="c>c", tensors=1, moved_bytes=8, warm_s=1e-6, cold_s=1e-6,
    spread=0.0,
)  # fmt: skip


def made(live: int = LIVE, evaluation: int = 30 * MIB, states: int = 20 * MIB) -> Trace:
    """A trace whose step holds so much at its peak, and makes states that stay."""
    working, state, forward = Block(live, 0, kept=True), Block(states, 0, role="state"), Block(evaluation, 0)
    return Trace(
        ops=(),
        step=Allocations((working, state), ((0, 0), (0, -1), (1, 0))),
        evaluation=Allocations((forward,), ((0, 0), (0, -1))),
        memory_format="contiguous",
        parameters=1000,
        parameter_tensors=2,
        parameter_sizes=(4 * MIB, 6 * MIB),
        parameter_bytes=10 * MIB,
        gradient_bytes=10 * MIB,
        buffer_bytes=0,
        input_bytes=0,
    )


TRACE = made()


def of_size(micro: int) -> Trace:
    return made(live=micro * MIB)


def test_every_part_is_in_the_sum() -> None:
    low = peak_bytes(TRACE, loader_bytes=7 * MIB).low
    assert low >= (RUNTIME_MIB["low"] + 10 + 20 + 7 + 0.97 * 100) * MIB
    assert peak_bytes(TRACE, loader_bytes=7 * MIB).value == peak_bytes(TRACE).value + 7 * MIB


def test_kept_gradients_count_once_micro_batches_accumulate() -> None:
    assert peak_bytes(TRACE, accumulation=2).value > peak_bytes(TRACE, accumulation=1).value
    assert peak_bytes(TRACE, accumulation=9) == peak_bytes(TRACE, accumulation=2)


@pytest.mark.parametrize(
    ("trace", "more", "moment"),
    [
        (TRACE, {}, "a training step"),
        (TRACE, {"evaluation_batch_ratio": 4.0}, "a validation"),
    ],
)
def test_the_method_says_when_the_peak_falls(trace: Trace, more: dict[str, Any], moment: str) -> None:
    assert f"in {moment}" in peak_bytes(trace, **more).method


def test_a_copy_that_is_saved_beside_training_counts() -> None:
    plain, copied = peak_bytes(TRACE), peak_bytes(TRACE, copied=True)
    # weights and states, and in the worst case best weights that wait
    assert copied.low == plain.low
    assert copied.value == plain.value + 30 * MIB
    assert copied.high == plain.high + 40 * MIB
    assert "30.0 MiB of a copy that is being saved" in copied.method
    assert peak_bytes(TRACE, device_kind="cuda", copied=True) == peak_bytes(TRACE, device_kind="cuda")


def test_a_gpu_holds_no_interpreter_and_says_what_its_allocator_would() -> None:
    found = peak_bytes(TRACE, device_kind="cuda")
    assert found.value < peak_bytes(TRACE).value - 200 * MIB
    # weights and states (30), the step (100), and cuBLAS's workspace (8)
    assert found.value == pytest.approx(138 * MIB, rel=0.02)
    assert "reserved" in found.method


def test_gradients_of_a_gpu_stay_over_micro_batches() -> None:
    blocks = (Block(50 * MIB, 0), Block(40 * MIB, 0, role="gradient"))
    trace = replace(TRACE, step=Allocations(blocks, ((0, 0), (1, 0), (0, -1), (1, -1))))
    one, two = (peak_bytes(trace, device_kind="cuda", accumulation=n).value / MIB for n in (1, 2))
    assert one == pytest.approx(10 + 90 + 8, rel=0.02)
    # the second micro-batch's gradient is added to the first's, which is still there
    assert two == pytest.approx(10 + 90 + 40 + 8, rel=0.02)


def test_a_dry_run_goes_before_the_rule_and_narrows_the_bounds() -> None:
    heap = HeapPeak(step=200 * MIB, evaluation=20 * MIB)
    ruled, dry = peak_bytes(TRACE), peak_bytes(TRACE, heap=heap)
    assert dry.value == (RUNTIME_MIB["value"] + 200) * MIB
    assert dry.high - dry.low < ruled.high - ruled.low
    assert "dry run" in dry.method
    assert "a validation" in peak_bytes(TRACE, heap=replace(heap, evaluation=300 * MIB)).method


def test_only_the_libraries_that_a_step_needs_count() -> None:
    parts = dict.fromkeys(PARTS, MIB)
    heap = HeapPeak(step=100 * MIB, evaluation=0)
    plain = peak_bytes(TRACE, heap=heap, runtime=parts).value
    assert plain == 102 * MIB
    op = Op("convolution", "convolution", "forward", 1, 1, 1, "bfloat16", "")
    assert peak_bytes(replace(TRACE, ops=(op,)), heap=heap, runtime=parts).value == 105 * MIB
    # what read the rows of a table is there in the process that prepared them, and not in a later one
    read = peak_bytes(TRACE, heap=heap, runtime={**parts, "polars": 30 * MIB})
    assert read.value == 132 * MIB
    assert read.low == peak_bytes(TRACE, heap=heap, runtime=parts).low


@given(st.integers(1, 300), st.integers(300, 2000))
def test_the_largest_micro_batch_fits_and_the_next_equal_share_does_not(wanted: int, limit_mib: int) -> None:
    limit = limit_mib * MIB
    micro = largest_micro_batch(of_size, limit, wanted)

    def fits(size: int) -> bool:
        return peak_bytes(of_size(size), accumulation=-(-wanted // size)).high <= limit

    if micro == 0:
        assert not fits(1)
        return
    assert 1 <= micro <= wanted
    assert fits(micro)
    parts = -(-wanted // micro)
    if parts > 1:
        assert not fits(-(-wanted // (parts - 1)))


def test_few_traces_are_needed() -> None:
    asked: list[int] = []
    largest_micro_batch(lambda micro: (asked.append(micro), of_size(micro))[1], 900 * MIB, 4096)
    assert len(set(asked)) < 20


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peaks are read from Linux's /proc")
@pytest.mark.parametrize(
    ("case", "layout", "precision"),
    [
        ("resnet20", "contiguous", "fp32"),
        ("resnet20", "channels_last", "bf16"),
        *itertools.product(("gpt",), ("contiguous",), ("fp32", "bf16", "bf16_compensated")),
    ],
)
def test_a_real_peak_is_foreseen(case: str, layout: str, precision: str) -> None:
    command = [sys.executable, real_step.__file__, case, precision, layout, "4", "2"]
    measured = json.loads(subprocess.check_output(command, timeout=250))["peak_bytes"]
    foreseen = json.loads(subprocess.check_output([*command[:5], "0", "2"], timeout=250))["heap_bytes"]
    if foreseen is None:
        pytest.skip("this C library does not tell what its heap holds")
    heap = HeapPeak(step=foreseen, evaluation=0)
    found = peak_bytes(real_step.trace_case(case, precision, layout), heap=heap, runtime=runtime_bytes(2))
    # the process of the test imports less than a run does
    assert found.value * 0.75 <= measured <= found.high * 1.1, f"{measured / MIB:.0f} MiB; {found}"
    assert found.high / found.value < 1.2 and found.value / found.low < 1.2


def test_weights_in_bf16_are_half_and_what_stands_beside_them_is_counted() -> None:
    def traced(precision: str, *, accumulating: bool = False) -> Trace:
        return trace_step(
            lambda: nn.Sequential(nn.Linear(256, 1024), nn.LayerNorm(1024), nn.Linear(1024, 8)),
            lambda model, batch: (model(batch["x"]).float().sum(), 4),
            {"x": ((4, 256), "float32")},
            precision=precision,  # type: ignore[arg-type]
            optimizer=by_name("adamw", precision),
            accumulating=accumulating,
        )

    held, norms = 256 * 1024 + 1024 + 1024 * 8 + 8, 2 * 1024
    moments, counts = 8 * (held + norms), 6 * 4
    for precision, weight, beside in (
        ("fp32", 4, 0), ("bf16", 4, 0), ("fp16", 4, 0), ("fp8", 4, 0), ("bf16_compensated", 2, 2),
        ("bf16_stochastic", 2, 0),
    ):  # fmt: skip
        found = traced(precision)
        assert found.parameter_bytes == found.gradient_bytes == weight * held + 4 * norms, precision
        assert found.optimizer_bytes == moments + counts + beside * held, precision
    # sums over micro-batches are float32
    assert traced("bf16_compensated", accumulating=True).gradient_bytes == 4 * (held + norms)


def test_what_operators_take_beside_their_results_counts_while_they_run() -> None:
    ops = tuple(
        Op(name, "other", "forward", 0, 0, 0, "float32", "2->2", layouts="c>c") for name in ("light", "heavy", "light")
    )
    # of three results of 8 MiB, the first is gone before the last operator runs
    blocks = tuple(Block(8 * MIB, index) for index in range(3))
    events = ((0, 0), (1, 1), (0, -3), (2, 2), (1, -4), (2, -4))
    plain = replace(made(evaluation=MIB), ops=ops, step=Allocations(blocks, events))

    def peak(**scratch: int) -> float:
        timed = {
            each.key: KernelPoint(
                name=each.name, dtype="float32", shapes="2->2", layouts="c>c", tensors=1, moved_bytes=8, warm_s=1e-6,
                cold_s=1e-6, spread=0.0, scratch_bytes=scratch.get(each.name, 0) * MIB,
            )
            for each in ops
        }  # fmt: skip
        return peak_bytes(replace(plain, timed=timed), device_kind="cuda").value / MIB

    without = peak()
    assert peak(heavy=32) == pytest.approx(without + 32, abs=2)
    assert peak(light=32) == pytest.approx(without + 32 - 8, abs=10)
    held = replace(plain, timed={}, workspace_bytes=65 * MIB)
    assert peak_bytes(held, device_kind="cuda").value / MIB == pytest.approx(without + 65 + 8, abs=2)


def test_a_gpu_that_was_asked_is_in_less_doubt() -> None:
    asked = replace(made(), timed={Key("mm", "float32", "2->2", "c>c"): ASKED}, workspace_bytes=65 * MIB)
    narrow, wide = (peak_bytes(trace, device_kind="cuda") for trace in (asked, made()))
    assert narrow.low / narrow.value > wide.low / wide.value
    assert "this GPU was asked" in narrow.method
    assert "no GPU was asked" in wide.method
