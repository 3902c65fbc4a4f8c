"""Decide what is learned: model, optimizer, batch, schedule, steps and when to stop; the same on every machine."""

from __future__ import annotations

import math
from dataclasses import dataclass

import thrifty.planner.rules as rules
from thrifty import models
from thrifty.data.images.growth import Growth
from thrifty.errors import JobError
from thrifty.models.adapters import adapting, frozen_norms, head_of, trained_parameters, usual_targets
from thrifty.models.init import REST, assign
from thrifty.names import check_names
from thrifty.optim import tell_rules
from thrifty.planner.growing import growth_of_job
from thrifty.planner.lengths import mean_length
from thrifty.planner.rules import Reasons
from thrifty.planner.shapes import parameters_of, shape_of
from thrifty.planner.widths import shares_of
from thrifty.spec import (
    METRICS,
    TASK_METRICS,
    AdaptPlan,
    Augment,
    Dataset,
    DeclaredData,
    Job,
    LanguageData,
    ModelPlan,
    OptimPlan,
    StopPlan,
    Task,
)
from thrifty.spec.layout import Rows
from thrifty.spec.units import format_count

PLATEAU_PATIENCE = 3
# families whose embedding is read by the tokens themselves, and by nothing else
READS_ROWS = ("bert", "bert_original")


@dataclass(frozen=True)
class Learning:
    """What no move may change.

    Attributes:
        task, model, init, optim, stop: as in a `Plan`.
        size: samples of one optimizer step.
        rows: as in a `Plan`.
        traits: what the model contains, by which rules go.
        parameters: of the model.
        adapt: what of it is trained.
        growth: of the images, where they grow.
        apart: documents of a window do not see each other.
    """

    task: Task
    model: ModelPlan
    traits: models.Traits
    init: str | dict[str, str]
    optim: OptimPlan
    stop: StopPlan
    size: int
    parameters: int
    rows: Rows
    adapt: AdaptPlan
    growth: Growth | None = None
    apart: bool = False


def decide(job: Job, dataset: Dataset, why: Reasons) -> Learning:
    """Decide everything of a job that bears on what is learned, each with a line in ``why``.

    Raises:
        JobError: a name is in no table, or model, data and batch do not fit each other.
    """
    check_names(job)
    task = dataset.task
    model = models.resolve(job.model, dataset)
    if job.train.dropout is not None:
        model = models.dropping(model, job.train.dropout)
    traits = models.traits_of(model)
    ours = model.family in models.FAMILIES
    why.say("model", model.name, "asked for in the job" + ("" if ours else f"; the rules go by its {traits}"), "job")
    if job.train.dropout is not None:
        why.say("model.dropout", job.train.dropout, "asked for in the job", "job")
    init = _init(job, model, why)
    parameters = count_parameters(model)
    adapt = _adapt(job, model, traits, dataset, parameters, why)
    optimizer = why.take("optimizer", job.train.optimizer, rules.optimizer(traits, adapt.kind))
    if doubt := rules.optimizer_doubt(optimizer, traits):
        why.say("optimizer", optimizer, "asked for in the job", "job", doubt)
    size = _batch_size(job, dataset, traits, why)
    optim = _learning(job, traits, dataset, parameters, optimizer, size, adapt.kind, why)
    optim = optim.model_copy(update={"shares": shares_of(init, job, model, optimizer, why)})
    _check_augment(job, dataset, why)
    _check_smoothing(job, task, why)
    growth = growth_of_job(job, model, dataset, optim, why)
    why.say("guard", *rules.guard(), doubt="a batch that is merely hard is left out, or one that harms is not")
    stop = _stop(job, dataset, optim.total_steps)
    rows = _rows(job, dataset, model, optim, size, adapt, why)
    apart = _apart(job, dataset, model, traits, why)
    return Learning(task, model, traits, init, optim, stop, size, parameters, rows, adapt, growth, apart)


