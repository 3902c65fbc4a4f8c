"""One micro-batch of a job as a traced step, for the ways of this machine and of clusters alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from torch import nn
from torch.optim import Optimizer

import thrifty.planner.rules as rules
from thrifty import models
from thrifty.cost import Trace, trace_step
from thrifty.models.adapters import adapting
from thrifty.models.dropout import use_dropout
from thrifty.models.losses import LOSSES, cross_entropy, whole_cross_entropy
from thrifty.models.recompute import recomputing
from thrifty.optim import by_name
from thrifty.optim.gather import Closure
from thrifty.optim.rows import foresee_rows
from thrifty.planner.learning import Learning, read_rows
from thrifty.planner.lengths import PackedShape
from thrifty.planner.remembered import remembered
from thrifty.spec import BF16_HELD, Dataset, KindName, LoopPrecision
from thrifty.spec.layout import Rows


def built(learning: Learning, checkpointing: str) -> nn.Module:
    """Build the model as steps are taken of it: adapted, computed again where it is, and with its way of dropout."""
    model = use_dropout(models.build(learning.model), rules.dropout(learning.traits)[0])
    return recomputing(adapting(model, learning.adapt), checkpointing)


Shapes = dict[str, tuple[tuple[int, ...], str]]


def _recordings(dataset: Dataset, samples: int, length: int | None) -> Shapes:
    longest, width = dataset.shape
    answers: tuple[int, ...] = (samples,)
    if dataset.task == "transcribe":
        # the mean of tokens; what a longer transcript adds is small beside the model
        answers = (samples, max(1, math.ceil(sum(dataset.label_counts.values()) / dataset.counts["train"])))
    return {"x": ((samples, length or longest, width), "float32"), "y": (answers, "int64")}


def _images(dataset: Dataset, samples: int, length: int | None) -> Shapes:
    shape = dataset.shape if length is None else (dataset.shape[0], length, length)
    return {"x": ((samples, *shape), "float32"), "y": ((samples,), "int64")}


def _texts(dataset: Dataset, samples: int, length: int | None) -> Shapes:
    x = (samples, length or dataset.shape[0])
    return {"x": (x, "int64"), "y": _told(dataset, samples, x)}


def _told(dataset: Dataset, samples: int, x: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
    """Shape and type of what is told of texts."""
    if dataset.task == "tag":
        return (samples, len(dataset.labels)), "float32"
    return x if dataset.task in {"mask", "language"} else (samples,), "int64"


def _rows(dataset: Dataset, samples: int, length: int | None) -> Shapes:
    answer = "int64" if dataset.labels else "float32"
    return {"x": ((samples, *dataset.shape), "float32"), "y": ((samples,), answer)}


def _windows(dataset: Dataset, samples: int, length: int | None) -> Shapes:
    return dict.fromkeys(("x", "y"), ((samples, length or dataset.shape[0]), "int64"))


_SHAPES: dict[KindName, Callable[[Dataset, int, int | None], Shapes]] = {
    "audio": _recordings,
    "image": _images,
    "language": _windows,
    "table": _rows,
    "text": _texts,
}


def batch_of(dataset: Dataset, samples: int, length: int | PackedShape | None = None) -> Shapes:
    """Shapes and types of a batch: images [B, C, H, W], recordings [B, T, M] or texts [B, T] and their labels [B], of
    texts several labels [B, K], or tokens [B, T] twice.

    Texts and recordings are as long as the longest there is, or of ``length`` tokens, or packed to that shape; images
    as they were prepared, or of that side.
    """
    if isinstance(length, PackedShape):
        places = {f"places{index}": (grid, "int64") for index, grid in enumerate(length.grids)}
        texts = sum(each for each, _ in length.grids)
        x = (1, length.tokens)
        return {"x": (x, "int64"), "y": _told(dataset, texts, x), **places}
    return _SHAPES[dataset.kind](dataset, samples, length)


def rows_of(learning: Learning, precision: str) -> Rows:
    """Which rows of an embedding are trained: weights in bf16 all are, for rows that wait are float32's."""
    return "all" if precision in BF16_HELD else learning.rows


def stepper_of(learning: Learning, dataset: Dataset, precision: str) -> Callable[[nn.Module], Optimizer]:
    """What makes the optimizer of a model whose step is traced or dry-run."""
    make = by_name(learning.optim.optimizer, precision)

    def made(model: nn.Module) -> Optimizer:
        optimizer = make(model)
        if rows_of(learning, precision) == "used":
            foresee_rows(model, optimizer, dataset.vocabulary, read_rows(dataset, learning.size))
        return optimizer

    return made


class Elsewhere(Optimizer):
    """Stands for an optimizer that works in another memory: the device does and holds nothing for it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model.parameters(), {})

    def step(self, closure: Closure = None) -> Any:
        """Do nothing, here."""


def trace_of(
    learning: Learning,
    dataset: Dataset,
    samples: int,
    *,
    precision: LoopPrecision,
    memory_format: Literal["contiguous", "channels_last"] = "contiguous",
    checkpointing: str = "none",
    device: Literal["cpu", "cuda"] = "cpu",
    length: int | PackedShape | None = None,
    whole_logits: bool = False,
    accumulating: bool = False,
    release: bool = False,
    offload: bool = False,
) -> Trace:
    """Trace a step of so many samples, texts as in `batch_of`; with ``whole_logits`` no loss goes by chunks.

    With ``offload`` the optimizer's part of the step is not the device's.

    Raises:
        JobError: as `thrifty.cost.trace_step` and `thrifty.models.recompute.recomputing`.
    """
    loss = LOSSES[learning.task]
    loss = whole_cross_entropy if whole_logits and loss is cross_entropy else loss
    batch, clips = batch_of(dataset, samples, length), math.isfinite(learning.optim.clip)
    # rows that a step reads are those of the dataset's lengths
    rows = read_rows(dataset, learning.size) if learning.rows == "used" else 0

    def trace() -> Trace:
        return trace_step(
            lambda: built(learning, checkpointing),
            loss,
            batch,
            precision=precision,
            memory_format=memory_format,
            optimizer=Elsewhere if offload else stepper_of(learning, dataset, precision),
            clip=clips,
            device=device,
            accumulating=accumulating,
            release=release,
        )

    how = (precision, memory_format, checkpointing, device, accumulating, release, offload, clips)
    return remembered(learning, (loss, tuple(batch.items()), rows, dataset.vocabulary, *how), trace)
