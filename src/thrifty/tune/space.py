"""The search space: what each setting may be, from the job's model and data where the job does not say it."""

from __future__ import annotations

from pydantic import ValidationError

from thrifty import models
from thrifty.errors import JobError
from thrifty.models.table import DROPPING
from thrifty.names import check_names
from thrifty.spec import Augment, Dataset, Job, Plan, Train
from thrifty.spec.tuning import STRENGTHS, Choice, Setting, Settings, Space

RATE_SPAN, DECAY_SPAN = 10.0, 10.0
BATCH_FACTORS = (0.5, 1, 2, 4)
SCHEDULES_TRIED = ("cosine", "linear", "one_cycle")
# settings that are names of tables
NAMES = ("model", "optimizer", "schedule", "init")
WARMUP_MOST, SMOOTHING_MOST, DROPOUT_MOST = 0.3, 0.2, 0.3
# what the words for how strongly recordings are changed mean; those of images go by their side
_RECORDINGS = {
    "mild": {"stretch": 0.1, "warp": 0.05, "colour": 0.3, "blank_bands": 6, "blank_frames": 6},
    "strong": {"stretch": 0.2, "warp": 0.12, "colour": 0.7, "noise": 15, "blank_bands": 8, "blank_frames": 10},
}


def space_of(job: Job, plan: Plan, dataset: Dataset) -> Space:
    """Return what a job says that may be tried, or what its model and data suggest.

    Args:
        job: for ``tune.space``.
        plan: of the job as it is: where the search begins.
        dataset: prepared.

    Raises:
        JobError: a model does not learn from this data.
    """
    if job.tune.space is None:
        return default_space(job, plan, dataset)
    for value in job.tune.space["model"].values if "model" in job.tune.space else ():
        models.resolve(str(value), dataset)
    return dict(job.tune.space)


def check_space(job: Job) -> None:
    """Look up every name that a job's space gives, before anything is prepared.

    Raises:
        JobError: one is in no table; the nearest one that is is given.
    """
    for name, choice in (job.tune.space or {}).items():
        for value in choice.values if name in NAMES else ():
            named = {"model": value} if name == "model" else {"train": job.train.model_copy(update={name: value})}
            check_names(job.model_copy(update=named))


def default_space(job: Job, plan: Plan, dataset: Dataset) -> Space:
    """Return a space around a plan: rate, schedule, warm-up, batch, decay, and what its model and data have beside.

    The learning rate goes ten times either way, and so does a weight decay that is not 0; the batch from half to four
    times, but for full batches, which stay full. Classes may be smoothed, images and recordings changed, elements
    dropped, where that can be; the model may be the next smaller or larger one of its kind in the table.
    """
    optim, samples = plan.optim, dataset.counts["train"]
    rate = optim.learning_rate
    space = {
        "learning_rate": Choice(first=rate, low=rate / RATE_SPAN, high=rate * RATE_SPAN),
        "schedule": Choice(values=tuple(dict.fromkeys((optim.schedule, *SCHEDULES_TRIED)))),
        "warmup": _upto(WARMUP_MOST, first=optim.warmup_steps / optim.total_steps),
    }
    if plan.batch.size < samples:
        sizes = sorted({min(max(int(plan.batch.size * factor), 1), samples) for factor in BATCH_FACTORS})
        space["batch"] = Choice(first=plan.batch.size, values=tuple(sizes))
    if optim.weight_decay:
        decay = optim.weight_decay
        space["weight_decay"] = Choice(first=decay, low=decay / DECAY_SPAN, high=decay * DECAY_SPAN)
    if plan.task == "classify":
        space["label_smoothing"] = _upto(SMOOTHING_MOST, first=plan.label_smoothing)
    if can_change(dataset):
        asked = "job" if job.train.augment.says else "none"
        space["augment"] = Choice(values=tuple(dict.fromkeys((asked, "none", "mild", "strong"))))
    if plan.model.family in DROPPING:
        space["dropout"] = _upto(DROPOUT_MOST, first=float(plan.model.arguments.get("dropout", 0.0)))
    if len(sizes_of(job.model)) > 1:
        space["model"] = Choice(first=job.model, values=sizes_of(job.model))
    return space


