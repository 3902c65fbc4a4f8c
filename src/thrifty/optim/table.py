"""The optimizers by name: torch's own where it has one that can be traced, else those of this folder."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from thrifty.errors import unknown_name
from thrifty.optim.groups import Parameters, sort_parameters
from thrifty.spec import BF16_HELD, OptimPlan

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer


def sgd(parameters: Parameters, plan: OptimPlan) -> Optimizer:
    """Step against the gradient. Weight decay is added to the gradient (an L2 penalty)."""
    from torch.optim import SGD

    return SGD(parameters.groups(plan.weight_decay), lr=plan.learning_rate, fused=parameters.fused)


def gd(parameters: Parameters, plan: OptimPlan) -> Optimizer:
    """Step against the gradient of the whole training split: SGD whose batch is all of it (Cauchy 1847)."""
    return sgd(parameters, plan)


def momentum(parameters: Parameters, plan: OptimPlan) -> Optimizer:
    """Step along a running sum of gradients (Polyak 1964, as in Sutskever et al. 2013 without their lr inside it)."""
    from torch.optim import SGD

    groups = parameters.groups(plan.weight_decay)
    return SGD(groups, lr=plan.learning_rate, momentum=plan.momentum, fused=parameters.fused)


def nesterov(parameters: Parameters, plan: OptimPlan) -> Optimizer:
    """Momentum that looks one step ahead (Nesterov 1983, as in Sutskever et al. 2013)."""
    from torch.optim import SGD

    groups = parameters.groups(plan.weight_decay)
    return SGD(groups, lr=plan.learning_rate, momentum=plan.momentum, nesterov=True, fused=parameters.fused)


def rmsprop(parameters: Parameters, plan: OptimPlan) -> Optimizer:
    """Step by the gradient over its root mean square (Tieleman and Hinton 2012). Weight decay is an L2 penalty."""
    from torch.optim import RMSprop

    groups = parameters.groups(plan.weight_decay)
    return RMSprop(groups, lr=plan.learning_rate, alpha=plan.betas[1], eps=plan.eps)


def adagrad(parameters: Parameters, plan: OptimPlan) -> Optimizer:
    """Step by the gradient over the root of all its squares so far (Duchi et al. 2011). Decay is an L2 penalty."""
    from torch.optim import Adagrad

    groups = parameters.groups(plan.weight_decay)
    # of torch 2.11 the fused kernel is the CPU's alone
    return Adagrad(groups, lr=plan.learning_rate, eps=plan.eps, fused=parameters.devices == {"cpu"})


def adam(parameters: Parameters, plan: OptimPlan) -> Optimizer:
    """Step by the mean gradient over its root mean square (Kingma and Ba 2015).

    Weight decay is added to the gradient, an L2 penalty that the division then distorts; ``adamw`` is for decay.
    """
    from torch.optim import Adam

    groups = parameters.groups(plan.weight_decay)
    return Adam(groups, lr=plan.learning_rate, betas=plan.betas, eps=plan.eps, fused=parameters.fused)


def adamw(parameters: Parameters, plan: OptimPlan) -> Optimizer:
    """Adam with the weights shrunk by rate x decay beside the step (Loshchilov and Hutter 2019)."""
    return _adamw(parameters, plan)


def nadam(parameters: Parameters, plan: OptimPlan) -> Optimizer:
    """Adam whose momentum looks one step ahead (Dozat 2016), with AdamW's decay."""
    from torch.optim import NAdam

    groups = parameters.groups(plan.weight_decay)
    return NAdam(groups, lr=plan.learning_rate, betas=plan.betas, eps=plan.eps, decoupled_weight_decay=True)


def adafactor(parameters: Parameters, plan: OptimPlan) -> Optimizer:
    """A second moment kept as a row and a column, and steps by each tensor's own size (Shazeer and Stern 2018)."""
    from thrifty.optim.adafactor import Adafactor

    return Adafactor(parameters.groups(plan.weight_decay), lr=plan.learning_rate)


def lion(parameters: Parameters, plan: OptimPlan) -> Optimizer:
    """Step by the sign of a momentum, the only state (Chen et al. 2023), with AdamW's decay."""
    from thrifty.optim.lion import Lion

    return Lion(parameters.groups(plan.weight_decay), lr=plan.learning_rate, betas=plan.betas)


def lamb(parameters: Parameters, plan: OptimPlan) -> Optimizer:
    """Adam's direction at the length of each matrix, for large batches (You et al. 2020)."""
    from thrifty.optim.lamb import Lamb

    return Lamb(parameters.groups(plan.weight_decay), lr=plan.learning_rate, betas=plan.betas, eps=plan.eps)


