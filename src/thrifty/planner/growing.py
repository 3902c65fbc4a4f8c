"""Whether images grow while a model learns: as a job asks, or where that is known to learn as well; what of time."""

from __future__ import annotations

from dataclasses import dataclass

from thrifty import models
from thrifty.data.images.growth import Growth
from thrifty.data.images.survey import SMALLEST_SIDE
from thrifty.errors import JobError
from thrifty.planner.rules import Reasons
from thrifty.spec import Dataset, Job, ModelPlan, OptimPlan

# families whose models take images of any side
_ANY_SIDE = ("resnet", "fast_convnet")
# the share of their side with which images begin where nobody says
USUAL_BEGIN = 0.5
# sets of images on which it has to be shown before a plan takes it by itself
LEAST_SETS = 2


@dataclass(frozen=True)
class Grown:
    """What images that grow did to what a family learns in as many epochs, by `benchmarks.progressive`.

    Attributes:
        family: of the models it was tried on.
        seeds: that were tried.
        saved: share of the processor's time.
        worse: accuracy lost in the mean of the seeds.
        bound: of that mean, upwards, at 95 %.
        margin: that the bound may reach: what another seed would lose.
        source: which model on what.
    """

    family: str
    seeds: int
    saved: float
    worse: float
    bound: float
    margin: float
    source: str

    @property
    def proven(self) -> bool:
        """Whether it learned no worse than another seed would."""
        return self.bound <= self.margin

    @property
    def says(self) -> str:
        """The finding, in words."""
        lost = "lost" if self.worse > 0 else "gained"
        return (
            f"{self.source} took {100 * self.saved:.0f} % less time and {lost} {abs(self.worse):.4f} of accuracy in as "
            f"many epochs over {self.seeds} seeds; at 95 % it loses at most {self.bound:.4f}, where another seed may "
            f"lose {self.margin:.4f}"
        )


# What was found goes in here by hand, a line for each set of images, as its report says.
FOUND: tuple[Grown, ...] = (
    Grown(
        "resnet",
        seeds=4,
        saved=0.457,
        worse=0.0047,
        bound=0.0199,
        margin=0.0180,
        source="ResNet-8 on 3,000 pictures of CIFAR-10 (benchmarks.progressive)",
    ),
)


def shown_to_learn(family: str) -> tuple[bool, str]:
    """Say whether a family learns as well from images that grow, and what is known of it.

    That takes `LEAST_SETS` sets of images, for how much is seen in small ones differs, and no finding against it.
    """
    found = [each for each in FOUND if each.family == family]
    if not found:
        return False, "nothing was tried with models of this family"
    says = "; ".join(each.says for each in found)
    against = [each for each in found if not each.proven]
    if not against and len(found) < LEAST_SETS:
        return False, f"shown on {len(found)} set of images, and {LEAST_SETS} are asked: {says}"
    return not against, says


def growth_of_job(job: Job, model: ModelPlan, dataset: Dataset, optim: OptimPlan, why: Reasons) -> Growth | None:
    """Return how images grow: as the job asks, else where that is known to learn as well; None where they do not.

    Raises:
        JobError: as `growth_asked`.
    """
    if job.train.progressive is not None:
        return growth_asked(job, model, dataset, optim, why)
    growth = growth_offered(job, model, dataset, optim)
    if growth is None:
        return None
    says = f"from {growth.at(0)} to {growth.side} pixels, {growth.area_share:.0%} of the pixels".replace("%", " %")
    learns, known = shown_to_learn(model.family)
    if learns:
        why.say("progressive", says, known, doubt="other images may have to be seen whole all along")
        return growth
    reason = f"growing {says}, is declined, for it may learn worse: {known}"
    why.say("progressive", "whole images", reason, doubt="other images may bear it")
    return None


def growth_offered(job: Job, model: ModelPlan, dataset: Dataset, optim: OptimPlan) -> Growth | None:
    """Return how images would grow where a job does not say; None where they cannot, or asked already."""
    able = job.train.progressive is None and dataset.kind == "image" and model.family in _ANY_SIDE
    if not able or job.plan.compile not in {None, "none"}:
        return None
    growth = Growth(dataset.shape[1], USUAL_BEGIN, optim.total_steps)
    first = growth.at(0)
    # of fewer pixels a network that halves its maps twice ends in maps of one, of which a lone image has no statistics
    if first == growth.side or first < SMALLEST_SIDE:
        return None
    try:
        models.resolve(job.model, dataset.model_copy(update={"shape": (dataset.shape[0], first, first)}))
    except JobError:
        return None
    return growth


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
