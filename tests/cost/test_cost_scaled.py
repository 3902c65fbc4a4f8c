"""A step at any number of samples: on the line through two traces lies exactly what a third would be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import nn

from thrifty import models
from thrifty.cost import Op, Trace, peak_bytes, trace_step
from thrifty.cost.scaled import SAMPLES, ScaledTrace
from thrifty.errors import JobError
from thrifty.models.losses import cross_entropy
from thrifty.models.recompute import recomputing
from thrifty.optim import by_name
from thrifty.planner.declared import declared_dataset
from thrifty.spec import DeclaredData, DeclaredImages

Precision = Literal["fp32", "bf16"]
IMAGES = declared_dataset(DeclaredImages(kind="image", images=1000, classes=10, size=32))
TEXT = declared_dataset(DeclaredData(kind="language", tokens=10**6, vocabulary=500, length=32))


def traced(name: str, samples: int, precision: Precision, optimizer: str, checkpointing: str = "none") -> Trace:
    dataset = TEXT if name.startswith("gpt") else IMAGES
    shape = (samples, *dataset.shape)
    image = dataset.kind == "image"
    return trace_step(
        lambda: recomputing(models.build(models.resolve(name, dataset)), checkpointing),
        cross_entropy,
        {"x": (shape, "float32" if image else "int64"), "y": ((samples,) if image else shape, "int64")},
        precision=precision,
        optimizer=by_name(optimizer),
    )


CASES = [
    ("resnet8", "bf16", "momentum", "none"),
    ("resnet8", "fp32", "adamw", "none"),
    ("resnet50", "bf16", "momentum", "none"),
    ("mlp-small", "bf16", "adamw", "none"),
    ("gpt-nano", "bf16", "adamw", "none"),
    ("gpt-nano", "fp32", "adamw", "selective"),
    ("gpt-nano", "bf16", "adamw", "full"),
]


def without_lookups(op: Op) -> Op:
    """A lookup reads no more than its table, however many samples ask: the one kink in the lines."""
    return replace(op, bytes_read=0) if op.name == "embedding" else op


@pytest.mark.slow
@pytest.mark.parametrize(("name", "precision", "optimizer", "checkpointing"), CASES)
def test_what_lies_on_the_line_is_what_is_traced(
    name: str, precision: Precision, optimizer: str, checkpointing: str
) -> None:
    scaled = ScaledTrace(*(traced(name, samples, precision, optimizer, checkpointing) for samples in SAMPLES))
    for samples in (2, 3, 96):
        told, seen = scaled.at(samples), traced(name, samples, precision, optimizer, checkpointing)
        assert list(map(without_lookups, told.ops)) == list(map(without_lookups, seen.ops))
        assert told.step.blocks == seen.step.blocks
        assert told.evaluation.peak_bytes() == seen.evaluation.peak_bytes()
        assert (told.input_bytes, told.parameter_sizes) == (seen.input_bytes, seen.parameter_sizes)
        for kind in ("cpu", "cuda"):
            for accumulation in (1, 4):
                peaks = [
                    peak_bytes(each, device_kind=kind, accumulation=accumulation)  # type: ignore[arg-type]
                    for each in (told, seen)
                ]
                assert peaks[0] == peaks[1]


class Moody(nn.Module):
    """Does something else with many samples."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Any) -> Any:
        return self.fc(x) if len(x) < SAMPLES[1] else self.fc(torch.relu(x))


def test_a_model_that_does_other_things_with_more_samples_is_told() -> None:
    def moody(samples: int) -> Trace:
        return trace_step(
            Moody,
            lambda model, batch: (model(batch["x"]).sum(), samples),
            {"x": ((samples, 4), "float32")},
            precision="fp32",
            optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
        )

    with pytest.raises(JobError, match=r"steps of 4 and of 8 samples do different things: .* leave out --on"):
        ScaledTrace(moody(SAMPLES[0]), moody(SAMPLES[1]))
