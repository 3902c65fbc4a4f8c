"""`Plan`: how a job will be done; every decision taken, each with its reason. Holds no ``None`` and no "auto"."""

from __future__ import annotations

from typing import Any, Literal

from thrifty.spec.cost import Cost
from thrifty.spec.layout import Checkpointing
from thrifty.spec.plain import Plain

Source = Literal["job", "rule", "measured", "data", "probe", "search"]


class Decision(Plain):
    """One line of ``plan.why``: what was decided, and the reason with its formula, source or measurement.

    Attributes:
        field, value: what was decided, and how.
        reason: why, with formula or measurement.
        source: what the reason rests on; ``search`` is a comparison of predicted costs.
        doubt: how far the reason carries, or what would overturn it; empty where there is nothing to doubt.
    """

    field: str
    value: str
    reason: str
    source: Source
    doubt: str = ""


class Probed(Plain):
    """What a few real steps of a plan took on the device: seconds of each, and of keeping the weights once."""

    step_s: tuple[float, ...]
    save_s: float


class ModelPlan(Plain):
    """A model to build: its name with every argument of its family resolved.

    Attributes:
        name: as in the table, such as ``resnet8``; or ``package.module:function``, or ``hf:`` with a directory's name
            or an id.
        family: the file it is built from: ``resnet``, ``gpt``, ``mlp``, ``own``, ``hf``.
        arguments: keyword arguments of the family's class or builder, all resolved.
    """

    name: str
    family: str
    arguments: dict[str, Any]


class AdaptPlan(Plain):
    """What of a model is trained: all of it, unless something here says otherwise.

    Patterns are those of `fnmatch`, of names as the model's own code has them.

    Attributes:
        freeze: patterns of parameters that stay as they are.
        kind: of the adapters: ``none``; ``lora``; ``dora``.
        rank, alpha: of the adapters; 0 where there are none.
        targets: patterns of the layers that get one.
        whole: patterns of parameters that are trained themselves beside adapters: those of a new head.
        base: how weights that get an adapter are kept: ``own``, as they are; ``4bit``.
    """

    freeze: tuple[str, ...] = ()
    kind: Literal["none", "lora", "dora"] = "none"
    rank: int = 0
    alpha: float = 0.0
    targets: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    base: Literal["own", "4bit"] = "own"


class OptimPlan(Plain):
    """An optimizer and its schedule, resolved.

    Attributes:
        optimizer, schedule: names of their tables.
        learning_rate: the highest rate.
        momentum: used by ``momentum`` and ``nesterov``; 0 for the rest.
        betas, eps: used by ``adam`` and ``adamw``.
        weight_decay: on parameters of two or more dimensions alone.
        warmup_steps: steps of linear rise from zero.
        total_steps: steps of the whole schedule.
        steps_per_epoch: for schedules that change by the epoch.
        decay: factor of ``exponential``, ``step`` and ``plateau``.
        plateau_patience: evaluations without improvement before ``plateau`` lowers the rate.
        clip: largest norm of the gradient; ``inf`` for none.
    """

    optimizer: str
    schedule: str
    learning_rate: float
    momentum: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    warmup_steps: int
    total_steps: int
    steps_per_epoch: int
    decay: float
    plateau_patience: int
    clip: float


class BatchPlan(Plain):
    """How many samples make a step: ``size`` is what is learned from, the rest how it is computed.

    Attributes:
        size: samples of one optimizer step (the effective batch).
        micro: samples computed at once; ``accumulation`` micro-batches make a step.
        evaluation: samples computed at once when validating.
    """

    size: int
    micro: int
    accumulation: int
    evaluation: int


class StopPlan(Plain):
    """When training ends, whichever comes first; limits that are not set are ``inf`` (or 0 patience).

    Attributes:
        steps: optimizer steps at most.
        metric: validation figure that is watched: the target's, or the task's own.
        higher_is_better: its direction.
        target: stop once ``metric`` reaches it (``inf`` or ``-inf``: never).
        patience: evaluations without improvement; 0 for never.
        seconds, joules, usd: budget left for training after the other stages' share.
    """

    steps: int
    metric: str
    higher_is_better: bool
    target: float
    patience: int
    seconds: float
    joules: float
    usd: float


class Plan(Plain):
    """How: the frozen plan that reaches the loop.

    Attributes:
        job: name of the job.
        key: content key of job, data and code; the same key means the same run.
        task: ``classify`` or ``language``.
        device: ``cpu`` or ``cuda``.
        threads: of the CPU's matrix products.
        init: name in the table of initialisers.
        precision: ``fp32``, or ``bf16`` for autocast with weights kept in fp32.
        memory_format: ``contiguous`` or ``channels_last``.
        checkpointing: what the backward pass computes again: ``none``; ``selective``, all but products and attention;
            ``full``, each block.
        adapt: what of the model is trained.
        evaluate_every: optimizer steps between validations.
        checkpoint_seconds: least time between two checkpoints.
        cost: predicted.
        why: a `Decision` for each field decided.
    """

    job: str
    key: str
    task: Literal["classify", "language"]
    model: ModelPlan
    init: str
    optim: OptimPlan
    batch: BatchPlan
    stop: StopPlan
    device: Literal["cpu", "cuda"]
    threads: int
    precision: Literal["fp32", "bf16"]
    memory_format: Literal["contiguous", "channels_last"]
    checkpointing: Checkpointing = "none"
    adapt: AdaptPlan = AdaptPlan()
    evaluate_every: int
    checkpoint_seconds: float
    seed: int
    cost: Cost
    why: tuple[Decision, ...]
