"""Knowledge distillation: a smaller model of the table learns the answers of the trained one beside the labels."""

from __future__ import annotations

import functools
import math
import time

import torch
from torch import Tensor, nn

from thrifty.compress.moves.move import Candidate, Context, Move
from thrifty.compress.moves.recover import PASSES, learn
from thrifty.compress.moves.soft import distilling
from thrifty.compress.moves.weight import answer_seconds, count_flops, made
from thrifty.errors import JobError
from thrifty.models import build, resolve
from thrifty.models.init import initialise
from thrifty.models.inputs import input_of, to_tensors
from thrifty.models.packed import Packed
from thrifty.models.table import FAMILY_KINDS, MODELS
from thrifty.spec import Dataset, ModelPlan

# a student has at most this share of its teacher's operations
SMALLER = 0.6
# arguments that make a model larger: what has more of one is not built to be counted
_SIZES = ("layers", "width")


def student_of(context: Context, teacher: nn.Module, plan: ModelPlan) -> ModelPlan | None:
    """Find the largest model of the table that is smaller than a teacher and reads the same data.

    It has fewer parameters, and at most `SMALLER` of the operations; one of the teacher's own family is taken before
    any other. None where there is none.
    """
    x = input_of(to_tensors(context.calibration[0]))
    shape = tuple((x.tokens if isinstance(x, Packed) else x).shape)
    limit, most = SMALLER * count_flops(teacher, _blank(context.data, shape, "cpu")), _parameters(teacher)
    known = context.data.model_dump_json()
    for own in (True, False):
        names = [
            name
            for name, recipe in MODELS.items()
            if (recipe.family == plan.family) == own
            and context.data.kind in FAMILY_KINDS[recipe.family]
            and not any(recipe.arguments.get(each, 0) > plan.arguments.get(each, math.inf) for each in _SIZES)
        ]
        found = [
            (flops, name)
            for name in names
            for parameters, flops in _weights(name, known, shape)
            if parameters < most and flops <= limit
        ]
        if found:
            return resolve(max(found)[-1], context.data)
    return None


@functools.lru_cache(maxsize=64)
def _weights(name: str, data: str, shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Parameters and operations of a model of the table for such inputs; none where it does not read them."""
    dataset = Dataset.model_validate_json(data)
    try:
        model = build(resolve(name, dataset), device="meta").eval()
    except JobError:
        return ()
    return ((_parameters(model), count_flops(model, _blank(dataset, shape, "meta"))),)


def _blank(data: Dataset, shape: tuple[int, ...], device: str) -> Tensor:
    """An input of a shape; of texts, of the last token."""
    if data.kind in {"language", "text"}:
        return torch.full(shape, data.vocabulary - 1, device=device)
    return torch.zeros(shape, device=device)


def _apply(context: Context, candidate: Candidate) -> Candidate:
    began = time.perf_counter()
    plan = student_of(context, candidate.model, candidate.plan)
    if plan is None:
        raise JobError(_NO_STUDENT)
    student = build(plan, seed=context.seed)
    initialise(student, "default", context.seed, plan)
    student, learned = learn(
        context, student, plan, loss=distilling(candidate.model, context.run.task), teacher=candidate.model,
        steps=context.run.stop.steps, rate=1.0, began=began,
    )  # fmt: skip
    return made(context, candidate, "distil", student, plan, f"{plan.name} learned from it; {learned}", began)


def _applies(context: Context, candidate: Candidate) -> str | None:
    if candidate.taken:
        return "a student learns from the model as trained, whatever else was done to it"
    return None if student_of(context, candidate.model, candidate.plan) else _NO_STUDENT


def _price(context: Context, candidate: Candidate) -> float:
    answer_s = answer_seconds(candidate.model, context.calibration) * context.run.batch.size
    return min((1 + PASSES * SMALLER) * answer_s * context.run.stop.steps, context.seconds)


_NO_STUDENT = "the table has no smaller model that reads this data"

DISTIL = Move(
    name="distil",
    says="a smaller model of the table learns from the trained one's answers and the labels",
    applies=_applies,
    price=_price,
    # how much smaller it is, is seen when it is chosen
    hope=lambda context, candidate: 4.0,
    apply=_apply,
)


def _parameters(model: nn.Module) -> int:
    return sum(each.numel() for each in model.parameters())
