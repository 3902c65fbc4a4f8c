"""A linear layer as the product of two thinner ones, of a rank: fewer numbers, fewer products, a little error.

Shapes: I inputs, O outputs, R rank.
"""

from __future__ import annotations

from torch import Tensor, nn

from thrifty.errors import JobError
from thrifty.spec import ModelPlan


class Factored(nn.Module):
    """Inputs [..., I] to outputs [..., O] by way of R numbers.

    Args:
        inputs, rank, outputs: I, R and O.
        bias: of the outputs.
    """

    def __init__(self, inputs: int, rank: int, outputs: int, *, bias: bool) -> None:
        super().__init__()
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.up(self.down(x))
        return out


def factor(model: nn.Module, name: str, rank: int) -> Factored:
    """Put a factored layer in the place of a linear one, in place; its weights are yet to be filled.

    Raises:
        JobError: there is no linear layer of that name, or it has no such rank.
    """
    layers = dict(model.named_modules())
    layer = layers.get(name)
    if type(layer) is not nn.Linear:
        raise JobError(f"'{name[:100]}' of {type(model).__name__} is no linear layer", mend=_AGAIN)
    if not 1 <= rank <= min(layer.in_features, layer.out_features):
        raise JobError(f"'{name}' has {layer.in_features} inputs and no rank of {rank}", mend=_AGAIN)
    made = Factored(layer.in_features, rank, layer.out_features, bias=layer.bias is not None)
    made = made.to(layer.weight.device, layer.weight.dtype)
    owner, _, own = name.rpartition(".")
    setattr(model.get_submodule(owner), own, made)
    return made


def factor_as_planned(model: nn.Module, plan: ModelPlan) -> None:
    """Factor the layers that a plan names.

    Raises:
        JobError: as `factor`.
    """
    for name, rank in plan.ranks.items():
        factor(model, name, rank)


_AGAIN = "Write the bundle again from its run."