def _apart(job: Job, dataset: Dataset, model: ModelPlan, traits: models.Traits, why: Reasons) -> bool:
    """Whether documents of a window are told apart, with its line where there are documents."""
    if not isinstance(job.data, LanguageData) or not dataset.piece:
        return False
    if job.data.documents == "apart" and not traits.packs:
        fits = sorted(name for name, each in models.MODELS.items() if each.family in ("gpt", "llama"))
        raise JobError(
            f"data.documents is apart, and model '{model.name}' takes whole windows alone",
            mend=f"Set joined, or take one that tells documents apart: {', '.join(fits)}.",
        )
    rule = rules.documents(dataset.piece, dataset.length, packs=traits.packs)
    return bool(why.take("documents", job.data.documents, rule) == "apart")


def _init(job: Job, model: ModelPlan, why: Reasons) -> str | dict[str, str]:
    """The initialiser, or one for each pattern, with the rule's for what the job's match none of."""
    asked, rule = job.train.init, rules.init(model)
    # a model that is not ours has no default but its own
    unasked = {None} if model.family in models.FAMILIES else {None, "default"}
    if not isinstance(asked, dict):
        init: str = why.take("init", None if asked in unasked else asked, rule)
        return init
    rest = asked.get(REST)
    named = {**asked, REST: rule[0] if rest is None or rest in unasked else rest}
    assign(models.build(model, "meta"), named)
    why.say("init", ", ".join(f"{pattern}: {name}" for pattern, name in named.items()), "asked for in the job", "job")
    return named


def _check_augment(job: Job, dataset: Dataset, why: Reasons) -> None:
    augment = job.train.augment
    if not augment.says:
        return
    wrong = {"image": augment.of_sound, "audio": augment.of_images}.get(dataset.kind)
    if wrong is None:
        raise JobError(
            f"train.augment is {augment.says}, and data of kind '{dataset.kind}' are neither images nor recordings",
            mend="Leave it out.",
        )
    if wrong:
        raise JobError(
            f"train.augment has {', '.join(wrong)}, which data of kind '{dataset.kind}' cannot be changed by",
            mend="Leave it out.",
        )
    if dataset.kind == "audio":
        _check_bands(augment, dataset)
    side = min(dataset.shape[1:])
    for name, pixels in (("crop", augment.crop), ("cutout", augment.cutout)):
        if pixels >= side:
            raise JobError(
                f"train.augment.{name} is {pixels}, and images have {side} pixels a side: nothing would be left",
                mend=f"An eighth of the side is usual to crop, half to cut out: {side // 8}, {side // 2}.",
            )
    why.say("augment", augment.says, "asked for in the job, drawn anew for each sample in each epoch", "job")


def _check_bands(augment: Augment, dataset: Dataset) -> None:
    assert dataset.sound is not None
    features = dataset.sound.features
    without_bands = {"mfcc": {"stretch", "blank_frames"}, "wave": {"noise", "blank_frames"}}
    by_bands = [name for name in augment.of_sound if name not in without_bands.get(features, {name})]
    if by_bands:
        raise JobError(
            f"train.augment has {', '.join(by_bands)}, of frames of mel bands, and data.features is {features}",
            mend="Set data.features: log_mel, or leave them out.",
        )


def _check_smoothing(job: Job, task: str, why: Reasons) -> None:
    smoothing = job.train.label_smoothing
    if not smoothing:
        return
    if task == "tag":
        raise JobError(
            f"train.label_smoothing is {smoothing}, and of several labels each is told by itself: no answer is shared "
            "out between them",
            mend="Leave it out.",
        )
    if task != "classify":
        raise JobError(f"train.label_smoothing is {smoothing}, and task '{task}' has no classes", mend="Leave it out.")
    why.say(
        "label_smoothing", smoothing, "asked for in the job: of every answer, all classes have so much alike", "job"
    )


