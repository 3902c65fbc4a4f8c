"""One micro-batch of a job as a traced step, for the ways of this machine and of clusters alike."""

from __future__ import annotations

import math
from typing import Literal

from thrifty import models
from thrifty.cost import Trace, trace_step
from thrifty.models.losses import LOSSES
from thrifty.models.recompute import recomputing
from thrifty.optim import by_name
from thrifty.planner.learning import Learning
from thrifty.spec import Dataset


def batch_of(dataset: Dataset, samples: int, length: int | None = None) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shapes and types of a batch: images [B, C, H, W] or texts [B, T] and their labels [B], or tokens [B, T] twice.

    Texts are as long as the longest there is, or of ``length`` tokens.
    """
    shape = (samples, *dataset.shape)
    if dataset.kind == "text":
        return {"x": ((samples, length or dataset.shape[0]), "int64"), "y": ((samples,), "int64")}
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
    length: int | None = None,
) -> Trace:
    """Trace a step of so many samples, texts as in `batch_of`.

    Raises:
        JobError: as `thrifty.cost.trace_step` and `thrifty.models.recompute.recomputing`.
    """
    return trace_step(
        lambda: recomputing(models.build(learning.model), checkpointing),
        LOSSES[learning.task],
        batch_of(dataset, samples, length),
        precision=precision,
        memory_format=memory_format,
        optimizer=by_name(learning.optim.optimizer),
        clip=math.isfinite(learning.optim.clip),
        device=device,
    )
