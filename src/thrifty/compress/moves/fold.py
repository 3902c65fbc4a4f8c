"""Batch norms are folded into the convolutions before them: the same answers, with one pass over maps less."""

from __future__ import annotations

import copy
import time

from torch import nn

from thrifty.compress.moves.move import Candidate, Context, Move
from thrifty.compress.moves.weight import made
from thrifty.models.folded import fold, norms_of
from thrifty.spec import ModelPlan


def foldable(model: nn.Module, plan: ModelPlan) -> dict[str, str]:
    """Find the norms that can be folded, each with its convolution.

    Where the maximum is taken between the two, as in the first convolution of a `FastConvNet`'s group, a scale below
    zero would make a minimum of it: such a norm stays.
    """
    found = norms_of(model)
    if plan.family == "fast_convnet":
        between = {norm for norm in found if norm.endswith("bn1")}
        return {
            n: c for n, c in found.items() if n not in between or bool((model.get_parameter(f"{n}.weight") > 0).all())
        }
    return found if plan.family == "resnet" else {}


def fold_norms(model: nn.Module, plan: ModelPlan) -> ModelPlan:
    """Fold all norms that can be, in place; return the plan of what it is then."""
    found = foldable(model, plan)
    for norm, convolution in found.items():
        fold(model, norm, convolution)
    return plan.model_copy(update={"folded": (*plan.folded, *found)})


def _applies(context: Context, candidate: Candidate) -> str | None:
    return None if foldable(candidate.model, candidate.plan) else "no batch norm follows a convolution"


def _apply(context: Context, candidate: Candidate) -> Candidate:
    began = time.perf_counter()
    model = copy.deepcopy(candidate.model)
    plan = fold_norms(model, candidate.plan)
    says = f"{len(plan.folded) - len(candidate.plan.folded)} norms folded"
    return made(context, candidate, "fold_norms", model, plan, says, began)


FOLD = Move(
    name="fold_norms",
    says="batch norms become part of the convolutions before them; the same answers",
    applies=_applies,
    price=lambda context, candidate: 0.1,
    hope=lambda context, candidate: 1.0 if context.objective == "size" else 1.5,
    apply=_apply,
)
