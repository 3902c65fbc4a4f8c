"""Where a step's memory and time go adds up to the whole of the trace, by module as by operator."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from thrifty.cost import Trace, trace_step
from thrifty.planner.breakdown import MOST_MODULES, REST, breakdown, repeated
from thrifty.spec import Device, Quantity


@pytest.fixture(scope="module")
def trace() -> Trace:
    def build() -> nn.Module:
        return nn.Sequential(*(nn.Sequential(nn.Linear(16, 16), nn.ReLU()) for _ in range(4)), nn.Linear(16, 2))

    return trace_step(
        build,
        lambda model, batch: (model(batch["x"]).square().sum(), 8),
        {"x": ((64, 16), "float32")},
        precision="fp32",
        optimizer=lambda model: torch.optim.Adam(model.parameters()),
    )


def device() -> Device:
    rate = Quantity(value=1e9, source="declared")
    return Device.model_construct(
        kind="cpu", isa=(), flops_per_second={"fp32": rate}, bytes_per_second=rate, kernels=(), measured_on=""
    )


def test_parts_add_up(trace: Trace) -> None:
    found = breakdown(trace, trace, device(), peak_bytes=1e6, accumulating=False)
    assert sum(found.holds.values()) == pytest.approx(1e6)
    assert found.holds["weights"] == trace.parameter_bytes
    assert sum(found.seconds_by_module.values()) == pytest.approx(sum(found.seconds_by_op.values()))
    assert {"*.*", "*"} <= set(found.seconds_by_module), found.seconds_by_module
    assert len(found.seconds_by_module) <= MOST_MODULES + 1
    assert found.peak_at.split(" · ")[0] in {"forward", "backward", "clip", "optimizer"}
    assert len(found.timeline.at) == len(found.timeline.held["weights"]) > 10
    assert list(found.modules.values()) == sorted(found.modules.values(), reverse=True)


def test_blocks_that_repeat_are_one() -> None:
    assert repeated("h.11.attn.c_proj") == "h.*.attn.c_proj" and repeated("layer1.conv2") == "layer1.conv2"
    assert repeated("3") == "*" and repeated("") == "the loss and the optimizer" and REST
