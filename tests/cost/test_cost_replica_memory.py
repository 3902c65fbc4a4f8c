"""Memory of copies: what is shared out is less by just that, what is held adds up, one device is the trace's peak."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from thrifty.cost import Trace, peak_bytes, trace_step
from thrifty.cost.device_overhead import context_bytes
from thrifty.cost.replica_memory import HOST_BYTES, ReplicaMemory, StepMemory, Units
from thrifty.spec import Layout

WIDTH, LAYERS = 512, 6
BLOCK = 4 * (WIDTH * WIDTH + WIDTH)
WEIGHTS = LAYERS * BLOCK
UNITS = Units(float(BLOCK))


@pytest.fixture(scope="module")
def trace() -> Trace:
    return trace_step(
        lambda: nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))),
        lambda model, batch: (model(batch["x"]).square().sum(), 1),
        {"x": ((64, WIDTH), "float32")},
        precision="fp32",
        optimizer=lambda model: torch.optim.AdamW(model.parameters()),
        clip=False,
    )


def held(trace: Trace, kind: str = "cuda", **layout: object) -> ReplicaMemory:
    return StepMemory(trace, kind, UNITS).held(Layout.model_validate(layout))  # type: ignore[arg-type]


def test_one_device_is_the_peak_of_the_trace_and_its_context(trace: Trace) -> None:
    alone, context = peak_bytes(trace, device_kind="cuda"), context_bytes("cuda", Layout())
    assert held(trace).total.value == alone.value + context.value
    assert held(trace).total.high == alone.high + context.high
    process = peak_bytes(trace, device_kind="cpu")
    assert held(trace, "cpu").total.value == process.value


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
@pytest.mark.parametrize("accumulation", [1, 4])
def test_what_is_held_adds_up(trace: Trace, zero: int, accumulation: int) -> None:
    memory = held(trace, data=4, zero=zero, accumulation=accumulation)
    assert sum(memory.holds.values()) == pytest.approx(memory.total.value)
    assert memory.total.low <= memory.total.value <= memory.total.high
    assert min(memory.holds.values()) > 0


def test_zero_shares_out_states_then_gradients_then_weights(trace: Trace) -> None:
    none, states, gradients, weights = (held(trace, data=4, zero=zero).holds for zero in range(4))
    assert states["optimizer states"] == pytest.approx(none["optimizer states"] / 4)
    assert states["weights"] == none["weights"] == WEIGHTS
    assert gradients["gradients"] == pytest.approx(WEIGHTS / 4)
    assert gradients["gradients to be shared out"] == BLOCK
    assert weights["weights"] == pytest.approx(WEIGHTS / 4)
    assert weights["gathered weights"] == 2 * BLOCK
    totals = [held(trace, data=4, zero=zero).total.value for zero in range(4)]
    assert totals == sorted(totals, reverse=True)


def test_more_devices_hold_less_each(trace: Trace) -> None:
    totals = [held(trace, data=data, zero=3).total.value for data in (2, 4, 8, 64)]
    assert totals == sorted(totals, reverse=True)


def test_gradients_that_are_summed_live_through_the_step(trace: Trace) -> None:
    assert held(trace, accumulation=4).total.value >= held(trace).total.value
    assert held(trace, data=2).holds["gradients"] >= WEIGHTS


def test_small_states_and_states_on_the_host(trace: Trace) -> None:
    plain, half, eighth = (held(trace, state_bytes=size).holds["optimizer states"] for size in (4, 2, 1))
    assert half == pytest.approx(plain / 2)
    assert plain / 4 < eighth < plain / 3.5
    away = held(trace, offload=True, data=4, zero=1)
    assert "optimizer states" not in away.holds
    assert away.host == HOST_BYTES * trace.parameters / 4
