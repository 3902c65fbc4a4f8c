"""The timeline of a step: what holds memory when, against a chain known by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from thrifty import optim
from thrifty.cost import Trace, trace_step
from thrifty.cost.timeline import HOLDERS, timeline


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(100, 1000), nn.Linear(1000, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).exp())


def summed(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Any]:
    return model(batch["x"]).sum(), 1


def traced() -> Trace:
    shapes = {"x": ((500, 100), "float32")}
    return trace_step(Chain, summed, shapes, precision="fp32", optimizer=optim.by_name("momentum"))


def test_the_peak_is_in_the_backward_pass_and_its_parts_add_up() -> None:
    step = traced()
    found = timeline(step)
    assert set(found.bytes) == set(HOLDERS)
    assert {len(values) for values in found.bytes.values()} == {len(found.ops)} == {len(step.ops)}
    assert found.peak_bytes == sum(found.holds.values()) == max(map(sum, zip(*found.bytes.values(), strict=True)))
    assert found.ops[found.peak_op].startswith("backward")
    assert found.holds["weights"] == step.parameter_bytes
    assert found.holds["optimizer states"] == step.optimizer_bytes
    # the result of exp is kept for its own gradient and for the second product
    assert found.holds["activations"] >= 4 * 500 * 1000
    assert dict(found.modules)["Chain"] >= 4 * 500 * 1000


def test_gradients_of_earlier_micro_batches_are_there_from_the_start() -> None:
    step = traced()
    plain, adding = timeline(step), timeline(step, accumulating=True)
    assert adding.bytes["gradients"][0] == plain.bytes["gradients"][0] + step.gradient_bytes


def test_a_step_without_operators_holds_its_weights() -> None:
    step = trace_step(
        lambda: nn.Linear(4, 2), summed, {"x": ((3, 4), "float32")}, precision="fp32",
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    )  # fmt: skip
    assert timeline(step).peak_bytes >= step.parameter_bytes + step.input_bytes
