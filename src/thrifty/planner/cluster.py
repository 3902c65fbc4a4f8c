"""A job on a cluster, ready to be searched; of a Transformer every layout over the devices, priced in closed form."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from thrifty.cost.cluster import step_cost
from thrifty.cost.sharded_memory import MemoryBreakdown, device_bytes
from thrifty.errors import JobError
from thrifty.planner.bills import cluster_cost
from thrifty.planner.explain import Quote
from thrifty.planner.ground import TERMS, Ground, Work, limits_of
from thrifty.planner.learning import Learning
from thrifty.planner.offload import offload_seconds
from thrifty.planner.search import Bound, Price, Priced, Settings
from thrifty.planner.shapes import least_flops, shape_of
from thrifty.planner.space import layout_of, layout_space
from thrifty.planner.traced import Traced
from thrifty.spec import AdaptPlan, Cluster, Dataset, Device, Interval, Job, Layout, TransformerShape
from thrifty.spec.units import format_seconds

Memory = Callable[[Layout], MemoryBreakdown]

HOLDERS = {
    "parameters": "weights", "gradients": "gradients", "optimizer": "optimizer states", "activations": "activations",
    "logits": "logits", "gathered": "gathered weights", "working": "work of a block", "step": "the optimizer's step",
    "slack": "holes of the allocator", "context": "driver and libraries",
}  # fmt: skip


# degrees between these gain little, and a survey is over many machines
COARSE: dict[str, tuple[object, ...]] = {
    "precision": ("bf16", "fp16", "fp8", "bf16_weights"),
    "micro_batch": (1, 2, 4, 8, 16),
    "virtual_stages": (1, 2, 4),
    "zero": (0, 1, 3),
    "offload": (False,),
}


def work_of(job: Job, learning: Learning, dataset: Dataset, allowed: Collection[str] = ()) -> Work:
    """Say how a job is priced on clusters: a GPT trained whole in closed form, all else by its traced step.

    Raises:
        JobError: the model cannot be traced, or a move was allowed that has no price for it, or is asked for.
    """
    if job.plan.gradient_release:
        raise JobError(
            "plan.gradient_release is true, which has a price on this machine alone",
            mend="Plan without --on, or leave it out.",
        )
    shape = shape_of(learning.model) if learning.adapt == AdaptPlan() else None
    return Closed(job, learning, shape) if shape is not None else Traced(job, learning, dataset, allowed)


class Closed:
    """A job whose model is a Transformer of a known shape.

    Args:
        job: for its pins and budget.
        learning: what is learned, the same on every machine.
        shape: of the model.
    """

    def __init__(self, job: Job, learning: Learning, shape: TransformerShape) -> None:
        self.job, self.learning, self.shape = job, learning, shape
        self._memories: dict[str, Memory] = {}

    def ground(self, cluster: Cluster, allowed: Collection[str] = ()) -> Ground:
        """Lay out what can be tried on a cluster; as `Work`."""
        shape, batch, steps = self.shape, self.learning.size, self.learning.stop.steps
        memory = self._memories.setdefault(cluster.device.kind, _memory(shape, cluster.device))
        time_bound = _time_bound(shape, cluster, batch, steps)

        def memory_bound(settings: Settings) -> Priced:
            return replace(time_bound(settings), peak_bytes=memory(layout_of(settings, batch)).total.value)

        return Ground(
            cluster=cluster,
            space=layout_space(cluster, batch, self.job.plan, allowed, shape),
            price=_pricer(shape, cluster, batch, steps, memory),
            bounds=(time_bound, memory_bound),
            limits=limits_of(self.job.budget, cluster),
            coarse=COARSE,
        )


def _memory(shape: TransformerShape, device: Device) -> Memory:
    return functools.cache(lambda layout: device_bytes(shape, layout, device))


def _pricer(shape: TransformerShape, cluster: Cluster, batch: int, steps: int, memory: Memory) -> Price:
    @functools.cache
    def quoted(layout: Layout) -> Priced:
        step, held = step_cost(shape, layout, cluster), memory(layout)
        extra_s = offload_seconds(held.host, cluster) if layout.offload else 0.0
        terms = {**vars(step.breakdown), "offload": extra_s}
        step_s = step.seconds.value + extra_s
        seconds = Interval(
            low=(step.seconds.low + extra_s / 2) * steps,
            value=step_s * steps,
            high=(step.seconds.high + extra_s * 2) * steps,
            method=f"{steps:,} steps of {format_seconds(step_s)}: {step.seconds.method}",
        )
        cost = cluster_cost(
            seconds,
            held.total,
            terms=terms,
            flops=least_flops(shape, batch, again=False) * steps,
            done_flops=least_flops(shape, batch, again=layout.checkpointing == "full") * steps,
            precision=layout.precision,
            cluster=cluster,
        )
        fits_host = held.host * cluster.per_node <= cluster.host_memory_bytes.value
        quote = Quote(
            cost=cost,
            step_seconds=step_s,
            time_goes={TERMS[name]: spent / step_s for name, spent in terms.items() if spent > 0},
            memory_holds={said: part for name, said in HOLDERS.items() if (part := getattr(held, name)) > 0},
            note="; ".join(step.doubts),
        )
        return Priced(
            usd=cost.usd.value,
            seconds=cost.seconds.value,
            joules=cost.joules.value,
            peak_bytes=cost.peak_bytes.value if fits_host else math.inf,
            risk_bytes=cost.peak_bytes.high,
            detail=quote,
        )

    return lambda settings: quoted(layout_of(settings, batch))


def _time_bound(shape: TransformerShape, cluster: Cluster, batch: int, steps: int) -> Bound:
    """A price never above the real one: kernels and tensor-parallel messages of a micro-batch, and the bubble.

    Formula: ``(m + (p - 1) / v) c / p`` for m micro-batches, p stages of v chunks, and c seconds of one micro-batch on
    one copy of the whole model, which few layouts differ in: `step_cost` adds data-parallel and pipeline messages, the
    model's ends that one stage has alone, the optimizer, and what every step costs. Memory holds at least the blocks'
    weights in 16 bits.
    """
    devices = cluster.devices
    idle_watts = cluster.device.idle_watts.value * devices
    usd_per_second = cluster.usd_per_hour.value * devices / 3600
    matrices = shape.layers * (4 * shape.hidden * shape.heads * shape.head_dim + 2 * shape.hidden * shape.ffn)
    shared = ("precision", "checkpointing", "tensor", "context", "micro_batch")

    @functools.cache
    def once_s(*values: Any) -> float:
        settings = dict(zip(shared, values, strict=True))
        layout = Layout(**settings, sequence_parallel=settings["tensor"] > 1)
        terms = step_cost(shape, layout, cluster).breakdown
        return terms.matmul + terms.attention + terms.other + terms.tensor + terms.context

    def bound(settings: Settings) -> Priced:
        stages = settings["pipeline"]
        micro_batches = batch // (settings["data"] * settings["micro_batch"])
        held = matrices / (settings["tensor"] * stages)
        if settings["zero"] >= 2 or settings["offload"]:
            held /= settings["data"]
        turns = micro_batches + (stages - 1) / settings["virtual_stages"]
        seconds = turns * once_s(*(settings[name] for name in shared)) / stages * steps
        return Priced(usd=seconds * usd_per_second, seconds=seconds, joules=seconds * idle_watts, peak_bytes=2 * held)

    return bound