def _rows(
    job: Job, dataset: Dataset, model: ModelPlan, optim: OptimPlan, size: int, adapt: AdaptPlan, why: Reasons
) -> Rows:
    """Which rows of the embedding a step trains, where there is a choice."""
    elsewhere = job.plan.zero or job.plan.offload
    # what tells words reads all of them
    reads = model.family in READS_ROWS and dataset.task in {"classify", "tag"}
    able = reads and optim.optimizer == "adamw" and adapt == AdaptPlan() and not elsewhere
    if job.plan.rows == "used" and not able:
        raise JobError(
            f"plan.rows is used, and '{model.name}' with {optim.optimizer} trains all rows that are not frozen",
            mend=f"Leave it out: it is for classes told by {', '.join(READS_ROWS)}, trained whole by adamw without "
            "plan.zero or offload.",
        )
    if not able:
        return "all"
    rows: Rows = why.take("rows", job.plan.rows, rules.rows(dataset.vocabulary, read_rows(dataset, size)))
    return rows


def read_rows(dataset: Dataset, size: int) -> int:
    """Rows of the vocabulary that a step of so many texts reads, at most."""
    length = mean_length(dataset, batch=size, micro=size, batching="padded")
    return min(dataset.vocabulary, size * length)


def count_parameters(model: ModelPlan) -> int:
    """Count a model's parameters, each shared one once, without memory for them."""
    shape = shape_of(model)
    if shape is not None:
        return parameters_of(shape)
    return sum(parameter.numel() for parameter in models.build(model, "meta").parameters())


def _adapt(
    job: Job, model: ModelPlan, traits: models.Traits, dataset: Dataset, parameters: int, why: Reasons
) -> AdaptPlan:
    """What of the model is trained, each decision with its line."""
    asked, freeze = job.train.adapter, job.train.freeze
    if asked is None and not freeze:
        return AdaptPlan()
    bare = models.build(model, "meta")
    plan = AdaptPlan(freeze=freeze)
    if asked is not None:
        why.say("adapter", asked.kind, "asked for in the job", "job", rules.adapter_doubt(traits))
        targets = why.take(
            "adapter.targets",
            asked.targets,
            (usual_targets(bare), rules.adapter_targets(traits)),
            shown=", ".join(asked.targets or usual_targets(bare)),
        )
        whole = head_of(bare, len(dataset.labels)) if dataset.labels else ()
        if whole:
            why.say(
                "adapter.whole",
                ", ".join(whole),
                "the layer that tells classes is trained itself: new ones are learned from nothing",
            )
        plan = AdaptPlan(
            freeze=freeze,
            kind=asked.kind,
            rank=why.take("adapter.rank", asked.rank, rules.adapter_rank()),
            alpha=why.take("adapter.alpha", asked.alpha, rules.adapter_alpha()),
            targets=targets,
            whole=whole,
            base=asked.base,
        )
        if asked.base == "4bit":
            why.say("adapter.base", "4bit", rules.FOUR_BITS, "job")
    adapted = adapting(bare, plan)
    if freeze:
        norms = len(frozen_norms(adapted))
        still = (
            f"; {norms:,} frozen batch norms normalise as in evaluation: what follows them learned so" if norms else ""
        )
        why.say("freeze", ", ".join(freeze), f"asked for in the job{still}", "job")
    trained = trained_parameters(adapted)
    share = f"{trained / parameters:.2%}".replace("%", " %")
    reason = f"{share} of {format_count(parameters)}: the rest stays as it is, without gradients and optimizer states"
    why.say("trained parameters", trained, reason)
    return plan


def _batch_size(job: Job, dataset: Dataset, traits: models.Traits, why: Reasons) -> int:
    samples = dataset.counts["train"]
    if job.train.batch == "full" or (job.train.batch is None and job.train.optimizer == "gd"):
        why.say("batch", samples, "gradient descent: each step sees the whole training split", "job")
        return samples
    size: int = why.take("batch", job.train.batch, rules.batch(dataset))
    if size > samples:
        why.say("batch", samples, f"{size:,} asked for, but there are no more training samples", "data")
    if traits.batch_norm and size > 1 and samples % size == 1:
        if job.train.batch is not None:
            raise JobError(
                f"train.batch {size} leaves a lone sample in the last step of an epoch of {samples:,}, "
                "and batch norm takes no statistics of one",
                mend=f"Make it {size - 1} or {size + 1}.",
            )
        size += 1
        why.say("batch", size, f"one more than the rule, lest one of {samples:,} samples be left alone in a step")
    return min(size, samples)


