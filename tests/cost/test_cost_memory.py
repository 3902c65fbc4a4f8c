"""Peak memory: what moves it, the largest micro-batch that fits, and real processes inside the interval."""

from __future__ import annotations

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

from thrifty.cost import Trace, largest_micro_batch, peak_bytes
from thrifty.cost.memory import RUNTIME_MIB
from thrifty.hardware import probe

# the heap's share was measured with the kernels of this kind of CPU; others take other workspaces
HEAP_MEASURED_ON = "AuthenticAMD family 25 model 17"
ANOTHER_MACHINE = 1.5
MIB = 1 << 20
LIVE = 100 * MIB
TRACE = Trace(
    ops=(),
    memory_format="contiguous",
    parameters=1000,
    parameter_tensors=2,
    parameter_bytes=10 * MIB,
    gradient_bytes=10 * MIB,
    buffer_bytes=0,
    optimizer_bytes=20 * MIB,
    input_bytes=0,
    activation_bytes=80 * MIB,
    temporary_bytes=20 * MIB,
    live_peak_bytes=LIVE,
    evaluation_bytes=30 * MIB,
)


def of_size(micro: int) -> Trace:
    return replace(TRACE, live_peak_bytes=micro * MIB)


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
        (replace(TRACE, live_peak_bytes=MIB, evaluation_bytes=MIB), {}, "a checkpoint"),
    ],
)
def test_the_method_says_when_the_peak_falls(trace: Trace, more: dict[str, Any], moment: str) -> None:
    assert f"in {moment}" in peak_bytes(trace, **more).method


def test_a_gpu_holds_no_interpreter() -> None:
    assert peak_bytes(TRACE, device_kind="cuda").value < peak_bytes(TRACE).value - 200 * MIB
    assert "assumed" in peak_bytes(TRACE, device_kind="cuda").method


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
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("case", "layout"), [("resnet20", "contiguous"), ("resnet20", "channels_last"), ("gpt", "contiguous")]
)
def test_a_real_peak_falls_inside(case: str, precision: str, layout: str) -> None:
    command = [sys.executable, real_step.__file__, case, precision, layout, "4", "2"]
    measured = json.loads(subprocess.check_output(command, timeout=250))["peak_bytes"]
    found = peak_bytes(real_step.trace_case(case, precision, layout))
    doubt = 1.0 if HEAP_MEASURED_ON in probe().identity else ANOTHER_MACHINE
    assert found.low / doubt <= measured <= found.high * doubt, f"{measured / MIB:.0f} MiB; {found}"
    print(f"{case} {layout} {precision}: {found.value / MIB:.0f} of {measured / MIB:.0f} MiB")
    # the bounds must say something: less than a factor of 1.6 either way
    assert found.high / found.value < 1.6 and found.value / found.low < 1.6
