"""Knowledge distillation: a smaller model of the table learns the answers of the trained one beside the labels."""

from __future__ import annotations

import copy
import functools
import math
import time

import torch
from torch import Tensor, nn

from thrifty.compress.moves.move import Candidate, Context, Move
from thrifty.compress.moves.recover import AGAIN_RATE, PASSES, learn
from thrifty.compress.moves.soft import distilling
from thrifty.compress.moves.weight import answer_seconds, count_flops, made
from thrifty.errors import JobError
from thrifty.models import build, resolve
from thrifty.models.init import initialise
from thrifty.models.inputs import input_of, to_tensors
from thrifty.models.packed import Packed
from thrifty.models.sized import Shape, name_of, shape_of, split_name
from thrifty.models.table import FAMILY_KINDS, MODELS
from thrifty.spec import Dataset, ModelPlan

# a student has at most this share of its teacher's operations
SMALLER = 0.6
# the one that takes its place where its drop is over what is allowed has more than it, and at most this share
LARGER = 0.85
# widths of families without heads are multiples of this
_WIDTH = 16
# arguments that make a model larger: what has more of one is not built to be counted
_SIZES = ("layers", "width")


def student_of(context: Context, teacher: nn.Module, plan: ModelPlan) -> ModelPlan | None:
    """Find the largest model of the table that is smaller than a teacher and reads the same data.

    It has fewer parameters, and at most `SMALLER` of the operations; one of the teacher's own family is taken before
    any other. None where there is none.
    """
    shape = _shape(context)
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


def larger_student(context: Context, teacher: ModelPlan, student: ModelPlan) -> ModelPlan | None:
    """Find a student between another one and a teacher: the teacher at a lesser width or with fewer layers.

    It has more operations than the other one, and at most `LARGER` of the teacher's. None where there is none, and of a
    teacher that cannot be had at another size.
    """
    base, _ = split_name(teacher.name)
    own = shape_of(teacher.family, teacher.arguments) if base in MODELS else None
    if own is None:
        return None
    shape, known = _shape(context), context.data.model_dump_json()
    least, whole = (
        count_flops(build(each, device="meta").eval(), _blank(context.data, shape, "meta"))
        for each in (student, teacher)
    )
    step = own.head_width if own.heads else _WIDTH
    fewer = [own._replace(layers=count) for count in range(1, own.layers)]
    widths = range(step, own.width, step)
    thinner = [Shape(own.layers, width, width // step if own.heads else 0) for width in widths]
    # the largest first: about as many operations as layers times width times width
    for each in sorted((*fewer, *thinner), key=lambda size: -size.layers * size.width**2):
        name = name_of(base, each)
        for _, flops in _weights(name, known, shape):
            if flops <= LARGER * whole:
                return resolve(name, context.data) if flops > least else None
    return None


def _shape(context: Context) -> tuple[int, ...]:
    """Of an input of a calibration batch."""
    x = input_of(to_tensors(context.calibration[0]))
    return tuple((x.tokens if isinstance(x, Packed) else x).shape)


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
    plan = student_of(context, candidate.model, candidate.plan)
    if plan is None:
        raise JobError(_NO_STUDENT)
    return _taught(context, candidate, plan)


def _taught(context: Context, candidate: Candidate, plan: ModelPlan, before: nn.Module | None = None) -> Candidate:
    """Have a student learn from a candidate: from the start, or on from what it was ``before``."""
    began = time.perf_counter()
    if before is None:
        student = build(plan, seed=context.seed)
        initialise(student, "default", context.seed, plan)
    else:
        student = copy.deepcopy(before)
    student, learned = learn(
        context, student, plan, loss=distilling(candidate.model, context.run.task), teacher=candidate.model,
        steps=context.run.stop.steps, rate=1.0 if before is None else AGAIN_RATE, began=began,
    )  # fmt: skip
    how = "learned from it" if before is None else "learned on from it"
    return made(context, candidate, "distil", student, plan, f"{plan.name} {how}; {learned}", began)


def _milder(context: Context, base: Candidate, over: Candidate) -> Candidate | None:
    """Teach a larger student; then have the last one learn on for as long again."""
    left = context.kept.setdefault((id(base.model), "milder students"), ["larger", "on"])
    while left:
        if left.pop(0) == "on":
            return _taught(context, base, over.plan, over.model)
        if plan := larger_student(context, base.plan, over.plan):
            return _taught(context, base, plan)
    return None


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
    milder=_milder,
)


def _parameters(model: nn.Module) -> int:
    return sum(each.numel() for each in model.parameters())
