"""Low rank: a linear layer becomes two thinner ones where what it is given spans less than it has room for.

The product of the two is the one of its rank that errs least on the inputs that calibration rows bring: with C the
second moment of the inputs and S S' = C, the truncated singular value decomposition of W S, and S taken off again
(Chen et al. 2021, "DRONE"; Wang et al. 2024, arXiv 2403.07378, "SVD-LLM"). The rank is the least whose measured error
is within bounds.

Shapes: N inputs seen, I inputs of a layer, O outputs, R rank.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thrifty.compress.moves.move import Candidate, Context, Move
from thrifty.compress.moves.recover import recover, recovery_seconds
from thrifty.compress.moves.weight import made
from thrifty.data import Batch
from thrifty.errors import JobError
from thrifty.models.factored import factor
from thrifty.models.inputs import input_of, to_tensors
from thrifty.models.units import FAMILIES
from thrifty.spec import ModelPlan

# of what a layer gives, in squares, that may be lost before the model learns again
TOLERANCE = 0.05
# of a move that was over what is allowed its milder forms lose at most so much of what it lost
MILDER = (1 / 4, 1 / 16)
# two products in the place of one have to be this much less work to be faster
WORTHWHILE = 0.8
# directions that inputs never took are as weak as this share of the strongest, lest their inverse be all there is
_FLOOR = 1e-6


@dataclass(frozen=True)
class Spectrum:
    """A layer's weight by how much each direction counts for what it gives.

    Attributes:
        left: [O, R], outputs of each direction, R the lesser of I and O.
        strengths: [R], root of the mean square that each adds to the outputs, falling.
        right: [R, I], what each takes of the inputs.
    """

    left: Tensor
    strengths: Tensor
    right: Tensor

    def error(self, rank: int) -> float:
        """Share of the outputs' squares that a rank leaves out."""
        squares_R = self.strengths.double().square()
        return float(squares_R[rank:].sum() / squares_R.sum().clamp_min(1e-300))

    def rank_within(self, tolerance: float) -> int:
        """The least rank whose error is within a tolerance."""
        squares_R = self.strengths.double().square()
        # summed from the least on, so that what all ranks leave out is zero exactly
        left_R = squares_R.flip(0).cumsum(0).flip(0)
        return max(1, int((left_R > tolerance * squares_R.sum()).sum()))


