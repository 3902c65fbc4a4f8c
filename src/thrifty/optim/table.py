"""The optimizers by name, all torch's own, and which parameters decay."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from thrifty.errors import unknown_name
from thrifty.spec import OptimPlan

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

Groups = list[dict[str, Any]]


def sgd(groups: Groups, plan: OptimPlan, fused: bool) -> Optimizer:
    """Step against the gradient. Weight decay is added to the gradient (an L2 penalty)."""
    from torch.optim import SGD

    return SGD(groups, lr=plan.learning_rate, fused=fused)


def momentum(groups: Groups, plan: OptimPlan, fused: bool) -> Optimizer:
    """Step along a running sum of gradients (Polyak 1964, as in Sutskever et al. 2013 without their lr inside it)."""
    from torch.optim import SGD

    return SGD(groups, lr=plan.learning_rate, momentum=plan.momentum, fused=fused)


def nesterov(groups: Groups, plan: OptimPlan, fused: bool) -> Optimizer:
    """Momentum that looks one step ahead (Nesterov 1983, as in Sutskever et al. 2013)."""
    from torch.optim import SGD

    return SGD(groups, lr=plan.learning_rate, momentum=plan.momentum, nesterov=True, fused=fused)


def adam(groups: Groups, plan: OptimPlan, fused: bool) -> Optimizer:
    """Step by the mean gradient over its root mean square (Kingma and Ba 2015).

    Weight decay is added to the gradient, an L2 penalty that the division then distorts; ``adamw`` is for decay.
    """
    from torch.optim import Adam

    return Adam(groups, lr=plan.learning_rate, betas=plan.betas, eps=plan.eps, fused=fused)


def adamw(groups: Groups, plan: OptimPlan, fused: bool) -> Optimizer:
    """Adam with the weights shrunk by rate x decay beside the step (Loshchilov and Hutter 2019)."""
    from torch.optim import AdamW

    return AdamW(groups, lr=plan.learning_rate, betas=plan.betas, eps=plan.eps, fused=fused)


# ``gd`` is ``sgd``: what makes it gradient descent is the batch, which is then the whole training split.
OPTIMIZERS: dict[str, Callable[[Groups, OptimPlan, bool], Optimizer]] = {
    "gd": sgd,
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "adam": adam,
    "adamw": adamw,
}

FUSED_DEVICES = {"cpu", "cuda"}


def build(model: nn.Module, plan: OptimPlan) -> Optimizer:
    """Make the optimizer of a plan over a model's trainable parameters.

    Weight decay falls on parameters of two or more dimensions, embeddings among them (as in GPT-3's training); biases
    and norms are left alone. The update of all parameters runs in one fused kernel where torch has one: it takes the
    same steps every time, and resumes bit by bit from its ``state_dict``.

    Raises:
        JobError: there is no optimizer of that name; the nearest one is given.
    """
    if plan.optimizer not in OPTIMIZERS:
        raise unknown_name("optimizer", plan.optimizer, OPTIMIZERS)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": plan.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    fused = all(parameter.device.type in FUSED_DEVICES for parameter in trained)
    return OPTIMIZERS[plan.optimizer](groups, plan, fused)


def by_name(name: str) -> Callable[[nn.Module], Optimizer]:
    """Return what makes the optimizer of a name at any rates: for what it holds and does, not for what it learns.

    Raises:
        JobError: there is no optimizer of that name.
    """
    plan = OptimPlan(
        optimizer=name,
        schedule="fixed",
        learning_rate=1e-3,
        momentum=0.9,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=1e-2,
        warmup_steps=0,
        total_steps=1,
        steps_per_epoch=1,
        decay=1.0,
        plateau_patience=0,
        clip=math.inf,
    )
    if name not in OPTIMIZERS:
        raise unknown_name("optimizer", name, OPTIMIZERS)
    return lambda model: build(model, plan)
