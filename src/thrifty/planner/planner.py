"""Plan a job: every decision with its reason, priced before anything runs, and cut to fit the budget."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Literal

import thrifty.planner.rules as rules
from thrifty import models
from thrifty.cost import Trace, largest_micro_batch, peak_bytes, trace_step
from thrifty.errors import BudgetError
from thrifty.models.losses import LOSSES
from thrifty.optim import by_name
from thrifty.planner.fit import fit
from thrifty.planner.learning import decide
from thrifty.planner.rules import Reasons
from thrifty.spec import (
    BatchPlan,
    Cost,
    Dataset,
    Device,
    Interval,
    Job,
    ModelPlan,
    Plan,
    Probed,
    Spent,
)
from thrifty.spec.units import format_bytes

MEMORY_SHARE = 0.9
# samples validated at once where memory allows: more gain nothing on the machines measured
EVALUATION_SAMPLES = {"image": 256, "language": 16}
CHECKPOINT_SECONDS = 10.0

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
    why = Reasons([])
    learning = decide(job, dataset, why)
    model, optim, size = learning.model, learning.optim, learning.size
    precision = why.take("precision", job.plan.precision, rules.precision(device), source="measured")
    layout = why.take("memory_format", job.plan.memory_format, rules.memory_format(model.family))
    threads = why.take("threads", job.plan.threads, (device.cores, "each core this process may use"), source="measured")

    trace_at = _tracer(model, dataset, learning.task, precision, layout, optim.optimizer)
    limit = _memory_limit(job, device)
    micro = _micro_batch(job, device, limit, trace_at, size, why)
    evaluation = _evaluation_batch(dataset, device, limit, trace_at(micro), micro)

    draft = Plan(
        job=job.name,
        key=key,
        task=learning.task,
        model=model,
        init=learning.init,
        optim=optim,
        batch=BatchPlan(
            size=size,
            micro=micro,
            accumulation=math.ceil(size / micro),
            evaluation=evaluation,
        ),
        stop=learning.stop,
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
    model: ModelPlan, dataset: Dataset, task: str, precision: Precision, layout: Layout, optimizer: str
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
            optimizer=by_name(optimizer),
        )

    return trace_at


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
