"""Structured pruning: heads, channels inside and whole layers that matter least go, and what is left learns again.

The result is dense: smaller matrices, no zeros, faster anywhere.
"""

from __future__ import annotations

import copy
import itertools
import re
import time
from collections.abc import Iterable, Mapping

from torch import nn

from thrifty.compress.moves.importance import Importance, left_out, mean_loss, measure_importance
from thrifty.compress.moves.move import Candidate, Context, Move
from thrifty.compress.moves.recover import recover, recovery_seconds
from thrifty.compress.moves.weight import answer_seconds, made
from thrifty.data import Batch
from thrifty.errors import JobError
from thrifty.models.units import FAMILIES, Units, cut, units_of
from thrifty.spec import ModelPlan, Task

# no place loses more than this, however little it seems to matter: importance is of small changes
LEAST_LEFT = 1 / 8
_FOLDED = "norms are folded, and what is cut would learn again without them"
# channels stay and go by as many as fill a register, where there are at least twice as many of them
REGISTERS = (16, 8)


def choose(units: Mapping[str, Units], importance: Mapping[str, Importance], share: float) -> dict[str, list[int]]:
    """Choose the units that stay: those go whose loss is least for the work that they save, up to a share of it all.

    Of places that share a matrix, as layers of an MLP do, more work goes than the sum of theirs.

    Args:
        units: that can go.
        importance: of each.
        share: of the work of all these units that should go.

    Returns:
        What stays of each place that loses any, rising.
    """
    blocks = []
    for name, each in units.items():
        rising = importance[name].scores.argsort(stable=True).tolist()
        size = together(each)
        # the first one is what is over, so that what stays divides
        cuts = [0, *range(each.count % size or size, each.count + 1, size)]
        for number, (begin, end) in enumerate(itertools.pairwise(cuts)):
            block = rising[begin:end]
            work = importance[name].work * len(block)
            blocks.append((float(importance[name].scores[block].sum()) / work, name, number, work, block))
    budget = share * sum(importance[name].work * each.count for name, each in units.items())
    gone: dict[str, list[list[int]]] = {name: [] for name in units}
    for _, name, number, work, block in sorted(blocks):
        lost = sum(map(len, gone[name])) + len(block)
        enough = units[name].count - lost >= max(1, units[name].count * LEAST_LEFT)
        if work <= budget and enough and number == len(gone[name]):
            gone[name].append(block)
            budget -= work
    return {
        name: sorted(set(range(units[name].count)) - set(itertools.chain(*lost))) for name, lost in gone.items() if lost
    }


def together(units: Units) -> int:
    """How many units of a place stay or go at once.

    >>> together(Units("mlp", "channels", 100, (), "mlp")), together(Units("attention", "heads", 100, (), "proj"))
    (16, 1)
    """
    fitting = (size for size in REGISTERS if units.kind == "channels" and units.count >= 2 * size)
    return next(fitting, 1)


def prune(model: nn.Module, plan: ModelPlan, kept: Mapping[str, list[int]]) -> ModelPlan:
    """Leave a model these units of places, in place; return the plan of what it is then."""
    units = units_of(model, plan)
    for name, left in kept.items():
        cut(model, units[name], left)
    return plan.model_copy(update={"kept": {**plan.kept, **{name: len(left) for name, left in kept.items()}}})


def layers_of(model: nn.Module, plan: ModelPlan) -> dict[str, nn.Module]:
    """Find the layers that add to a stream and do not change its width, any of which can go; by their names."""
    if plan.family == "resnet":
        names = {
            name for name, each in model.named_modules() if isinstance(getattr(each, "downsample", 0), nn.Identity)
        }
        # a stage's first block is where its convolutions are made for what comes in
        return {name: model.get_submodule(name) for name in sorted(names) if not name.endswith(".0")}
    for name in ("blocks", "h"):
        if isinstance(getattr(model, name, None), nn.ModuleList) and len(getattr(model, name)) > 1:
            return {f"{name}.{at}": block for at, block in model.get_submodule(name).named_children()}
    return {}


def drop_layer(model: nn.Module, plan: ModelPlan, name: str) -> ModelPlan:
    """Take a layer of `layers_of` out of a model, in place; return the plan of what it is then."""
    owner, _, at = name.rpartition(".")
    del model.get_submodule(owner)[int(at)]  # type: ignore[operator]
    arguments = dict(plan.arguments)
    if plan.family == "resnet":
        stage = int(owner.removeprefix("layer")) - 1
        blocks = list(arguments["blocks"])
        blocks[stage] -= 1
        arguments["blocks"] = blocks
    else:
        arguments["layers"] -= 1

    def renamed(names: Iterable[str]) -> dict[str, str]:
        found = {}
        for each in names:
            match = re.match(rf"{re.escape(owner)}\.(\d+)\.", each)
            number = int(match[1]) if match else -1
            if number != int(at):
                rest = each[match.end() :] if match else ""
                found[each] = f"{owner}.{number - 1}.{rest}" if number > int(at) else each
        return found

    return plan.model_copy(
        update={
            "arguments": arguments,
            "kept": {new: plan.kept[old] for old, new in renamed(plan.kept).items()},
            "ranks": {new: plan.ranks[old] for old, new in renamed(plan.ranks).items()},
            "folded": tuple(renamed(plan.folded).values()),
        }
    )


