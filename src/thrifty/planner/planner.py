"""Plan a job: every decision with its reason, priced before anything runs, and cut to fit the budget."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Literal

import thrifty.planner.rules as rules
from thrifty import models
from thrifty.cost import Trace, largest_micro_batch, peak_bytes, trace_step
from thrifty.errors import BudgetError, JobError
from thrifty.models.losses import LOSSES
from thrifty.names import check_names
from thrifty.planner.fit import fit
from thrifty.planner.rules import Reasons
from thrifty.spec import (
    BatchPlan,
    Cost,
    Dataset,
    Device,
    Interval,
    Job,
    ModelPlan,
    OptimPlan,
    Plan,
    Probed,
    Spent,
    StopPlan,
)
from thrifty.spec.units import format_bytes

MEMORY_SHARE = 0.9
# samples validated at once where memory allows: more gain nothing on the machines measured
EVALUATION_SAMPLES = {"image": 256, "language": 16}
CHECKPOINT_SECONDS = 10.0
PLATEAU_PATIENCE = 3
STATES_PER_PARAMETER = {"gd": 0, "sgd": 0, "momentum": 1, "nesterov": 1, "adam": 2, "adamw": 2}
OWN_METRIC = {"classify": "accuracy", "language": "bits_per_byte"}
RISING_METRICS = {"accuracy"}

_NOTHING = Interval(low=0, value=0, high=0, method="not priced yet")
UNPRICED = Cost(seconds=_NOTHING, peak_bytes=_NOTHING, joules=_NOTHING, usd=_NOTHING, flops=_NOTHING)

Precision = Literal["fp32", "bf16"]
Layout = Literal["contiguous", "channels_last"]
Probe = Callable[[Plan], Probed]
TraceAt = Callable[[int], Trace]


def plan(job: Job, dataset: Dataset, device: Device, *, key: str, spent: Spent, probe: Probe | None = None) -> Plan:
    """Decide everything a job leaves open.

    Args:
        job: what is wanted.
        dataset: what was prepared.
        device: what it will run on.
        key: content key of the run.
        spent: what the run has spent already.
        probe: times a few real steps of a plan; without it the step time is predicted from the trace alone.

    Raises:
        JobError: a name is in no table, or model and data do not fit.
        BudgetError: the budget is too small for one step and one validation; it says what would be enough.
    """
    check_names(job)
    why = Reasons([])
    task = "classify" if dataset.kind == "image" else "language"
    model = models.resolve(job.model, dataset)
    why.say("model", model.name, "asked for in the job", "job")
    init = why.take("init", job.train.init, ("default", f"what the authors of the {model.family} family used"))
    optimizer = why.take("optimizer", job.train.optimizer, rules.optimizer(model.family))

    precision = why.take("precision", job.plan.precision, rules.precision(device), source="measured")
    layout = why.take("memory_format", job.plan.memory_format, rules.memory_format(model.family))
    threads = why.take("threads", job.plan.threads, (device.cores, "each core this process may use"), source="measured")

    size = _batch_size(job, dataset, model.family, why)
    trace_at = _tracer(model, dataset, task, precision, layout, STATES_PER_PARAMETER[optimizer])
    limit = _memory_limit(job, device)
    micro = _micro_batch(job, device, limit, trace_at, size, why)
    evaluation = _evaluation_batch(dataset, device, limit, trace_at(micro), micro)
    optim = _learning(job, model, dataset, trace_at(micro).parameters, optimizer, size, why)

    draft = Plan(
        job=job.name,
        key=key,
        task=task,
        model=model,
        init=init,
        optim=optim,
        batch=BatchPlan(
            size=size,
            micro=micro,
            accumulation=math.ceil(size / micro),
            evaluation=evaluation,
        ),
        stop=_stop(job, task, optim.total_steps),
        device=device.kind,
        threads=threads,
        precision=precision,
        memory_format=layout,
        evaluate_every=optim.steps_per_epoch,
        checkpoint_seconds=CHECKPOINT_SECONDS,
        seed=job.train.seed,
        cost=UNPRICED,
        why=(),
    )
    probed = probe(draft) if probe else Probed(step_s=(), save_s=0.0)
    fitted = fit(draft, job, dataset, device, trace_at(micro), probed, spent, why)
    return fitted.model_copy(update={"why": tuple(why.lines)})


def _tracer(
    model: ModelPlan, dataset: Dataset, task: str, precision: Precision, layout: Layout, states: int
) -> TraceAt:
    """Return a function that traces one step at a micro-batch size, each size once."""

    @functools.cache
    def trace_at(micro: int) -> Trace:
        if dataset.kind == "image":
            shapes = {"x": ((micro, *dataset.shape), "float32"), "y": ((micro,), "int64")}
        else:
            shapes = {"x": ((micro, *dataset.shape), "int64"), "y": ((micro, *dataset.shape), "int64")}
        return trace_step(
            lambda: models.build(model),
            LOSSES[task],
            shapes,
            precision=precision,
            memory_format=layout,
            states_per_parameter=states,
        )

    return trace_at


def _batch_size(job: Job, dataset: Dataset, family: str, why: Reasons) -> int:
    samples = dataset.counts["train"]
    if job.train.batch == "full" or (job.train.batch is None and job.train.optimizer == "gd"):
        why.say("batch", samples, "gradient descent: each step sees the whole training split", "job")
        return samples
    size: int = why.take("batch", job.train.batch, rules.batch(dataset))
    if size > samples:
        why.say("batch", samples, f"{size:,} asked for, but there are no more training samples", "data")
    if family == "resnet" and size > 1 and samples % size == 1:
        if job.train.batch is not None:
            raise JobError(
                f"train.batch {size} leaves a lone sample in the last step of an epoch of {samples:,}, "
                "and batch norm takes no statistics of one",
                mend=f"Make it {size - 1} or {size + 1}.",
            )
        size += 1
        why.say("batch", size, f"one more than the rule, lest one of {samples:,} samples be left alone in a step")
    return min(size, samples)


def _memory_limit(job: Job, device: Device) -> tuple[float, str]:
    """Bytes that the run may hold, and where the limit comes from."""
    own = MEMORY_SHARE * device.memory_bytes
    if job.budget.memory is not None and job.budget.memory < own:
        return job.budget.memory, f"the budget of {format_bytes(job.budget.memory)}"
    return own, f"nine tenths of this machine's {format_bytes(device.memory_bytes)}"


def _micro_batch(job: Job, device: Device, limit: tuple[float, str], trace_at: TraceAt, size: int, why: Reasons) -> int:
    most_bytes, said = limit
    if job.plan.micro_batch is not None:
        micro = min(job.plan.micro_batch, size)
        why.say("micro_batch", micro, "asked for in the job", "job")
        return micro
    micro = largest_micro_batch(trace_at, most_bytes, size, device_kind=device.kind)
    if micro == 0:
        least = peak_bytes(trace_at(1), device_kind=device.kind)
        raise BudgetError(
            f"memory {format_bytes(most_bytes)} is too small: one sample at a time needs about "
            f"{format_bytes(least.high)}",
            mend="Raise budget.memory, or choose a smaller model.",
        )
    reason = f"the whole batch fits {said}" if micro == size else f"the most that fits {said}; the batch stays {size:,}"
    why.say("micro_batch", micro, reason)
    return micro


def _evaluation_batch(dataset: Dataset, device: Device, limit: tuple[float, str], trace: Trace, micro: int) -> int:
    """Samples validated at once: what is worth while, halved until it fits, but never under a micro-batch."""
    wanted = min(max(micro, EVALUATION_SAMPLES[dataset.kind]), dataset.counts["validation"])
    while wanted > micro:
        peak = peak_bytes(trace, evaluation_batch_ratio=wanted / micro, device_kind=device.kind)
        if peak.high <= limit[0]:
            break
        wanted = max(wanted // 2, micro)
    return wanted


def _learning(
    job: Job, model: ModelPlan, dataset: Dataset, parameters: int, optimizer: str, size: int, why: Reasons
) -> OptimPlan:
    asked = job.train
    schedule = why.take("schedule", asked.schedule, rules.schedule(optimizer))
    rate = why.take(
        "learning_rate", asked.learning_rate, rules.learning_rate(optimizer, model.family, parameters, size)
    )
    decay = why.take("weight_decay", asked.weight_decay, rules.weight_decay(optimizer, model.family))
    clip = why.take("clip", asked.clip, rules.clip(model.family))
    warmup = why.take("warmup", asked.warmup, rules.warmup(optimizer))
    momentum = 0.0
    if optimizer in {"momentum", "nesterov"}:
        momentum = why.take("momentum", asked.momentum, (0.9, "He et al. 2015, section 3.4"))
    per_epoch = math.ceil(dataset.counts["train"] / size)
    steps = _steps(job, dataset, parameters, size, per_epoch, why)
    return OptimPlan(
        optimizer=optimizer,
        schedule=schedule,
        learning_rate=rate,
        momentum=momentum,
        betas=(0.9, 0.95) if model.family == "gpt" else (0.9, 0.999),
        eps=1e-8,
        weight_decay=decay,
        warmup_steps=round(warmup * steps),
        total_steps=steps,
        steps_per_epoch=per_epoch,
        decay=asked.decay if asked.decay is not None else rules.decay(schedule),
        plateau_patience=PLATEAU_PATIENCE,
        clip=clip or math.inf,
    )


def _steps(job: Job, dataset: Dataset, parameters: int, size: int, per_epoch: int, why: Reasons) -> int:
    if job.train.steps is not None:
        why.say("steps", job.train.steps, "asked for in the job", "job")
        return job.train.steps
    if job.train.epochs is None and dataset.kind == "language":
        steps: int = why.take("steps", None, rules.language_steps(dataset, parameters, size))
        return steps
    epochs = why.take("epochs", job.train.epochs, rules.epochs(dataset))
    why.say("steps", epochs * per_epoch, f"{epochs} epochs of {per_epoch:,} steps")
    return int(epochs * per_epoch)


def _stop(job: Job, task: str, steps: int) -> StopPlan:
    wanted = job.target.model_dump(exclude_none=True) if job.target else {}
    metric, target = next(iter(wanted.items()), (OWN_METRIC[task], None))
    rising = metric in RISING_METRICS
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
