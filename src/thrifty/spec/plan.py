"""`Plan`: how a job will be done; every decision taken, each with its reason. Holds no ``None`` and no "auto"."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field

from thrifty.spec.augment import Augment
from thrifty.spec.cost import Cost
from thrifty.spec.kinds import Task
from thrifty.spec.layout import Checkpointing, Compile, Rows
from thrifty.spec.plain import Plain

Batching = Literal["padded", "by_length", "packed"]
Dropout = Literal["sampled", "bits"]
Loading = Literal["between", "beside"]
LoopPrecision = Literal["fp32", "bf16", "bf16_compensated", "bf16_stochastic", "fp16", "fp8"]
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
        name: as in the table, such as ``resnet8``; or ``package.module:function``; ``ours:`` with a directory's name;
            or ``hf:`` with a directory's name or an id.
        family: the file it is built from: ``resnet``, ``fast_convnet``, ``vit``, ``gpt``, ``llama``, ``bert``,
            ``bert_original``, ``mlp``, ``own``, ``hf``.
        arguments: keyword arguments of the family's class or builder, all resolved.
        weights: directory in Hugging Face's layout that a model of ours starts from; empty for none.
        attention: the way of `thrifty.models.layers.ATTENTION` by dtype and direction, as measured; empty goes by rule.
        convolution: of `thrifty.models.convolution.PRODUCTS`, those computed by columns, by geometry; as measured.
        kept: how many units are left of a place that lost some, by its name (`thrifty.models.units`).
        ranks: of linear layers that are factored, by their names (`thrifty.models.factored`).
        folded: names of the batch norms that are part of the convolution before them (`thrifty.models.folded`).
    """

    name: str
    family: str
    arguments: dict[str, Any]
    weights: str = ""
    attention: dict[str, str] = Field(default_factory=dict)
    convolution: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    kept: dict[str, int] = Field(default_factory=dict)
    ranks: dict[str, int] = Field(default_factory=dict)
    folded: tuple[str, ...] = ()

    @property
    def as_named(self) -> bool:
        """Whether every layer is as the family makes it from the arguments alone."""
        return not (self.kept or self.ranks or self.folded)


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
        momentum: used by ``momentum``, ``nesterov`` and ``muon``; 0 for the rest.
        betas, eps: used by Adam and what descends from it; ``rmsprop`` uses the second beta, ``adagrad`` eps.
        weight_decay: on parameters of two or more dimensions alone.
        warmup_steps: steps of linear rise from zero; those in which ``one_cycle`` rises.
        total_steps: steps of the whole schedule.
        steps_per_epoch: for schedules that change by the epoch.
        decay: factor of ``exponential``, ``step`` and ``plateau``.
        plateau_patience: evaluations without improvement before ``plateau`` lowers the rate.
        clip: largest norm of the gradient; ``inf`` for none.
        power: exponent of ``polynomial``.
        cooldown_steps: the last steps, over which ``wsd`` falls.
        shares: of the rate that parameters get, by pattern of their names; the others get all of it.
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
    power: float = 1.0
    cooldown_steps: int = 0
    shares: dict[str, float] = Field(default_factory=dict)


class BatchPlan(Plain):
    """How many samples make a step: ``size`` is what is learned from, the rest how it is computed.

    Attributes:
        size: samples of one optimizer step (the effective batch).
        micro: samples that a device computes at once; ``accumulation`` micro-batches on each make a step.
        evaluation: samples computed at once when validating.
        batching: of texts, which samples make a step: ``padded``, any; ``by_length``, those of like length among the
            samples of some dozens of steps, whose order is then drawn. Each micro-batch is padded to its longest; or
            ``packed``: any, end to end in one row without padding; so are windows whose documents lie apart.
    """

    size: int
    micro: int
    accumulation: int
    evaluation: int
    batching: Batching = "padded"


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


