"""Times of kernels: bounds by arithmetic and traffic, monotony, and operators of traces."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrifty.cost import Op
from thrifty.cost.calibrations import Calibration
from thrifty.cost.kernels import SHORTEST_S, Kernel, Kernels, kernel_seconds, rates_of, segment_seconds
from thrifty.cost.op_kernels import op_kernel, op_seconds
from thrifty.errors import JobError
from thrifty.hardware.cluster import find_device

PLAIN = Calibration(name="test / plain", family="test", software="plain")
A100 = find_device("a100-80g")
RATES = rates_of(A100, PLAIN, "bf16")


def seconds(m: float, n: float, k: float) -> float:
    product = Kernel(0, "matmul", 2 * m * n * k, 2 * (m * k + k * n + m * n), 1, m, n, k)
    return float(kernel_seconds(Kernels([product], 1), RATES)[0])


def op(**more: object) -> Op:
    plain: dict[str, object] = {
        "name": "addmm", "kind": "matmul", "phase": "forward", "flops": 2 * 64 * 32 * 16, "bytes_read": 100,
        "bytes_written": 50, "dtype": "bfloat16", "shapes": "32,64x16,16x32->64x32",
    }  # fmt: skip
    return Op(**{**plain, **more})  # type: ignore[arg-type]


@given(*[st.integers(1, 64)] * 3)
def test_no_product_beats_its_roofline(m: int, n: int, k: int) -> None:
    m, n, k = 256 * m, 128 * n, 64 * k
    ideal = max(2 * m * n * k / (312e12 * PLAIN.matmul), 2 * (m * k + k * n + m * n) / (2.039e12 * PLAIN.memory))
    assert seconds(m, n, k) >= ideal * 0.999


@given(st.integers(1, 100), st.integers(1, 4000))
def test_longer_inner_sides_take_longer(a: int, k: int) -> None:
    assert seconds(256 * a, 4096, 8 * (k + 1)) >= seconds(256 * a, 4096, 8 * k)


def test_large_products_near_their_share_of_the_peak() -> None:
    assert 2 * 8192**3 / seconds(8192, 8192, 8192) == pytest.approx(312e12 * PLAIN.matmul, rel=0.1)


def test_sides_that_tensor_cores_cannot_take_are_slow() -> None:
    assert seconds(4096, 4096, 4092) > 3 * seconds(4096, 4096, 4096)


def test_no_kernel_ends_at_once() -> None:
    assert seconds(8, 8, 8) == SHORTEST_S


def test_waiting_for_the_host() -> None:
    kernels = Kernels([Kernel(0, "other", 0.0, 1.0, times=1000)], 1)
    launching = rates_of(A100, PLAIN.model_copy(update={"launch_s": 1e-4}), "bf16")
    assert segment_seconds(kernels, launching).sum() == pytest.approx(0.1, rel=0.01)
    blocking = rates_of(A100, PLAIN.model_copy(update={"launch_s": 1e-4, "blocking": 1.0}), "bf16")
    assert segment_seconds(kernels, blocking).sum() == pytest.approx(0.1 + 1000 * SHORTEST_S, rel=0.01)


def test_precision_that_a_device_lacks() -> None:
    with pytest.raises(JobError, match="has no fp8 arithmetic"):
        rates_of(A100, PLAIN, "fp8")


def test_operators_become_products() -> None:
    kernel = op_kernel(op())
    assert (kernel.batch, kernel.m, kernel.n, kernel.k) == (1, 64, 32, 16)
    batched = op_kernel(op(name="bmm", flops=2 * 4 * 8 * 6 * 5, shapes="4x8x5,4x5x6->4x8x6"))
    assert (batched.batch, batched.m, batched.n, batched.k) == (4, 8, 6, 5)
    shapes = "2x3x12x12,8x3x3x3->2x8x10x10"
    window = op_kernel(op(name="convolution", kind="convolution", flops=2 * 2 * 8 * 10 * 10 * 27, shapes=shapes))
    assert (window.m, window.n, window.k) == (200, 8, 40), "three channels are filled up to four, 36 to 40"


@pytest.mark.parametrize(
    ("dtype", "channels", "inner"),
    [("float32", 3, 32), ("bfloat16", 3, 40), ("bfloat16", 5, 72), ("bfloat16", 16, 144)],
)
def test_channels_are_filled_up_for_tensor_cores(dtype: str, channels: int, inner: int) -> None:
    flops = 2 * 2 * 8 * 10 * 10 * 9 * channels
    forward = op(
        name="convolution",
        kind="convolution",
        dtype=dtype,
        flops=flops,
        shapes=f"2x{channels}x12x12,8x{channels}x3x3->2x8x10x10",
    )
    shapes = f"2x8x10x10,2x{channels}x12x12,8x{channels}x3x3->2x{channels}x12x12,8x{channels}x3x3"
    backward = replace(forward, name="convolution_backward", flops=2 * flops, shapes=shapes, phase="backward")
    assert (op_kernel(forward).m, op_kernel(forward).k) == (200, inner)
    assert 2 * inner - 8 <= op_kernel(backward).k <= 2 * inner


@pytest.mark.parametrize("kind", ["pointwise", "reduction", "gather", "copy", "other", "softmax"])
def test_operators_without_arithmetic_cost_their_traffic(kind: str) -> None:
    moved = op(kind=kind, flops=0, bytes_read=2**30, bytes_written=2**30, dtype="int64")
    assert op_seconds(moved, A100, PLAIN) == pytest.approx(2**31 / (2.039e12 * PLAIN.memory), rel=0.01)


def test_the_default_calibration_of_a_device() -> None:
    assert 0 < op_seconds(op(), A100) < 1e-3