def muon(parameters: Parameters, plan: OptimPlan) -> Optimizer:
    """Hidden matrices by the orthogonal one nearest to their momentum (Jordan et al. 2024), the rest by AdamW."""
    from thrifty.optim.muon import Muon
    from thrifty.optim.together import Together

    groups = parameters.groups(plan.weight_decay, hidden=True)
    return Together(Muon(groups, lr=plan.learning_rate, momentum=plan.momentum), _adamw(parameters, plan, hidden=False))


def soap(parameters: Parameters, plan: OptimPlan) -> Optimizer:
    """Hidden matrices by Adam in Shampoo's eigenbasis (Vyas et al. 2024), the rest by AdamW."""
    from thrifty.optim.soap import Soap
    from thrifty.optim.together import Together

    groups = parameters.groups(plan.weight_decay, hidden=True)
    return Together(
        Soap(groups, lr=plan.learning_rate, betas=plan.betas, eps=plan.eps), _adamw(parameters, plan, hidden=False)
    )


def schedule_free(parameters: Parameters, plan: OptimPlan) -> Optimizer:
    """AdamW that keeps an average of its weights in place of a falling rate (Defazio et al. 2024)."""
    from thrifty.optim.schedule_free import ScheduleFreeAdamW

    groups = parameters.groups(plan.weight_decay)
    return ScheduleFreeAdamW(groups, lr=plan.learning_rate, betas=plan.betas, eps=plan.eps)


def adamw_8bit(parameters: Parameters, plan: OptimPlan) -> Optimizer:
    """AdamW with moments of one byte a number (Dettmers et al. 2022)."""
    from thrifty.optim.eight_bit import AdamW8bit

    groups = parameters.groups(plan.weight_decay)
    return AdamW8bit(groups, lr=plan.learning_rate, betas=plan.betas, eps=plan.eps)


def _adamw(parameters: Parameters, plan: OptimPlan, *, hidden: bool | None = None) -> Optimizer:
    groups = parameters.groups(plan.weight_decay, hidden=hidden)
    if parameters.fused and parameters.alike:
        from thrifty.optim.adamw import AdamW

        return AdamW(groups, lr=plan.learning_rate, betas=plan.betas, eps=plan.eps)
    from torch import optim

    return optim.AdamW(groups, lr=plan.learning_rate, betas=plan.betas, eps=plan.eps, fused=parameters.fused)


OPTIMIZERS: dict[str, Callable[[Parameters, OptimPlan], Optimizer]] = {
    "gd": gd,
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "rmsprop": rmsprop,
    "adagrad": adagrad,
    "adam": adam,
    "adamw": adamw,
    "nadam": nadam,
    "adafactor": adafactor,
    "lion": lion,
    "lamb": lamb,
    "muon": muon,
    "soap": soap,
    "schedule_free": schedule_free,
    "adamw_8bit": adamw_8bit,
}


def build(
    model: nn.Module, plan: OptimPlan, precision: str = "fp32", seed: int = 0, *, offload: bool = False
) -> Optimizer:
    """Make the optimizer of a plan over a model's trainable parameters.

    Which parameters decay, and which of them optimizers of whole matrices take, `thrifty.optim.groups.RULES` says. The
    update of all parameters runs in one fused kernel where torch has one: it takes the same steps every time, and
    resumes bit by bit from its ``state_dict``.

    Args:
        model: as `thrifty.models.precision.with_precision` left it.
        plan: of the optimizer.
        precision: as in a `Plan`; it says how weights in bf16 are updated.
        seed: of the rounding of ``bf16_stochastic``.
        offload: states lie in the processor's memory, and steps are taken there; weights are not held in bf16 then.

    Raises:
        JobError: there is no optimizer of that name; the nearest one is given.
    """
    if plan.optimizer not in OPTIMIZERS:
        raise unknown_name("optimizer", plan.optimizer, OPTIMIZERS)
    make, parameters = OPTIMIZERS[plan.optimizer], sort_parameters(model, plan.shares)
    if offload:
        from thrifty.optim.on_host import OnHost

        return OnHost(parameters, lambda part: make(part, plan))
    if precision not in BF16_HELD:
        return make(parameters, plan)
    from thrifty.optim.compensated import Bf16Weights

    return Bf16Weights(
        parameters, lambda part: make(part, plan), compensated=precision == "bf16_compensated", seed=seed
    )


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    """What an optimizer trains."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def by_name(name: str, precision: str = "fp32") -> Callable[[nn.Module], Optimizer]:
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
    return lambda model: build(model, plan, precision)
