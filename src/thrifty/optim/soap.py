"""SOAP: Adam in the basis in which Shampoo's preconditioners are diagonal."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from thrifty.optim.gather import Closure, State, evaluated, gather

# steps between two refreshes of the basis (Vyas et al. 2024, algorithm 3)
REFRESH = 10
# A longer side keeps its own basis, as the paper has it for 10,000: factors of it would cost more than they save. This
# one is ours, for a refresh that a CPU does in a second.
LONGEST_SIDE = 2048


class Soap(Optimizer):
    """Run Adam in the eigenbasis of Shampoo's preconditioners (Vyas et al. 2024, algorithm 3).

    With gradient ``G`` as a matrix, ``L`` and ``R`` averages of ``G G'`` and ``G' G``, their eigenvectors ``P`` and
    ``Q``, rate ``r``, decay ``d``::

        M <- b1 M + (1 - b1) G
        V <- b2 V + (1 - b2) (P' G Q)^2
        W <- W - r P (P' M Q / (sqrt(V) + eps)) Q' - r d W,   M and V over their biases

    The basis comes from eigenvectors once, then every ten steps from one power iteration and a QR factorization. The
    first gradient makes it, and is not learned from: in the basis of a gradient alone all that is not on its diagonal
    is noise, which Adam would make as large as the rest. A convolution is the matrix of its channels by all else.

    Args:
        params: parameters of two or more dimensions, or groups of them.
        lr: rate.
        betas: of the two moments; the second of the preconditioners too.
        eps: beside the root.
        weight_decay: for groups that do not say theirs.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Closure = None) -> Any:
        """Take a step."""
        loss = evaluated(closure)
        for group in self.param_groups:
            parameters, gradients, states = gather(self, group, _moments)
            if not parameters:
                continue
            (beta1, beta2), rate = group["betas"], group["lr"]
            matrices = [each.flatten(1) for each in gradients]
            for matrix, state in zip(matrices, states, strict=True):
                if state["step"] == 1:
                    _average(matrix, state, beta2)
                    _begin(state)
            torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
            first, second = ([state[name] for state in states] for name in ("first", "second"))
            # 0 in the first step, whose operators are those of every other all the same
            learned = [float(state["step"] > 1) for state in states]
            torch._foreach_lerp_(first, matrices, [(1 - beta1) * each for each in learned])
            turned = [_turn(matrix, state) for matrix, state in zip(matrices, states, strict=True)]
            squares = torch._foreach_mul(turned, turned)
            torch._foreach_lerp_(second, squares, [(1 - beta2) * each for each in learned])
            roots = torch._foreach_sqrt(second)
            torch._foreach_add_(roots, group["eps"])
            for parameter, state, root, each in zip(parameters, states, roots, learned, strict=True):
                update = _turn(_turn(state["first"], state).div_(root), state, back=True)
                taken = max(state["step"] - 1, 1)
                scale = math.sqrt(1 - beta2**taken) / (1 - beta1**taken)
                parameter.add_(update.reshape(parameter.shape), alpha=-rate * scale * each)
            for matrix, state in zip(matrices, states, strict=True):
                if state["step"] > 1:
                    _average(matrix, state, beta2)
                    if (state["step"] - 1) % REFRESH == 0:
                        _refresh(state)
        return loss


def _moments(parameter: Tensor) -> State:
    rows, columns = parameter.shape[0], math.prod(parameter.shape[1:])
    state = {name: parameter.new_zeros((rows, columns)) for name in ("first", "second")}
    for name, side in (("left", rows), ("right", columns)):
        if side <= LONGEST_SIDE:
            state[name] = parameter.new_zeros((side, side))
    return state


def _average(matrix: Tensor, state: State, beta: float) -> None:
    """Bring the preconditioners up to date."""
    if "left" in state:
        state["left"].lerp_(matrix @ matrix.mT, 1 - beta)
    if "right" in state:
        state["right"].lerp_(matrix.mT @ matrix, 1 - beta)


def _begin(state: State) -> None:
    """Take the eigenvectors of the preconditioners for the basis."""
    for name in ("left", "right"):
        if name in state:
            state[f"{name}_basis"] = torch.linalg.eigh(state[name])[1]


def _refresh(state: State) -> None:
    """Turn the basis after the preconditioners; the largest eigenvalues come first, as power iterations need it."""
    for dim, name in enumerate(("left", "right")):
        if name not in state:
            continue
        basis = state[f"{name}_basis"]
        ahead = state[name] @ basis
        order = (basis * ahead).sum(dim=0).argsort(descending=True)
        state[f"{name}_basis"] = torch.linalg.qr(ahead.index_select(1, order))[0]
        state["second"] = state["second"].index_select(dim, order)


def _turn(matrix: Tensor, state: State, *, back: bool = False) -> Tensor:
    """Write a matrix in the basis, or from the basis in its own again."""
    left, right = state.get("left_basis"), state.get("right_basis")
    if left is not None:
        matrix = (left if back else left.mT) @ matrix
    if right is not None:
        matrix = matrix @ (right.mT if back else right)
    return matrix if left is not None or right is not None else matrix.clone()
