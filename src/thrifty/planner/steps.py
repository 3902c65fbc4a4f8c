"""One micro-batch of a job as a traced step, for the ways of this machine and of clusters alike."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from thrifty import models
from thrifty.cost import Trace, trace_step
from thrifty.models.adapters import adapting
from thrifty.models.losses import LOSSES
from thrifty.models.recompute import recomputing
from thrifty.optim import by_name
from thrifty.planner.learning import Learning
from thrifty.spec import Dataset

if TYPE_CHECKING:
    from torch import nn


def built(learning: Learning, checkpointing: str) -> nn.Module:
    """Build the model as steps are taken of it: adapted, and computed again where it is."""
    return recomputing(adapting(models.build(learning.model), learning.adapt), checkpointing)


def batch_of(dataset: Dataset, samples: int) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shapes and types of a batch: images [B, C, H, W] and their labels [B], or tokens [B, T] and those after them."""
    shape = (samples, *dataset.shape)
    if dataset.kind == "image":
        return {"x": (shape, "float32"), "y": ((samples,), "int64")}
    return {"x": (shape, "int64"), "y": (shape, "int64")}


def trace_of(
    learning: Learning,
    dataset: Dataset,
    samples: int,
    *,
    precision: Literal["fp32", "bf16"],
    memory_format: Literal["contiguous", "channels_last"] = "contiguous",
    checkpointing: str = "none",
    device: Literal["cpu", "cuda"] = "cpu",
) -> Trace:
    """Trace a step of so many samples.

    Raises:
        JobError: as `thrifty.cost.trace_step` and `thrifty.models.recompute.recomputing`.
    """
    return trace_step(
        lambda: built(learning, checkpointing),
        LOSSES[learning.task],
        batch_of(dataset, samples),
        precision=precision,
        memory_format=memory_format,
        optimizer=by_name(learning.optim.optimizer),
        clip=math.isfinite(learning.optim.clip),
        device=device,
    )
