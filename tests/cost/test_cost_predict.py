"""The whole prediction: times, probes, validations, and a sentence for each figure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from thrifty import optim
from thrifty.cost import predict, trace_step
from thrifty.spec import Cost, Device, Quantity

DEVICE = Device.model_construct(
    kind="cpu",
    isa=(),
    flops_per_second={"fp32": Quantity(value=1e11, source="measured")},
    bytes_per_second=Quantity(value=2e10, source="measured"),
    idle_watts=Quantity(value=20.0, source="declared"),
    busy_watts=Quantity(value=100.0, source="declared"),
    usd_per_hour=Quantity(value=0.36, source="list price"),
)


def _loss(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
    return model(batch["x"]).sum(), 8


MICRO = trace_step(
    lambda: nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)),
    _loss,
    {"x": ((8, 64), "float32")},
    precision="fp32",
    optimizer=optim.by_name("momentum"),
)


def price(**changed: Any) -> Cost:
    given_values: dict[str, Any] = {
        "micro": MICRO,
        "samples_per_micro": 8,
        "accumulation": 2,
        "steps": 100,
        "evaluations": 0,
        "evaluation_samples": 80,
        "device": DEVICE,
        "precision": "fp32",
    }
    return predict(**{**given_values, **changed})


def test_a_probe_is_believed_over_the_trace() -> None:
    cost = price(probe_step_seconds=(0.5, 0.4, 0.6, 0.5, 0.7))
    assert cost.seconds.value == pytest.approx(50)
    assert (cost.seconds.low, cost.seconds.high) == pytest.approx((40, 70))
    assert "5 real steps timed" in cost.seconds.method
    assert "no step was timed" in price().seconds.method


def test_one_timed_step_leaves_more_doubt_than_five_alike() -> None:
    one, five = price(probe_step_seconds=(0.5,)).seconds, price(probe_step_seconds=(0.5,) * 5).seconds
    assert one.high > five.high > five.value == one.value


@given(st.integers(1, 20), st.integers(1, 10_000))
def test_validations_cost_a_forward_share(evaluations: int, samples: int) -> None:
    without = price(probe_step_seconds=(1.0,) * 3)
    with_them = price(probe_step_seconds=(1.0,) * 3, evaluations=evaluations, evaluation_samples=samples)
    added = with_them.seconds.value - without.seconds.value
    # a step of 16 samples takes a second, of which the forward pass has between a fifth and a half
    assert 0.2 < added / (evaluations * samples / 16) < 0.5
    # FLOPs are those of training
    assert with_them.flops == without.flops


@given(st.integers(1, 10_000), st.floats(0, 5))
def test_how_many_validations_may_be_told_by_what_they_cost(samples: int, save_s: float) -> None:
    asked: list[tuple[float, float]] = []

    def count(step_s: float, validation_s: float) -> int:
        asked.append((step_s, validation_s))
        return 3

    given_values: dict[str, Any] = {
        "probe_step_seconds": (1.0,) * 3, "evaluation_samples": samples, "save_seconds": save_s
    }  # fmt: skip
    cost = price(evaluations=count, **given_values)
    assert cost == price(evaluations=3, **given_values)
    ((step_s, validation_s),) = asked
    assert cost.seconds.value == pytest.approx(100 * step_s + 3 * validation_s)


def test_flops_are_the_trace_times_micro_batches() -> None:
    layer = 2 * 8 * 64 * 64
    assert price().flops.value == 100 * 2 * (2 * layer + 3 * layer)


def test_energy_and_money_follow_the_time() -> None:
    cost = price(probe_step_seconds=(1.0,) * 3)
    assert cost.joules.value == pytest.approx(100 * 96)
    assert cost.usd.value == pytest.approx(0.01)
    assert price(steps=200, probe_step_seconds=(1.0,) * 3).usd.value == pytest.approx(0.02)


def test_each_figure_says_how_it_was_got() -> None:
    for name, interval in price(evaluations=3):
        assert len(interval.method) > 20, name
        assert interval.low <= interval.value <= interval.high


def test_a_gpu_draws_by_what_it_does_and_a_cpu_by_its_threads() -> None:
    busy = {"fp32": Quantity(value=1e8, source="datasheet")}
    gpu = DEVICE.model_copy(
        update={
            "kind": "cuda",
            "kernels": (),
            "datasheet_flops_per_second": busy,
            "datasheet_bytes_per_second": {"memory": Quantity(value=1e9, source="datasheet")},
        }
    )

    def watts(device: Device, step_s: float) -> float:
        cost = price(device=device, probe_step_seconds=(step_s,) * 5)
        return cost.joules.value / cost.seconds.value

    assert watts(gpu, 10.0) == pytest.approx(20 + 80 * 0.25, rel=0.01), "awake and waiting"
    assert watts(gpu, 0.02) > 1.5 * watts(gpu, 10.0)
    assert watts(DEVICE, 10.0) == pytest.approx(watts(DEVICE, 0.02))
