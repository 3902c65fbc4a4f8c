"""Step time: what moves it, and real steps inside the interval."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import real_step
from hypothesis import given
from hypothesis import strategies as st

from thrifty.cost import Op, Trace, step_seconds
from thrifty.cost.time import phase_seconds
from thrifty.hardware import probe
from thrifty.spec import Device, Quantity

# the shares of `cost/time.py` were measured on this kind of CPU; on another they hold within a further factor
SHARES_MEASURED_ON = "AuthenticAMD family 25 model 17"
ANOTHER_MACHINE = 3.0


def device(**changed: Any) -> Device:
    rates = {"fp32": Quantity(value=1e11, source="measured"), "bf16": Quantity(value=4e11, source="measured")}
    given_values = {
        "kind": "cpu",
        "isa": (),
        "flops_per_second": rates,
        "bytes_per_second": Quantity(value=2e10, source="measured"),
    }
    return Device.model_construct(**{**given_values, **changed})


def trace_of(*ops: Op, tensors: int = 0, gradient_bytes: int = 0) -> Trace:
    return Trace(
        ops=ops,
        memory_format="contiguous",
        parameters=0,
        parameter_tensors=tensors,
        parameter_bytes=gradient_bytes,
        gradient_bytes=gradient_bytes,
        buffer_bytes=0,
        optimizer_bytes=gradient_bytes,
        input_bytes=0,
        activation_bytes=0,
        temporary_bytes=0,
        live_peak_bytes=0,
        evaluation_bytes=0,
    )


def op(kind: str = "matmul", flops: int = 0, moved: int = 0, **more: Any) -> Op:
    values = {"name": kind, "kind": kind, "phase": "forward", "dtype": "float32", "shapes": ""}
    return Op(**{**values, "flops": flops, "bytes_read": moved, "bytes_written": 0, **more})


def seconds(*ops: Op, **changed: Any) -> float:
    return phase_seconds(trace_of(*ops), "forward", device(**changed))


def test_a_product_is_bounded_by_arithmetic_and_a_sum_by_traffic() -> None:
    large = op(flops=10**12, moved=10**6)
    assert seconds(large) > 10
    assert seconds(large) == pytest.approx(seconds(replace(large, bytes_read=0)))
    twice = device().bytes_per_second.model_copy(update={"value": 4e10})
    plain = op("pointwise", moved=10**10)
    assert seconds(plain, bytes_per_second=twice) == pytest.approx(seconds(plain) / 2, rel=0.01)


def test_bf16_is_faster_where_the_device_is() -> None:
    full = op(flops=10**12)
    assert seconds(full) > 3 * seconds(replace(full, dtype="bfloat16"))
    # torch's attention on a CPU gains nothing from it
    attention = op("attention", flops=10**12)
    assert seconds(replace(attention, dtype="bfloat16")) >= seconds(attention)


def test_a_convolution_reaches_less_of_amx() -> None:
    half = op("convolution", flops=10**12, dtype="bfloat16")
    assert seconds(half, isa=("amx_bf16",)) > seconds(half)


def test_large_fresh_results_pay_for_their_pages() -> None:
    fresh = op("pointwise", moved=0, bytes_written=1 << 30)
    assert seconds(fresh) > 3 * seconds(replace(fresh, name="add_"))


def test_a_precision_that_was_not_measured_takes_fp32() -> None:
    rates = {"fp32": Quantity(value=1e11, source="measured")}
    half = op(flops=10**12, dtype="bfloat16")
    assert seconds(half, flops_per_second=rates) == pytest.approx(seconds(replace(half, dtype="float32")), rel=0.1)
    assert "fp32" in step_seconds(trace_of(half), 1, device(flops_per_second=rates), "bf16").method


@given(st.integers(1, 50), st.integers(0, 10**9), st.integers(0, 10**8))
def test_a_step_grows_with_accumulation_and_never_by_more_than_its_share(parts: int, flops: int, size: int) -> None:
    trace = trace_of(op(flops=flops), tensors=3, gradient_bytes=size)
    one, many = (step_seconds(trace, count, device(), "fp32") for count in (1, parts))
    assert one.value <= many.value <= parts * one.value * 1.0001
    assert many.low < many.value < many.high


def test_the_method_says_that_nothing_was_timed() -> None:
    assert "no step was timed" in step_seconds(trace_of(op()), 1, device(), "fp32").method
    gpu = step_seconds(trace_of(op()), 1, device(kind="cuda"), "fp32")
    assert "assumed for GPUs" in gpu.method
    assert gpu.high / gpu.low > 4


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("case", "layout"),
    [
        ("resnet20", "contiguous"),
        ("resnet20", "channels_last"),
        ("gpt", "contiguous"),
        ("gpt-nano", "contiguous"),
        ("mlp", "contiguous"),
    ],
)
def test_real_steps_fall_inside(case: str, layout: Any, precision: Any) -> None:
    # One thread and its processor time, beside rates measured the same way: true also while others use the machine,
    # where threads that wait for each other would make a step take ten times as long.
    command = [sys.executable, real_step.__file__, case, precision, layout, "5", "1"]
    measured = json.loads(subprocess.check_output(command, timeout=250))
    rates = {name: Quantity(value=value, source="measured") for name, value in measured["rates"].items()}
    thread = device(flops_per_second=rates, bytes_per_second=rates.pop("memory"), isa=probe().isa)
    trace = real_step.trace_case(case, precision, layout)
    predicted = step_seconds(trace, 1, thread, precision)
    times = measured["seconds"][1:]
    median = statistics.median(times)
    print(f"{case} {layout} {precision}: {predicted.value / median:.2f} of {median:.4f} s, {measured['rates']}")
    doubt = 1.0 if SHARES_MEASURED_ON in probe().identity else ANOTHER_MACHINE
    inside = predicted.low / doubt <= median <= predicted.high * doubt
    if not inside and max(times) > 2 * min(times):
        pytest.skip(f"steps took {min(times):.3f} to {max(times):.3f} s: the machine is too unsteady to tell")
    assert inside, f"{median:.4f} s measured; {predicted}"