@torch.no_grad()
def second_moments(model: nn.Module, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Mean of x x' over the inputs of each linear layer that batches reach, float32 [I, I]; by the layers' names."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def note(name: str, x: Tensor) -> None:
        x_NI = x.flatten(0, -2).float()
        sums[name] = sums[name] + x_NI.T @ x_NI if name in sums else x_NI.T @ x_NI
        counts[name] = counts.get(name, 0) + len(x_NI)

    handles = [
        module.register_forward_pre_hook(lambda module, args, name=name: note(name, args[0]))
        for name, module in model.named_modules()
        if type(module) is nn.Linear
    ]
    try:
        for batch in batches:
            model(input_of(to_tensors(batch)))
    finally:
        for handle in handles:
            handle.remove()
    return {name: each / counts[name] for name, each in sums.items()}


@torch.no_grad()
def spectrum(weight_OI: Tensor, moment_II: Tensor) -> Spectrum:
    """Decompose a weight by what its inputs are like."""
    strength_I, basis_II = torch.linalg.eigh(moment_II.double())
    root_I = strength_I.clamp_min(_FLOOR * float(strength_I.max().clamp_min(1e-30))).sqrt()
    left_OR, strengths_R, right_RI = torch.linalg.svd(weight_OI.double() @ basis_II * root_I, full_matrices=False)
    right_RI = right_RI / root_I @ basis_II.T
    return Spectrum(left_OR.float(), strengths_R.float(), right_RI.float())


@torch.no_grad()
def factor_layer(model: nn.Module, name: str, found: Spectrum, rank: int) -> None:
    """Put two layers of a rank in the place of one, in place."""
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    thin = factor(model, name, rank)
    # each gets a like share of the strength, so that both learn alike
    roots_R = found.strengths[:rank].sqrt()
    scale = found.right[:rank].norm() / found.left[:, :rank].norm()
    thin.down.weight.copy_(roots_R[:, None] * found.right[:rank] / scale.sqrt())
    thin.up.weight.copy_(found.left[:, :rank] * roots_R * scale.sqrt())
    if layer.bias is not None:
        thin.up.bias.copy_(layer.bias)


def choose_ranks(model: nn.Module, moments: Mapping[str, Tensor], tolerance: float) -> dict[str, tuple[int, Spectrum]]:
    """Choose the layers that are less work at the least rank within a tolerance, with that rank."""
    chosen = {}
    for name, moment_II in moments.items():
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        found = spectrum(layer.weight, moment_II)
        rank = found.rank_within(tolerance)
        if rank * (layer.in_features + layer.out_features) <= WORTHWHILE * layer.weight.numel():
            chosen[name] = (rank, found)
    return chosen


def low_rank(
    model: nn.Module, plan: ModelPlan, batches: Iterable[Batch], tolerance: float
) -> tuple[ModelPlan, dict[str, float]]:
    """Factor what is worth it of a model, in place.

    Args:
        model: in ``eval`` mode, on the CPU.
        plan: of it.
        batches: of the training split.
        tolerance: share of a layer's outputs, in squares, that may be lost.

    Returns:
        The plan of what it is then, and the error of each layer that was factored.
    """
    chosen = choose_ranks(model, second_moments(model, batches), tolerance)
    for name, (rank, found) in chosen.items():
        factor_layer(model, name, found, rank)
    ranks = {name: rank for name, (rank, _) in chosen.items()}
    errors = {name: found.error(rank) for name, (rank, found) in chosen.items()}
    return plan.model_copy(update={"ranks": {**plan.ranks, **ranks}}), errors


def factor_move(tolerance: float = TOLERANCE) -> Move:
    """The move that factors linear layers."""

    def applies(context: Context, candidate: Candidate) -> str | None:
        if candidate.plan.family not in FAMILIES:
            return f"models of the family '{candidate.plan.family}' may read their layers' weights themselves"
        if candidate.plan.ranks:
            return "layers were factored already"
        sizes = [each.weight.shape for each in candidate.model.modules() if type(each) is nn.Linear]
        return None if any(min(size) >= 32 for size in sizes) else "no linear layer is large enough to be factored"

    def factored(context: Context, candidate: Candidate, most: float) -> Candidate | None:
        """Factor the layers that lose at most so much; None where there is none."""
        began = time.perf_counter()
        model = copy.deepcopy(candidate.model)
        plan, errors = low_rank(model, candidate.plan, context.calibration, most)
        if not errors:
            return None
        model, learned = recover(context, model, plan, candidate.model, began=began)
        says = f"layers factored: {len(errors)}, the worst loses {max(errors.values()):.1%}; {learned}"
        return made(context, candidate, "low_rank", model, plan, says, began)

    def apply(context: Context, candidate: Candidate) -> Candidate:
        found = factored(context, candidate, tolerance)
        if found is None:
            raise JobError(f"low_rank: every layer needs nearly all of its rank to lose less than {tolerance:.0%}")
        return found

    def milder(context: Context, base: Candidate, over: Candidate) -> Candidate | None:
        """Cut less of the rank: what is lost falls by four each time."""
        shares = context.kept.setdefault((id(base.model), "shares of the error"), list(MILDER))
        return factored(context, base, shares.pop(0) * tolerance) if shares else None

    return Move(
        name="low_rank",
        says=f"linear layers become two thinner ones where that loses at most {tolerance:.0%}; the rest learns again",
        applies=applies,
        price=lambda context, candidate: recovery_seconds(context, candidate.model),
        hope=lambda context, candidate: 2.0,
        apply=apply,
        milder=milder,
    )
