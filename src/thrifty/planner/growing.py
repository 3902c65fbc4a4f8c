"""What a job asks of images that grow while a model learns from them, and what that means for time."""

from __future__ import annotations

from thrifty import models
from thrifty.data.growth import Growth
from thrifty.errors import JobError
from thrifty.planner.rules import Reasons
from thrifty.spec import Dataset, Job, ModelPlan, OptimPlan

# families whose models take images of any side
_ANY_SIDE = ("resnet", "fast_convnet")


def growth_asked(job: Job, model: ModelPlan, dataset: Dataset, optim: OptimPlan, why: Reasons) -> Growth | None:
    """Return how images grow; None where that is not asked for.

    Raises:
        JobError: the data are no images, the model takes no others than it was built for, or what is small is too small
            for it.
    """
    begin = job.train.progressive
    if begin is None:
        return None
    asked = f"train.progressive is {begin:g}"
    if dataset.kind != "image":
        raise JobError(f"{asked}, and data of kind '{dataset.kind}' are no images", mend="Leave it out.")
    if model.family not in _ANY_SIDE:
        raise JobError(
            f"{asked}, and '{model.name}' may not take images of another side than it was built for",
            mend=f"Leave it out, or take a model of these families: {', '.join(_ANY_SIDE)}.",
        )
    if job.plan.compile not in {None, "none"}:
        raise JobError(
            f"{asked}, and plan.compile is '{job.plan.compile}': for each side it would be compiled anew",
            mend="Leave one of them out.",
        )
    growth = Growth(dataset.shape[1], begin, optim.total_steps)
    first = growth.at(0)
    models.resolve(job.model, dataset.model_copy(update={"shape": (dataset.shape[0], first, first)}))
    says = f"from {first} to {growth.side} pixels, {growth.area_share:.0%} of the pixels".replace("%", " %")
    why.say("progressive", says, "asked for in the job: less time, and something else is learned", "job")
    return growth


def mean_side(growth: Growth | None) -> int | None:
    """The side of images by which time goes; None where all are as they were prepared."""
    return None if growth is None else growth.mean_side


def evaluation_work(growth: Growth | None) -> float:
    """What validating an image takes, in what training on one takes in the mean: it is whole then."""
    return 1.0 if growth is None else 1 / growth.area_share
