"""What a model weighs: parameters, bytes, operations, and how long an answer takes; and what a move took off it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from thrifty.compress.moves.move import Candidate, Context
from thrifty.data import Batch
from thrifty.export.weights import stored
from thrifty.models.inputs import input_of, to_tensors
from thrifty.models.packed import Packed
from thrifty.spec import ModelPlan
from thrifty.spec.units import format_bytes, format_count, format_seconds

TIMED = 3


@dataclass(frozen=True)
class Weight:
    """Of a model that answers one batch.

    Attributes:
        parameters: numbers that were learned.
        bytes: of all tensors that a bundle holds.
        flops: of matrix products and convolutions.
    """

    parameters: int
    bytes: int
    flops: int


def weigh(model: nn.Module, batch: Batch) -> Weight:
    """Weigh a model in ``eval`` mode by what it does with a batch, on the CPU."""
    parameters = {id(each): each.numel() for each in model.parameters()}
    held = sum(each.numel() * each.element_size() for each in stored(model).values())
    return Weight(sum(parameters.values()), held, count_flops(model, input_of(to_tensors(batch))))


def time_answers(models: Sequence[nn.Module], batch: Batch) -> list[float]:
    """Seconds that models take to answer a batch: the least of `TIMED` times each, in turn, after a first one."""
    x = input_of(to_tensors(batch))
    least = [math.inf] * len(models)
    with torch.inference_mode():
        for turn in range(1 + TIMED):
            for at, model in enumerate(models):
                began = time.perf_counter()
                model(x)
                if turn:
                    least[at] = min(least[at], time.perf_counter() - began)
    return least


def count_flops(model: nn.Module, x: Tensor | Packed) -> int:
    """Operations of a model's answer, of matrix products and convolutions alone; on any device, ``meta`` too."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    return counter.get_total_flops()


def made(
    context: Context, before: Candidate, name: str, model: nn.Module, plan: ModelPlan, says: str, began: float
) -> Candidate:
    """Return the candidate that a move made, with what it says, and what was saved at which cost.

    Args:
        context: of the move.
        before: that it was given.
        name: of the move.
        model, plan: what it made; the model is put in ``eval`` mode, without gradients.
        says: what it did.
        began: ``time.perf_counter`` when it began.
    """
    model.eval().requires_grad_(False)
    batch = _rows(context.calibration[0], context.batch)
    was, now = weigh(before.model, batch), weigh(model, batch)
    slow_s, fast_s = time_answers((before.model, model), batch)
    saved = (
        f"parameters {format_count(was.parameters)} to {format_count(now.parameters)}, "
        f"{format_bytes(was.bytes)} to {format_bytes(now.bytes)}, "
        f"operations to {now.flops / max(1, was.flops):.0%}, "
        f"an answer {1000 * slow_s:.2f} to {1000 * fast_s:.2f} ms; "
        f"it took {format_seconds(time.perf_counter() - began)}"
    )
    return Candidate(model, plan, (*before.taken, name), says=(*before.says, f"{says}; {saved}"))


def answer_seconds(model: nn.Module, batches: Sequence[Batch]) -> float:
    """Seconds that a row of these batches takes a model to answer."""
    return time_answers((model,), batches[0])[0] / len(batches[0]["y"])


def _rows(batch: Batch, count: int) -> Batch:
    """The first rows of a batch; all of one whose rows lie end to end."""
    if any(key.startswith("places") for key in batch):
        return batch
    return {key: each[:count] for key, each in batch.items()}
