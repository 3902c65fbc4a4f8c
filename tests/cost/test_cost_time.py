"""Step time: what moves it, how operators go by those timed, and real steps inside the interval."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import replace
from typing import Any

import pytest
import real_step
import torch
from hypothesis import given
from hypothesis import strategies as st

import forked
from thrifty.cost import Op, Trace, step_seconds, trace_step
from thrifty.cost.allocations import Allocations, Block
from thrifty.cost.compiling import compile_gain, compile_seconds, loading_seconds
from thrifty.cost.time import op_seconds, phase_seconds, seconds_by
from thrifty.hardware import probe
from thrifty.hardware.bench import points
from thrifty.hardware.overheads import BACKWARD, FORGOTTEN, FORWARD, PAGES, TO_DEVICE
from thrifty.hardware.pages import Keeping, keeping
from thrifty.spec import Device, Quantity
from thrifty.spec.device import KernelPoint

# the shares of `cost/rates.py` were measured on this kind of CPU; on another they hold within a further factor
SHARES_MEASURED_ON = "AuthenticAMD family 25 model 17"
ANOTHER_MACHINE = 3.0
NOTHING = Allocations((), ())


def device(**changed: Any) -> Device:
    rates = {"fp32": Quantity(value=1e11, source="measured"), "bf16": Quantity(value=4e11, source="measured")}
    given_values = {
        "kind": "cpu",
        "isa": (),
        "flops_per_second": rates,
        "bytes_per_second": Quantity(value=2e10, source="measured"),
        "measured_on": "2026-11-24",
    }
    return Device.model_construct(**{**given_values, **changed})


def trace_of(*ops: Op, tensors: int = 0, gradient_bytes: int = 0, step: Allocations = NOTHING) -> Trace:
    return Trace(
        ops=ops,
        step=step,
        evaluation=NOTHING,
        memory_format="contiguous",
        parameters=0,
        parameter_tensors=tensors,
        parameter_sizes=(),
        parameter_bytes=gradient_bytes,
        gradient_bytes=gradient_bytes,
        buffer_bytes=0,
        input_bytes=1 << 20,
    )


def op(kind: str = "matmul", flops: int = 0, moved: int = 0, **more: Any) -> Op:
    values = {"name": kind, "kind": kind, "phase": "forward", "dtype": "float32", "shapes": ""}
    return Op(**{**values, "flops": flops, "bytes_read": moved, "bytes_written": 0, **more})


def timed(name: str, shapes: str, moved: int, warm_s: float, cold_s: float = 0.0, **more: Any) -> KernelPoint:
    values = {"dtype": "float32", "layouts": "cc>c", "tensors": 2, "spread": 0.02}
    return KernelPoint(
        **{**values, "name": name, "shapes": shapes, "moved_bytes": moved, "warm_s": warm_s,
           "cold_s": cold_s or warm_s, **more}
    )  # fmt: skip


def aside(name: str, seconds: float, moved: int = 0) -> KernelPoint:
    return timed(name, "", moved, seconds, dtype="", layouts="")


# products at 1e11 FLOP/s beside 5 µs
PRODUCTS = tuple(
    timed("mm", f"{m}x{k},{k}x{n}->{m}x{n}", 4 * (m * k + k * n + m * n), 5e-6 + 2e-11 * m * n * k)
    for m in (16, 128, 1024)
    for n in (64, 512)
    for k in (64, 256)
)
# sums of two tensors at 100 GB/s in the cache and 10 GB/s out of it
SUMS = tuple(
    timed("add", f"{n},{n}->{n}", 12 * n, 2e-6 + 12e-11 * n, 2e-6 + 12e-10 * n) for n in (1 << 12, 1 << 16, 1 << 20)
)


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
    assert seconds(replace(attention, dtype="bfloat16")) >= 0.6 * seconds(attention)


def test_a_convolution_reaches_less_of_amx() -> None:
    half = op("convolution", flops=10**12, dtype="bfloat16")
    assert seconds(half, isa=("amx_bf16",)) > seconds(half)


def test_large_fresh_results_pay_for_their_pages_where_they_are_not_kept() -> None:
    def step_s(each: Op, **more: Any) -> float:
        return step_seconds(trace_of(each), 1, device(), "fp32", **more).value

    fresh = op("pointwise", moved=0, bytes_written=1 << 30)
    assert step_s(fresh) > 3 * step_s(replace(fresh, name="add_"))
    assert step_s(fresh, keeping="small") == step_s(fresh)
    assert step_s(fresh, keeping="all") == step_s(replace(fresh, name="add_"))


def test_a_precision_that_was_not_measured_takes_fp32() -> None:
    rates = {"fp32": Quantity(value=1e11, source="measured")}
    half = op(flops=10**12, dtype="bfloat16")
    assert seconds(half, flops_per_second=rates) == pytest.approx(seconds(replace(half, dtype="float32")), rel=0.1)
    assert "fp32" in step_seconds(trace_of(half), 1, device(flops_per_second=rates), "bf16").method


@given(st.integers(1, 50), st.integers(0, 10**9), st.integers(0, 10**8), st.sampled_from([(), PRODUCTS + SUMS]))
def test_a_step_grows_with_accumulation_and_never_by_more_than_its_share(
    parts: int, flops: int, size: int, kernels: tuple[KernelPoint, ...]
) -> None:
    trace = trace_of(op(flops=flops, moved=flops // 50), tensors=3, gradient_bytes=size)
    one, many = (step_seconds(trace, count, device(kernels=kernels), "fp32") for count in (1, parts))
    assert one.value <= many.value <= parts * one.value * 1.0001 + 3 * size / 2e10 * (parts - 1)
    assert many.low < many.value < many.high


def test_the_method_says_how_it_was_got() -> None:
    assert "no operator was timed" in step_seconds(trace_of(op()), 1, device(), "fp32").method
    gpu = step_seconds(trace_of(op()), 1, device(kind="cuda"), "fp32")
    assert "assumed for GPUs" in gpu.method
    assert gpu.high / gpu.low > 4
    carried = step_seconds(trace_of(op()), 1, device(kernels=PRODUCTS), "fp32")
    assert "by those timed on it on 2026-11-24" in carried.method


def product(m: int, k: int, n: int, **more: Any) -> Op:
    shapes = f"{m}x{k},{k}x{n}->{m}x{n}"
    moved = 4 * (m * k + k * n + m * n)
    return op(flops=2 * m * n * k, moved=moved, name="mm", shapes=shapes, layouts="cc>c", tensors=2, **more)


@given(st.sampled_from([16, 64, 200, 1024]), st.sampled_from([64, 100, 256]), st.sampled_from([64, 300, 512]))
def test_operators_go_by_those_timed(m: int, k: int, n: int) -> None:
    known = device(kernels=PRODUCTS + SUMS)
    found = phase_seconds(trace_of(product(m, k, n)), "forward", known)
    assert found == pytest.approx(5e-6 + 2e-11 * m * n * k, rel=0.35)


def test_beyond_what_was_timed_the_interval_is_wider() -> None:
    known = device(kernels=PRODUCTS + SUMS)
    inside, outside = (
        step_seconds(trace_of(product(size, 256, 512)), 1, known, "fp32") for size in (1024, 1024 * 1024)
    )
    assert outside.high / outside.value > inside.high / inside.value
    assert outside.value == pytest.approx(2e-11 * (1 << 20) * 256 * 512, rel=0.5)


def test_what_was_just_touched_is_faster_than_what_caches_have_lost() -> None:
    memory = tuple(aside(FORGOTTEN, share, size) for size, share in ((1 << 20, 0.0), (1 << 24, 1.0)))
    known = device(kernels=PRODUCTS + SUMS + memory)
    size = 1 << 16
    add = op(
        "pointwise", moved=12 * size, name="add", shapes=f"{size},{size}->{size}", layouts="cc>c", tensors=2,
        touched=((-1, 4 * size), (-2, 4 * size)),
    )  # fmt: skip
    far = op("pointwise", moved=1 << 27, name="add", shapes="1->1", layouts="c>c", tensors=1, touched=((-3, 1 << 27),))
    first = phase_seconds(trace_of(add), "forward", known)
    again = phase_seconds(trace_of(add, add), "forward", known) - first
    after = phase_seconds(trace_of(add, far, add), "forward", known) - phase_seconds(
        trace_of(add, far), "forward", known
    )
    assert again < first / 3
    assert after == pytest.approx(first)


def test_dispatch_and_pages_come_on_top() -> None:
    beside = (aside(FORWARD, 1e-3), aside(BACKWARD, 2e-3), aside(PAGES, 1.0, 1 << 30))
    plain, more = device(kernels=PRODUCTS + SUMS), device(kernels=PRODUCTS + SUMS + beside)
    one = trace_of(product(16, 64, 64))
    assert phase_seconds(one, "forward", more) == pytest.approx(phase_seconds(one, "forward", plain) + 1e-3)
    back = trace_of(product(16, 64, 64, phase="recompute"))
    assert phase_seconds(back, "backward", more) == pytest.approx(phase_seconds(back, "backward", plain) + 2e-3)

    def page_s(size: int, count: int, what: Keeping) -> float:
        events = tuple((number, op) for number in range(count) for op in (0, -1))
        step = Allocations(tuple(Block(size, 0) for _ in range(count)), events)
        found = step_seconds(trace_of(product(16, 64, 64), step=step), 1, more, "fp32", keeping=what)
        return found.value - step_seconds(one, 1, more, "fp32", keeping="all").value

    kept: dict[Keeping, float] = {"all": 0.0, "small": 1.0, "default": 1.0}
    for what, large_s in kept.items():
        assert page_s(1 << 30, 1, what) == pytest.approx(large_s, abs=0.01)
    # blocks below the threshold that all live at once: a top that may be given back
    assert page_s(1 << 24, 64, "small") == page_s(1 << 24, 64, "all") == 0


def test_one_operator_lies_between_warm_and_cold() -> None:
    known, size = device(kernels=SUMS), 1 << 16
    add = op("pointwise", moved=12 * size, name="add", shapes=f"{size},{size}->{size}", layouts="cc>c", tensors=2)
    warm, half, cold = (op_seconds(add, known, share) for share in (0.0, 0.5, 1.0))
    assert warm < half < cold
    assert half == pytest.approx((warm + cold) / 2)


def test_seconds_are_split_by_what_is_asked() -> None:
    known = device(kernels=PRODUCTS + SUMS)
    trace = trace_of(product(1024, 256, 512, module="head"), product(16, 64, 64, module="body"))
    split = seconds_by(trace, known, lambda each: each.module)
    assert list(split) == ["head", "body"]
    assert math.fsum(split.values()) == pytest.approx(phase_seconds(trace, "forward", known))


def test_compiling_costs_by_operators_and_saves_where_it_can_fuse() -> None:
    few, many = trace_of(op()), trace_of(*[op("pointwise", moved=10**9)] * 50)
    assert compile_seconds(few).value < compile_seconds(many).value
    assert compile_gain(few, device()).value == 0
    assert 0 < compile_gain(many, device()).value < phase_seconds(many, "forward", device())
    assert loading_seconds(few, device()) > 0


@pytest.mark.alone
@pytest.mark.slow
def test_a_real_small_step_by_operators_timed_here() -> None:
    # one thread: others who use the machine cost it nothing but its caches
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        kernels = points(last_cache_bytes=8 << 20, seconds=20.0).kernels
    finally:
        torch.set_num_threads(before)
    model = torch.nn.Sequential(torch.nn.Linear(256, 512), torch.nn.GELU(), torch.nn.Linear(512, 256))
    step = trace_step(
        lambda: torch.nn.Sequential(torch.nn.Linear(256, 512), torch.nn.GELU(), torch.nn.Linear(512, 256)),
        lambda model, batch: (model(batch["x"]).sum(), 1),
        {"x": ((512, 256), "float32")},
        precision="fp32",
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1, fused=True),
    )
    predicted = step_seconds(step, 1, device(kernels=kernels), "fp32", keeping="all").value
    optimizer, x = torch.optim.SGD(model.parameters(), lr=1e-6, fused=True), torch.randn(512, 256)
    torch.set_num_threads(1)

    def one() -> None:
        model(x).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    try:
        taken = statistics.median(real_step.processor_seconds(one) for _ in range(30))
    finally:
        torch.set_num_threads(before)
    assert predicted == pytest.approx(taken, rel=0.5)


@pytest.mark.alone
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
    done = forked.run([real_step.__file__, case, precision, layout, "5", "1"], timeout=250)
    measured = json.loads(done.stdout)
    rates = {name: Quantity(value=value, source="measured") for name, value in measured["rates"].items()}
    thread = device(flops_per_second=rates, bytes_per_second=rates.pop("memory"), isa=probe().isa)
    trace = real_step.trace_case(case, precision, layout)
    predicted = step_seconds(trace, 1, thread, precision, keeping=keeping("cpu", "none"))
    times = measured["seconds"][1:]
    median = statistics.median(times)
    print(f"{case} {layout} {precision}: {predicted.value / median:.2f} of {median:.4f} s, {measured['rates']}")
    doubt = 1.0 if SHARES_MEASURED_ON in probe().identity else ANOTHER_MACHINE
    inside = predicted.low / doubt <= median <= predicted.high * doubt
    if not inside and max(times) > 2 * min(times):
        pytest.skip(f"steps took {min(times):.3f} to {max(times):.3f} s: the machine is too unsteady to tell")
    assert inside, f"{median:.4f} s measured; {predicted}"


GPU_HOST = (
    aside(f"{BACKWARD}", 5e-6),
    timed("mm", "64x64,64x64->64x64", 1 << 16, 5e-6, host_s=10e-6),
)


def on_gpu(*ops: Op, busy_s: float, host_s: float, **more: Any) -> Trace:
    """A trace whose operators a GPU was asked about: each takes so long there, and so long of the host."""
    point = timed("mm", "8x8,8x8->8x8", 768, busy_s, host_s=host_s)
    return replace(trace_of(*ops, **more), timed={each.key: point for each in ops})


def gpu(*kernels: KernelPoint) -> Device:
    return device(kind="cuda", kernels=kernels or GPU_HOST)


MM = op("mm", flops=10**6, shapes="8x8,8x8->8x8", layouts="cc>c")
ROW = (MM,) * 100


def test_a_gpu_that_is_kept_busy_takes_what_its_operators_take() -> None:
    step = step_seconds(on_gpu(*ROW, busy_s=1e-3, host_s=1e-5), 1, gpu(), "fp32")
    assert step.value == pytest.approx(0.1, rel=0.01)
    assert step.low < step.value < step.high < 1.2 * step.value
    assert "100 as this GPU ran their like alone" in step.method
    assert "0% of the time it waits for the host" in step.method


def test_a_gpu_that_waits_takes_what_the_host_takes_and_is_in_doubt() -> None:
    step = step_seconds(on_gpu(*ROW, busy_s=1e-6, host_s=1e-4), 1, gpu(), "fp32")
    assert step.value == pytest.approx(0.01, rel=0.02)
    assert step.high > 1.6 * step.value, "a host's speed wanders"
    assert "99% of the time it waits for the host" in step.method


def test_each_micro_batch_of_a_gpu_waits_for_its_copy() -> None:
    copies = (aside(TO_DEVICE, 1e-4, 1 << 18), aside(TO_DEVICE, 1e-2, 1 << 26))
    trace = on_gpu(*ROW, busy_s=1e-4, host_s=1e-5)
    one, four = (step_seconds(trace, n, gpu(*GPU_HOST, *copies), "fp32").value for n in (1, 4))
    assert four == pytest.approx(4 * one, rel=0.01)
    assert one > step_seconds(trace, 1, gpu(), "fp32").value
    larger = replace(trace, input_bytes=1 << 26)
    assert step_seconds(larger, 1, gpu(*GPU_HOST, *copies), "fp32").value > one + 0.009


def test_what_a_gpu_was_not_asked_goes_by_those_timed_there() -> None:
    known = on_gpu(*ROW, busy_s=1e-3, host_s=1e-5)
    step = step_seconds(replace(known, timed={}), 1, gpu(*PRODUCTS), "fp32")
    assert 0 < step.value < 0.1
    assert step_seconds(known, 1, gpu(*PRODUCTS), "fp32").value == pytest.approx(0.1, rel=0.01)