class GuardPlan(Plain):
    """What a step whose loss or gradient is no number, or whose loss leaps up, is met with (`thrifty.train.guard`).

    Attributes:
        window: steps that the usual loss is taken from, and within which skipped ones are counted.
        deviations: above the median of the window, in standard deviations (1.4826 median absolute deviations), that a
            loss may lie.
        rise: above that median, as a share of what the untrained model loses, that a loss may lie in any case.
        skips: skipped steps in a window after which the rate is lowered; after twice as many, weights are rolled back.
        factor: of the rate when it is lowered.
        lowered_steps: for which it is, unless weights were rolled back: then for good.
        rollbacks: after which training ends.
    """

    window: int = 128
    deviations: float = 6.0
    rise: float = 0.5
    skips: int = 3
    factor: float = 0.5
    lowered_steps: int = 128
    rollbacks: int = 2


class Plan(Plain):
    """How: the frozen plan that reaches the loop.

    Attributes:
        job: name of the job.
        key: content key of job, data and code; the same key means the same run.
        task: ``classify`` or ``language``.
        device: ``cpu`` or ``cuda``.
        threads: of the CPU's matrix products, on each rank.
        devices: ranks that take each step together, a process each with a share of its samples.
        zero: what they share out: 0 nothing, each has a copy of the model; 3 weights, gradients and optimizer (FSDP).
        init: name in the table of initialisers; or a name for each pattern of parameters, ``*`` for the rest.
        precision: ``fp32``; ``bf16`` and ``fp16`` for autocast with weights kept in fp32, the loss of ``fp16`` scaled;
            ``fp8`` for linear layers in fp8 and all else as in ``bf16``; ``bf16_compensated`` for weights held in bf16
            and 16 bits beside each that its updates lost in rounding; ``bf16_stochastic`` for weights held in bf16 and
            updates rounded up or down by chance.
        memory_format: ``contiguous`` or ``channels_last``.
        checkpointing: what the backward pass computes again: ``none``; ``selective``, all but products and attention;
            ``full``, each block.
        compile: what runs as kernels made for it: ``none``; ``blocks``, each repeated block; ``whole``, the model.
        dropout: how dropout layers draw: ``sampled``, as torch does; ``bits``, by `thrifty.models.dropout`.
        rows: of the embedding that each step trains; ``used`` are those it reads, the updates of others wait.
        gradient_release: parameters are stepped in the backward pass, each once its gradient is whole, which then goes.
        offload: optimizer states lie in the processor's memory, and steps are taken there.
        augment: how training images are changed by chance.
        progressive: share of their side that images have when training begins; 1 for all of it.
        label_smoothing: share of every answer that all classes have alike.
        adapt: what of the model is trained.
        evaluate_every: optimizer steps between validations.
        checkpoint_seconds: least time between two checkpoints.
        checkpoints_kept: of the last ones; the best weights are kept beside them.
        loading: batches are made ``between`` steps; or ``beside`` them, by a thread, some steps ahead.
        saving: ``beside`` training, from a copy of weights and optimizer; or ``between`` steps, without a copy.
        memory: bytes that the whole process may have resident, or hold of the accelerator; ``inf`` where none is asked.
        guard: against steps that would break the model.
        cost: predicted.
        why: a `Decision` for each field decided.
    """

    job: str
    key: str
    task: Task
    model: ModelPlan
    init: str | dict[str, str]
    optim: OptimPlan
    batch: BatchPlan
    stop: StopPlan
    device: Literal["cpu", "cuda"]
    threads: int
    devices: int = 1
    zero: Literal[0, 3] = 0
    precision: LoopPrecision
    memory_format: Literal["contiguous", "channels_last"]
    checkpointing: Checkpointing = "none"
    compile: Compile = "none"
    dropout: Dropout = "sampled"
    rows: Rows = "all"
    gradient_release: bool = False
    offload: bool = False
    augment: Augment = Augment()
    progressive: float = 1.0
    label_smoothing: float = 0.0
    adapt: AdaptPlan = AdaptPlan()
    evaluate_every: int
    checkpoint_seconds: float
    checkpoints_kept: int = 2
    loading: Loading = "between"
    saving: Literal["beside", "between"] = "beside"
    memory: float = math.inf
    guard: GuardPlan = GuardPlan()
    seed: int
    cost: Cost
    why: tuple[Decision, ...]
