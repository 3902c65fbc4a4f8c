"""Batch norms folded into the convolutions before them: what is added and scaled in every answer is so once."""

from __future__ import annotations

import torch
from torch import nn

from thrifty.errors import JobError
from thrifty.spec import ModelPlan

# names of a norm within its module, and of the convolution that it follows there
_BEFORE = {"bn1": "conv1", "bn2": "conv2", "bn3": "conv3", "1": "0"}


def norms_of(model: nn.Module) -> dict[str, str]:
    """Find the batch norms that follow a convolution: the name of that by the name of the norm.

    >>> norms_of(nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)))
    {'1': '0'}
    """
    modules = dict(model.named_modules())
    found = {}
    for name, module in modules.items():
        owner, dot, own = name.rpartition(".")
        before = f"{owner}{dot}{_BEFORE.get(own, '')}"
        if isinstance(module, nn.BatchNorm2d) and isinstance(modules.get(before), nn.Conv2d):
            found[name] = before
    return found


@torch.no_grad()
def fold(model: nn.Module, norm: str, convolution: str) -> None:
    """Fold a norm into the convolution before it, in place, by its running statistics (Jacob et al. 2018, section 3.2).

    Args:
        model: that is trained.
        norm, convolution: of `norms_of`.
    """
    scaled, filters = model.get_submodule(norm), model.get_submodule(convolution)
    assert isinstance(scaled, nn.BatchNorm2d) and isinstance(filters, nn.Conv2d)
    assert scaled.running_var is not None and scaled.running_mean is not None
    scale_O = scaled.weight / torch.sqrt(scaled.running_var + scaled.eps)
    shift_O = scaled.bias - scaled.running_mean * scale_O
    if filters.bias is not None:
        shift_O = shift_O + filters.bias * scale_O
    filters.weight.copy_(filters.weight * scale_O[:, None, None, None])
    filters.bias = nn.Parameter(shift_O.clone(), requires_grad=filters.weight.requires_grad)
    owner, _, own = norm.rpartition(".")
    setattr(model.get_submodule(owner), own, nn.Identity())


def fold_as_planned(model: nn.Module, plan: ModelPlan) -> None:
    """Fold the norms that a plan names.

    Raises:
        JobError: one of them is none, or follows no convolution.
    """
    found = norms_of(model)
    for name in plan.folded:
        if name not in found:
            raise JobError(
                f"model '{plan.name}' has no norm '{name[:100]}' to fold", mend="Write the bundle again from its run."
            )
        fold(model, name, found[name])
