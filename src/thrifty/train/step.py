"""One optimizer step, over its micro-batches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from thrifty import optim
from thrifty.data.answers import count_answers
from thrifty.models.inputs import to_tensors
from thrifty.models.losses import LOSS_SUMS, LossSum
from thrifty.models.precision import autocasting
from thrifty.optim.groups import rate_of
from thrifty.optim.release import Release
from thrifty.optim.rows import UsedRows
from thrifty.spec import Plan
from thrifty.train.precision import LossScale, gradient_norm, read
from thrifty.train.spread import ONE_DEVICE, Spread

UNSCALED = LossScale()


def take_step(
    plan: Plan,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    micro_batches: list[dict[str, np.ndarray]],
    learning_rate: float,
    used: Sequence[UsedRows] = (),
    sound: Callable[[float, float], bool] = lambda loss, norm: True,
    scale: LossScale = UNSCALED,
    spread: Spread = ONE_DEVICE,
    release: Release | None = None,
    loss: LossSum | None = None,
) -> tuple[float, float]:
    """Take one optimizer step over its micro-batches; return the mean loss and the norm of the gradient.

    Each micro-batch adds the gradient of the sum of its losses over the weight of the whole step, so the gradient does
    not depend on how the step is cut, nor over how many ranks. Of the embeddings of ``used``, the rows that the step
    reads are trained. The weights stay as they are where ``sound``, asked with what is returned, says no; or where the
    ``scale`` of the loss was too high.

    Args:
        plan: for the task, precision, device and clipping.
        model, optimizer: with the plan's savings.
        micro_batches: of `thrifty.data.Batches.step`; of several ranks this one's.
        learning_rate: of this step.
        used, sound: as above.
        scale: of the loss; read and changed where it may be.
        spread: over the ranks that take the step together.
        release: steps parameters in the backward pass over the one micro-batch there is, with no ranks, scale and
            clipping; ``sound`` is then asked by the loss alone, and once more where the norm turns out to be no
            number, when weights have changed. The norm of a step that is left out is 0: it has no gradient.
        loss: summed over a micro-batch; the task's own when left out.
    """
    loss_of = loss or LOSS_SUMS[plan.task]
    for each in used:
        each.take(list(itertools.chain(*spread.world.everyones([batch["x"] for batch in micro_batches]))))
    weight = spread.world.total(sum(count_answers(batch["y"]) for batch in micro_batches))
    losses, by = [], scale.scale
    with spread.world.own_draws():
        for number, arrays in enumerate(micro_batches, start=1):
            spread.begin(arrays["y"])
            batch = to_tensors(arrays, plan.device, plan.memory_format)
            with autocasting(plan.device, plan.precision):
                loss_sum = loss_of(model, batch)
            if release is not None:
                assert len(micro_batches) == 1, "gradients of a part of a step cannot be released"
                return _released(release, loss_sum, weight, learning_rate, sound)
            spread.last(number == len(micro_batches))
            loss_sum.backward(loss_sum.new_full((), by / weight))
            losses.append(loss_sum.detach())
    spread.sum()
    parameters = optim.parameters_of(optimizer)
    gradients = [spread.own(each.grad) for each in parameters if each.grad is not None]
    total = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
    total_loss, scaled_norm = spread.agreed(*read(total, gradient_norm(gradients)))
    mean, norm = total_loss / weight, scaled_norm / by
    if not scale.overflows(mean, norm) and sound(mean, norm):
        factor = (plan.optim.clip / norm if norm > plan.optim.clip else 1.0) / by
        if factor != 1.0:
            torch._foreach_mul_(gradients, factor)
        for group in optimizer.param_groups:
            group["lr"] = rate_of(group, learning_rate)
        optimizer.step()
    for parameter in parameters:
        parameter.grad = None
    return mean, norm


def rehearse_step(
    plan: Plan,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    micro_batches: list[dict[str, np.ndarray]],
    used: Sequence[UsedRows] = (),
    release: Release | None = None,
    loss: LossSum | None = None,
) -> None:
    """Compute the gradients of micro-batches as `take_step` does, and change no weight.

    Args:
        plan, model, optimizer, micro_batches, used, release, loss: of the step; one micro-batch where gradients are
            released.
    """
    if release is None:
        take_step(plan, model, optimizer, micro_batches, 0.0, used, lambda mean, norm: False, loss=loss)
        return
    (arrays,) = micro_batches
    for each in used:
        each.take([arrays["x"]])
    with autocasting(plan.device, plan.precision):
        loss_of = loss or LOSS_SUMS[plan.task]
        loss_sum = loss_of(model, to_tensors(arrays, plan.device, plan.memory_format))
    release.rehearse(loss_sum)


def _released(
    release: Release, loss_sum: Tensor, weight: int, learning_rate: float, sound: Callable[[float, float], bool]
) -> tuple[float, float]:
    """Take the backward pass with the optimizer's step in it, if the loss is sound."""
    mean = read(loss_sum.detach())[0] / weight
    if not sound(mean, 0.0):
        return mean, 0.0
    norm = read(release.backward(loss_sum, 1.0 / weight, learning_rate))[0]
    if not math.isfinite(norm):
        sound(mean, norm)
    return mean, norm
