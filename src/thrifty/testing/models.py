"""The contract of a model, as checks that run on any: `check_model`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from thrifty.models.inputs import to_tensors
from thrifty.models.losses import LOSSES

Build = Callable[[], nn.Module]
Batch = dict[str, Tensor]

LEARNING_STEPS = 60
LEARNING_RATE = 3e-3


def check_model(build: Build, batch: Mapping[str, np.ndarray], task: str) -> None:
    """Check that a model keeps what the loop, the planner and the bundle rely on.

    Loss and gradients are finite and reach every parameter; in ``eval`` mode the same input gives the same bits,
    samples do not see each other, and the gradients of micro-batches add up to their batch's; the weights go to
    safetensors and back without change; and it learns a batch by heart.

    Args:
        build: makes the model with its initial weights; two calls may differ.
        batch: ``x`` and ``y`` of at least four samples.
        task: ``classify`` or ``language``.

    Raises:
        AssertionError: a promise is broken; the message says which.
    """
    assert len(batch["x"]) >= 4, "check_model needs a batch of at least four samples"
    tensors = to_tensors(batch)
    for check in (
        check_gradients,
        check_evaluation_repeats,
        check_samples_are_independent,
        check_micro_batches_add_up,
        check_weights_round_trip,
        check_learns,
    ):
        check(build, tensors, task)


def check_gradients(build: Build, batch: Batch, task: str) -> None:
    """The loss is finite, and so is the gradient of every parameter."""
    model = build().train()
    loss_sum, weight = LOSSES[task](model, batch)
    assert loss_sum.shape == () and torch.isfinite(loss_sum), f"the loss is {loss_sum}"
    assert 0 < int(weight) <= batch["y"].numel(), f"the loss is over {int(weight)} of {batch['y'].numel()} answers"
    loss_sum.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"no gradient reaches '{name}'"
        assert bool(torch.isfinite(parameter.grad).all()), f"the gradient of '{name}' is not finite"


@torch.no_grad()
def check_evaluation_repeats(build: Build, batch: Batch, task: str) -> None:
    """In ``eval`` mode the same input gives the same bits, and the model does not change."""
    model = build().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = model(batch["x"]), model(batch["x"])
    assert torch.equal(first, second), "the same input gave two answers in eval mode"
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert not changed, f"evaluating changed {changed}"


@torch.no_grad()
def check_samples_are_independent(build: Build, batch: Batch, task: str) -> None:
    """In ``eval`` mode an answer does not depend on what else is in the batch, nor where."""
    model, x = build().double().eval(), _double(batch)["x"]
    together = model(x)
    torch.testing.assert_close(model(x.flip(0)), together.flip(0), rtol=1e-9, atol=1e-9, msg=_says("order of a batch"))
    torch.testing.assert_close(model(x[:1]), together[:1], rtol=1e-9, atol=1e-9, msg=_says("rest of a batch"))


def check_micro_batches_add_up(build: Build, batch: Batch, task: str) -> None:
    """The gradients of the parts of a batch add up to the gradient of the whole.

    Taken in ``eval`` mode: a batch norm sees the whole micro-batch when it trains, and cannot keep this then.
    """
    model, batch = build().double().eval(), _double(batch)
    whole = _gradients(model, [batch], task)
    cut = len(batch["x"]) // 4
    parts = _gradients(model, [{k: v[:cut] for k, v in batch.items()}, {k: v[cut:] for k, v in batch.items()}], task)
    for name, gradient in whole.items():
        scale = max(float(gradient.norm()), 1e-12)
        apart = float((gradient - parts[name]).norm()) / scale
        assert apart < 1e-6, f"the gradient of '{name}' changes by {apart:.1e} when the batch is cut"


@torch.no_grad()
def check_weights_round_trip(build: Build, batch: Batch, task: str) -> None:
    """The weights go to safetensors and into a new model, which then answers with the same bits."""
    model = build().eval()
    weights = {name: value.clone().contiguous() for name, value in model.state_dict().items()}
    other = build().eval()
    other.load_state_dict(load_tensors(save_tensors(weights)))
    assert torch.equal(model(batch["x"]), other(batch["x"])), "a model read back from its weights answers otherwise"


def check_learns(build: Build, batch: Batch, task: str) -> None:
    """A few steps of Adam on one batch halve its loss."""
    model = build().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    losses = []
    for _ in range(LEARNING_STEPS):
        loss_sum, weight = LOSSES[task](model, batch)
        (loss_sum / weight).backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss_sum.item() / int(weight))
    assert losses[-1] < 0.5 * losses[0], f"loss {losses[0]:.3g} is still {losses[-1]:.3g} after {LEARNING_STEPS} steps"


def _double(batch: Batch) -> Batch:
    return {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}


def _gradients(model: nn.Module, parts: list[Batch], task: str) -> Batch:
    model.zero_grad()
    for part in parts:
        LOSSES[task](model, part)[0].backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def _says(what: str) -> Callable[[str], str]:
    return lambda message: f"an answer depends on the {what}: {message}"
