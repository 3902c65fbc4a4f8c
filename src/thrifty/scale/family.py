"""The sizes that a job's model can have: widths a root of two apart, layers by the root of the width."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from thrifty import models
from thrifty.errors import JobError
from thrifty.models.sized import GROWING, HEADED, Shape, name_of, shape_of, split_name
from thrifty.models.table import MODELS, recipe_of
from thrifty.planner.quoted import sample_flops
from thrifty.spec import Dataset, Job
from thrifty.spec.scaling import Size

# sizes below and above the job's own model, each a root of two wider
BELOW, ABOVE = 16, 24
# of what has no heads, widths are multiples of so many: of channels and of hidden units
UNITS = {"mlp": 16, "resnet": 4}
LEAST_HEADS, LEAST_LAYERS = 2, 2
# what is no model of the table, and why it cannot be had at another size
_OTHERS = {"hf:": "a Hugging Face model", "ours:": "one that starts from weights"}


def shapes_of(job: Job) -> tuple[str, list[Shape]]:
    """Return the base's name and the shapes of a job's family, from small to large, its own among them.

    Widths grow by the root of two, in whole heads; layers by the root of the width, from two on: published families
    take the 0.75th power (Brown et al. 2020, table 2.1), and losses hardly go by it (Kaplan et al. 2020, section 3.1).
    A plain network keeps its layers.

    Raises:
        JobError: the family cannot be had at other sizes; those that can are named.
    """
    what = next((what for prefix, what in _OTHERS.items() if job.model.startswith(prefix)), "")
    if not what and ":" in job.model:
        what = "a function of yours"
    if what:
        raise _cannot(job.model, what)
    models.check_name(job.model)
    recipe = recipe_of(job.model)
    own = shape_of(recipe.family, recipe.arguments)
    if own is None:
        raise _cannot(job.model, f"of the family '{recipe.family}'")
    unit = own.head_width if recipe.family in HEADED else UNITS[recipe.family]
    least = unit * (min(LEAST_HEADS, own.heads) if own.heads else 1)
    found: dict[int, Shape] = {}
    for step in range(-BELOW, ABOVE + 1):
        width = max(least, unit * round(own.width * 2 ** (step / 2) / unit)) if step else own.width
        if width not in found or not step:
            heads = (width // unit if step else own.heads) if own.heads else 0
            found[width] = Shape(_layers(recipe.family, own, width), width, heads)
    return split_name(job.model)[0], [found[width] for width in sorted(found)]


def _layers(family: str, own: Shape, width: int) -> int:
    if family == "mlp" or width == own.width:
        return own.layers
    return max(min(LEAST_LAYERS, own.layers), round(own.layers * (width / own.width) ** 0.5))


def _cannot(model: str, what: str) -> JobError:
    known = sorted(name for name, each in MODELS.items() if shape_of(each.family, each.arguments) is not None)
    return JobError(
        f"model '{model}' is {what}, and cannot be had at other sizes",
        mend=f"Families that can: {', '.join(GROWING)}; such as {', '.join(_one_of_each(known))}.",
    )


def _one_of_each(names: list[str]) -> list[str]:
    firsts: dict[str, str] = {}
    for name in names:
        firsts.setdefault(MODELS[name].family, name)
    return list(firsts.values())


class Family:
    """The sizes of a job's model on its data, each counted once."""

    def __init__(self, job: Job, dataset: Dataset) -> None:
        self.job, self.dataset = job, dataset
        self.base, self.shapes = shapes_of(job)
        self._sizes: dict[Shape, Size] = {}

    def __iter__(self) -> Iterator[Size]:
        return map(self.size, self.shapes)

    def size(self, shape: Shape) -> Size:
        """Count the parameters and the operations of a shape."""
        if shape not in self._sizes:
            name = name_of(self.base, shape)
            job = self.job.model_copy(update={"model": name})
            module = models.build(models.resolve(name, self.dataset), "meta")
            whole = sum(each.numel() for each in module.parameters())
            tables = {id(each.weight): each.weight for each in module.modules() if isinstance(each, nn.Embedding)}
            looked_up = sum(weight.numel() for weight in tables.values())
            self._sizes[shape] = Size(
                model=name,
                layers=shape.layers,
                width=shape.width,
                parameters=whole - looked_up,
                whole=whole,
                flops=sample_flops(job, self.dataset),
            )
        return self._sizes[shape]

    @property
    def head_width(self) -> int:
        """Of the family's heads; 1 where it has none."""
        return self.shapes[0].head_width