def drop_layers(
    model: nn.Module, plan: ModelPlan, count: int, batches: tuple[Batch, ...], task: Task
) -> tuple[ModelPlan, list[str]]:
    """Take out so many layers, in place, one by one that without which the loss is least.

    Returns:
        The plan of what is left, and the names that the layers had at first.
    """
    names = list(layers_of(model, plan))
    gone = []
    for _ in range(count):
        losses = {}
        for name, layer in layers_of(model, plan).items():
            with left_out(layer):
                losses[name] = mean_loss(model, batches, task)
        least = min(losses, key=lambda name: losses[name])
        gone.append(names.pop(list(losses).index(least)))
        plan = drop_layer(model, plan, least)
    return plan, gone


def unit_move(share: float) -> Move:
    """The move that takes a share of the work of all units away."""
    name = f"prune_{round(100 * share)}"

    def applies(context: Context, candidate: Candidate) -> str | None:
        if candidate.plan.family not in FAMILIES:
            return f"models of the family '{candidate.plan.family}' have no units that can go"
        if candidate.plan.folded:
            return _FOLDED
        if any(each.startswith("prune_") for each in candidate.taken):
            return "units were pruned already"
        return None if units_of(candidate.model, candidate.plan) else "no units are left that can go"

    def apply(context: Context, candidate: Candidate) -> Candidate:
        began = time.perf_counter()
        model = copy.deepcopy(candidate.model)
        units = units_of(model, candidate.plan)
        importance = measure_importance(model, units, context.calibration, context.run.task)
        kept = choose(units, importance, share)
        if not kept:
            raise JobError(f"{name}: no unit is small enough to go within {share:.0%} of the work")
        plan = prune(model, candidate.plan, kept)
        says = ", ".join(
            f"{kind} {sum(len(kept.get(n, range(u.count))) for n, u in units.items() if u.kind == kind)} of "
            f"{sum(u.count for u in units.values() if u.kind == kind)}"
            for kind in ("heads", "channels")
            if any(u.kind == kind for u in units.values())
        )
        model, learned = recover(context, model, plan, candidate.model, began=began)
        return made(context, candidate, name, model, plan, f"kept {says}; {learned}", began)

    return Move(
        name=name,
        says=f"heads and channels inside that matter least go, {share:.0%} of their work; the rest learns again",
        applies=applies,
        price=lambda context, candidate: (
            4 * _rows(context) * answer_seconds(candidate.model, context.calibration)
            + recovery_seconds(context, candidate.model)
        ),
        hope=lambda context, candidate: (1 - share) ** (-2 if _chained(candidate) else -1),
        apply=apply,
    )


def layer_move(share: float) -> Move:
    """The move that takes a share of the layers away, one at least."""
    name = f"drop_layers_{round(100 * share)}"

    def count_of(candidate: Candidate) -> int:
        return max(1, round(share * len(layers_of(candidate.model, candidate.plan))))

    def applies(context: Context, candidate: Candidate) -> str | None:
        if candidate.plan.folded:
            return _FOLDED
        if any(each.startswith("drop_layers") for each in candidate.taken):
            return "layers were dropped already"
        found = layers_of(candidate.model, candidate.plan)
        return None if found else "no layer adds to a stream of one width: none can be left out"

    def apply(context: Context, candidate: Candidate) -> Candidate:
        began = time.perf_counter()
        model = copy.deepcopy(candidate.model)
        plan, gone = drop_layers(model, candidate.plan, count_of(candidate), context.calibration, context.run.task)
        model, learned = recover(context, model, plan, candidate.model, began=began)
        return made(context, candidate, name, model, plan, f"without {', '.join(gone)}; {learned}", began)

    def price(context: Context, candidate: Candidate) -> float:
        layers = len(layers_of(candidate.model, candidate.plan))
        seconds = _rows(context) * answer_seconds(candidate.model, context.calibration)
        return count_of(candidate) * layers * seconds + recovery_seconds(context, candidate.model)

    def hope(context: Context, candidate: Candidate) -> float:
        layers = len(layers_of(candidate.model, candidate.plan))
        return layers / max(1, layers - count_of(candidate)) if layers > 1 else 1.5

    return Move(
        name=name,
        says=f"{share:.0%} of the layers go, one by one that without which the loss is least; the rest learns again",
        applies=applies,
        price=price,
        hope=hope,
        apply=apply,
    )


def _chained(candidate: Candidate) -> bool:
    """Whether places share a matrix, which then becomes smaller in both of its dimensions."""
    tensors = [axis.tensor for each in units_of(candidate.model, candidate.plan).values() for axis in each.axes]
    return len(set(tensors)) < len(tensors)


def _rows(context: Context) -> int:
    return sum(len(batch["y"]) for batch in context.calibration)
