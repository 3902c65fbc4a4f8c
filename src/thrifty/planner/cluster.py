"""A job on a cluster, ready to be searched: every layout of its batch over the devices, priced in closed form."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from thrifty.cost.cluster import step_cost
from thrifty.cost.sharded_memory import MemoryBreakdown, device_bytes
from thrifty.errors import JobError
from thrifty.planner.bills import cluster_cost
from thrifty.planner.explain import Quote
from thrifty.planner.learning import Learning
from thrifty.planner.offload import offload_seconds
from thrifty.planner.search import Bound, Found, Price, Priced, Settings, Space, search
from thrifty.planner.shapes import least_flops, shape_of
from thrifty.planner.space import layout_of, layout_space
from thrifty.spec import Budget, Cluster, Device, Interval, Job, Layout, TransformerShape
from thrifty.spec.units import format_seconds

Memory = Callable[[Layout], MemoryBreakdown]

# what breakdowns call the terms of a step, in a reader's words
TERMS = {
    "matmul": "matrix products", "attention": "attention", "other": "norms and pointwise", "launch": "launching",
    "tensor": "tensor-parallel messages", "expert": "expert messages", "context": "context messages",
    "data": "data-parallel messages", "pipeline": "pipeline messages", "bubble": "pipeline bubble",
    "optimizer": "optimizer", "offload": "states to and from the host",
}  # fmt: skip
HOLDERS = {
    "parameters": "weights", "gradients": "gradients", "optimizer": "optimizer states", "activations": "activations",
    "logits": "logits", "gathered": "gathered weights", "working": "work of a block", "step": "the optimizer's step",
    "slack": "holes of the allocator", "context": "driver and libraries",
}  # fmt: skip


@dataclass(frozen=True)
class Ground:
    """A job on one cluster, ready to be searched.

    Attributes:
        space: of layouts.
        price: of one of them.
        bounds: of it: its time alone, then its memory too.
        limits: the budget, and the memory of a device.
        memory: what layouts take, worked out once for grounds whose devices differ in speed alone.
    """

    cluster: Cluster
    space: Space
    price: Price
    bounds: tuple[Bound, ...]
    limits: Mapping[str, float]
    memory: Memory

    def search(self, *objectives: str) -> Found:
        """Search it."""
        return search(self.space, self.price, limits=self.limits, bounds=self.bounds, objectives=objectives)

    def restricted(self, settings: Settings) -> Space:
        """The part of its space with these values."""
        held = {name: (value,) for name, value in settings.items()}
        return Space({**self.space.dimensions, **held}, self.space.constraints)


def ground(
    job: Job, learning: Learning, cluster: Cluster, allowed: Collection[str] = (), *, memory: Memory | None = None
) -> Ground:
    """Lay out what can be tried for a job on a cluster.

    Args:
        job: for its pins and budget.
        learning: what is learned, the same on every machine.
        cluster: where.
        allowed: marked moves that were asked for.
        memory: of another ground of the same job, on devices of the same kind.

    Raises:
        JobError: degrees that do not divide.
    """
    shape = shape_of(learning.model)
    if shape is None:
        raise JobError(
            f"model '{learning.model.name}' of the {learning.model.family} family has no closed form, by which other "
            "machines are priced",
            mend="Plan it on this machine: leave out --on. GPTs can be planned on any.",
        )
    batch, steps = learning.size, learning.stop.steps
    space = layout_space(cluster, batch, job.plan, allowed, shape)
    memory = memory or _memory(shape, cluster.device)
    time_bound = _time_bound(shape, cluster, batch, steps)

    def memory_bound(settings: Settings) -> Priced:
        return replace(time_bound(settings), peak_bytes=memory(layout_of(settings, batch)).total.value)

    return Ground(
        cluster=cluster,
        space=space,
        price=_pricer(shape, cluster, batch, steps, memory),
        bounds=(time_bound, memory_bound),
        limits=limits_of(job.budget, cluster),
        memory=memory,
    )


def limits_of(budget: Budget, cluster: Cluster) -> dict[str, float]:
    """Return the limits of a search by quantity: the budget's, and the memory of a device."""
    asked = {"seconds": budget.time, "joules": budget.energy, "usd": budget.money}
    limits = {name: most for name, most in asked.items() if most is not None}
    return {**limits, "peak_bytes": min(float(cluster.device.memory_bytes), budget.memory or math.inf)}


def _memory(shape: TransformerShape, device: Device) -> Memory:
    return functools.cache(lambda layout: device_bytes(shape, layout, device))


def _pricer(shape: TransformerShape, cluster: Cluster, batch: int, steps: int, memory: Memory) -> Price:
    @functools.cache
    def quoted(layout: Layout) -> Priced:
        step, held = step_cost(shape, layout, cluster), memory(layout)
        extra_s = offload_seconds(held.host, cluster) if layout.offload else 0.0
        terms = {name: getattr(step.breakdown, name) for name in TERMS if name != "offload"} | {"offload": extra_s}
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