def _learning(
    job: Job,
    traits: models.Traits,
    dataset: Dataset,
    parameters: int,
    optimizer: str,
    size: int,
    adapter: str,
    why: Reasons,
) -> OptimPlan:
    asked, kind = job.train, dataset.kind
    schedule = why.take("schedule", asked.schedule, rules.schedule(optimizer))
    usual = rules.learning_rate(optimizer, traits, kind, parameters, size, adapter)
    rate = why.take("learning_rate", asked.learning_rate, usual)
    decay = why.take("weight_decay", asked.weight_decay, rules.weight_decay(optimizer, traits, kind, adapter))
    why.say("groups", *tell_rules(optimizer, decay))
    clip = why.take("clip", asked.clip, rules.clip(traits, kind))
    warmup = why.take("warmup", asked.warmup, rules.warmup(optimizer, schedule))
    momentum = 0.0
    if optimizer in {"momentum", "nesterov", "muon"}:
        momentum = why.take("momentum", asked.momentum, rules.momentum(optimizer))
    power = why.take("power", asked.power, rules.power()) if schedule == "polynomial" else 1.0
    cooldown = why.take("cooldown", asked.cooldown, rules.cooldown()) if schedule == "wsd" else 0.0
    per_epoch = math.ceil(dataset.counts["train"] / size)
    steps = _steps(job, dataset, parameters, size, per_epoch, why)
    return OptimPlan(
        optimizer=optimizer,
        schedule=schedule,
        learning_rate=rate,
        momentum=momentum,
        betas=rules.betas(optimizer, traits, kind),
        eps=rules.eps(optimizer),
        weight_decay=decay,
        warmup_steps=round(warmup * steps),
        total_steps=steps,
        steps_per_epoch=per_epoch,
        decay=asked.decay if asked.decay is not None else rules.decay(schedule),
        plateau_patience=PLATEAU_PATIENCE,
        clip=clip or math.inf,
        power=power,
        cooldown_steps=round(cooldown * steps),
    )


def _steps(job: Job, dataset: Dataset, parameters: int, size: int, per_epoch: int, why: Reasons) -> int:
    if job.train.steps is not None:
        why.say("steps", job.train.steps, "asked for in the job", "job")
        return job.train.steps
    if job.train.epochs is None and isinstance(job.data, DeclaredData):
        why.say("steps", per_epoch, f"one pass over {format_count(job.data.tokens)} declared tokens", "data")
        return per_epoch
    if job.train.epochs is None and dataset.kind == "language" and job.train.adapter is None:
        steps: int = why.take("steps", None, rules.language_steps(dataset, parameters, size))
        return steps
    epochs = why.take("epochs", job.train.epochs, rules.epochs(dataset))
    why.say("steps", epochs * per_epoch, f"{epochs} epochs of {per_epoch:,} steps")
    return int(epochs * per_epoch)


def _stop(job: Job, dataset: Dataset, steps: int) -> StopPlan:
    task, two = dataset.task, len(dataset.labels) == 2
    wanted = job.target.model_dump(exclude_none=True) if job.target else {}
    # rows of two labels, one of them rare, are told better by their order than by which is likelier
    own = "auc" if dataset.kind == "table" and two else TASK_METRICS[task][0]
    metric, target = next(iter(wanted.items()), (own, None))
    if metric not in TASK_METRICS[task]:
        known = ", ".join(TASK_METRICS[task])
        raise JobError(
            f"target.{metric} is for another task than '{task}', which the data is for", mend=f"Use: {known}."
        )
    if metric == "auc" and not two:
        raise JobError(f"target.auc is of two labels, and the data has {len(dataset.labels)}", mend="Use accuracy.")
    rising = METRICS[metric].rises
    never = math.inf if rising else -math.inf
    return StopPlan(
        steps=steps,
        metric=metric,
        higher_is_better=rising,
        target=never if target is None else target,
        patience=job.train.patience or 0,
        seconds=math.inf,
        joules=job.budget.energy or math.inf,
        usd=job.budget.money or math.inf,
    )