def sizes_of(name: str) -> tuple[str, ...]:
    """Return a model of the table between the next smaller and the next larger one of its kind.

    >>> sizes_of("resnet14"), sizes_of("table-mlp-small"), sizes_of("hf:bert")
    (('resnet8', 'resnet14', 'resnet20'), ('table-mlp-small', 'table-mlp'), ('hf:bert',))
    """
    recipe = models.MODELS.get(name)
    if recipe is None:
        return (name,)
    kinds = ("stem", "patch")
    alike = [
        other
        for other, each in models.MODELS.items()
        if each.family == recipe.family
        and all(each.arguments.get(kind) == recipe.arguments.get(kind) for kind in kinds)
        # the same heads of attention for keys, or the same position code, are no matter of size
        and set(each.arguments) == set(recipe.arguments)
    ]
    at = alike.index(name)
    return tuple(alike[max(at - 1, 0) : at + 2])


def can_change(dataset: Dataset) -> bool:
    """Whether training samples of this data can be changed by chance, by all that the strengths stand for."""
    if dataset.kind == "audio":
        return dataset.sound is not None and dataset.sound.features == "log_mel"
    return dataset.kind == "image"


def start_of(space: Space) -> Settings:
    """Return the settings that are tried first."""
    return {name: first_of(choice) for name, choice in space.items()}


def first_of(choice: Choice) -> Setting:
    """Return what a setting is first.

    >>> first_of(Choice(low=0.01, high=1.0)), first_of(Choice(values=("a", "b")))
    (0.1, 'a')
    """
    if choice.first is not None:
        return choice.first
    if choice.values:
        return choice.values[0]
    low, high = choice.bounds
    middle = (low * high) ** 0.5 if choice.by_factors else (low + high) / 2
    return min(max(middle, low), high)


def with_settings(job: Job, settings: Settings, dataset: Dataset) -> Job:
    """Return a job with settings in the place of its own; it has no section ``tune`` any more.

    Raises:
        JobError: they cannot be meant together.
    """
    train = job.train.model_dump()
    augment = dict(train["augment"])
    for name, value in settings.items():
        if name == "augment":
            augment = strength(job, str(value), dataset).model_dump()
    for name, value in settings.items():
        if name.startswith("augment."):
            augment[name.partition(".")[2]] = value
        elif name not in {"model", "augment"}:
            train[name] = value
    if "epochs" in settings:
        train["steps"] = None
    try:
        learned = Train.model_validate({**train, "augment": augment})
    except ValidationError as error:
        said = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise JobError(f"settings {settings} do not go together: {said}") from None
    update = {"train": learned, "model": str(settings.get("model", job.model)), "tune": type(job.tune)()}
    return job.model_copy(update=update)


def strength(job: Job, word: str, dataset: Dataset) -> Augment:
    """Return what a word for how strongly samples are changed means for this data.

    Images are moved by an eighth of their side, and strongly have a square of a quarter blanked too; that they may be
    mirrored is for the job to say, and stays.

    Raises:
        JobError: the data cannot be changed.
    """
    assert word in STRENGTHS
    if word == "job":
        return job.train.augment
    if word == "none":
        return Augment()
    if not can_change(dataset):
        raise JobError(f"augment is {word}, and data of kind '{dataset.kind}' is not changed by chance here")
    if dataset.kind == "audio":
        return Augment.model_validate(_RECORDINGS[word])
    side = min(dataset.shape[1:])
    changes = {"flip": job.train.augment.flip, "crop": max(1, side // 8)}
    return Augment.model_validate(changes | ({"cutout": max(1, side // 4)} if word == "strong" else {}))


def _upto(most: float, *, first: float) -> Choice:
    return Choice(first=first, low=0.0, high=max(most, first))
