"""How large activations and gradients are before the first step, by layer: whether initial weights pass both on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from thrifty.data import Batches, Store
from thrifty.models.inputs import to_tensors
from thrifty.models.losses import LOSSES
from thrifty.spec import Plan
from thrifty.spec.events import Initialised

MOST_SAMPLES = 8
# about half a second of a processor; a model whose one sample takes more is not looked at
MOST_FLOPS = 2e10


def measure_scales(plan: Plan, model: nn.Module, store: Store) -> Initialised | None:
    """Pass a few training samples through a new model and back; None where that would take long, or fails.

    Layers are modules that hold a matrix or a convolution, in the order they are called. No gradient of a weight is
    taken, so it needs less memory than a step does. Weights, statistics and torch's random state are left as they were.

    Args:
        plan: of the run.
        model: on the CPU, with its initial weights.
        store: prepared data.
    """
    flops = plan.cost.flops.value / (plan.stop.steps * plan.batch.size)
    count = min(MOST_SAMPLES, plan.batch.micro, store.dataset.counts["train"], int(MOST_FLOPS / max(flops, 1.0)))
    if count < 1:
        return None
    batch = to_tensors(Batches(store, batch=count, micro=count, seed=plan.seed).step(0)[0])
    found: list[tuple[str, Tensor]] = []
    try:
        with _as_in_training(model), _recording(model, found):
            loss_sum, weight = LOSSES[plan.task](model, batch)
            outputs = [output for _, output in found]
            gradients = torch.autograd.grad(loss_sum / weight, outputs, allow_unused=True)
    except Exception:  # what is wrong with a model, its first step says; a picture must not end a run
        return None
    return Initialised(
        samples=count,
        layers=tuple(name for name, _ in found),
        activations=tuple(_size(output) for output in outputs),
        gradients=tuple(0.0 if gradient is None else _size(gradient) for gradient in gradients),
    )


def _size(tensor: Tensor) -> float:
    """The root mean square."""
    return float(tensor.detach().float().square().mean().sqrt())


@contextlib.contextmanager
def _recording(model: nn.Module, found: list[tuple[str, Tensor]]) -> Iterator[None]:
    """Note what each layer gives, by the layer's name."""

    def hook(name: str) -> Callable[[nn.Module, object, object], object]:
        def note(module: nn.Module, inputs: object, output: object) -> object:
            if not isinstance(output, Tensor) or not output.requires_grad:
                return output
            found.append((name, output))
            # what follows may change it in place
            return output.clone()

        return note

    layers = [
        (name, module)
        for name, module in model.named_modules()
        if any(parameter.dim() > 1 for parameter in module.parameters(recurse=False))
    ]
    handles = [module.register_forward_hook(hook(name)) for name, module in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _as_in_training(model: nn.Module) -> Iterator[None]:
    """Have norms and dropout do as in training, and put statistics and modes back."""
    modes = {module: module.training for module in model.modules()}
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with torch.random.fork_rng(devices=[]):
        try:
            model.train()
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
            with torch.no_grad():
                for buffer, value in kept:
                    buffer.copy_(value)
