"""Plan a job on a cluster: every layout of the batch over the devices, priced in closed form, the cheapest that fits."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from thrifty.cost.cluster import step_cost
from thrifty.cost.sharded_memory import device_bytes, usable_bytes
from thrifty.planner.bills import cluster_cost
from thrifty.planner.explain import Quote
from thrifty.planner.learning import Learning
from thrifty.planner.offload import offload_seconds
from thrifty.planner.search import Bound, Found, Price, Priced, Settings, Space, search
from thrifty.planner.shapes import least_flops, shape_of
from thrifty.planner.space import layout_of, layout_space
from thrifty.spec import Budget, Cluster, Interval, Job, Layout, TransformerShape
from thrifty.spec.units import format_seconds

# what breakdowns call the terms of a step, in a reader's words
TERMS = {
    "matmul": "matrix products", "attention": "attention", "other": "norms, pointwise, embedding", "launch": "launching",
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
        price, bound: of one of them.
        limits: the budget, and the memory of a device.
    """

    cluster: Cluster
    space: Space
    price: Price
    bound: Bound
    limits: Mapping[str, float]

    def search(self, objectives: Collection[str]) -> Found:
        """Search it."""
        return search(self.space, self.price, limits=self.limits, bound=self.bound, objectives=tuple(objectives))


def ground(job: Job, learning: Learning, cluster: Cluster, allowed: Collection[str] = ()) -> Ground:
    """Lay out what can be tried for a job on a cluster.

    Args:
        job: for its pins and budget.
        learning: what is learned, the same on every machine.
        cluster: where.
        allowed: marked moves that were asked for.

    Raises:
        JobError: degrees that do not divide.
    """
    shape = shape_of(learning.model)
    assert shape is not None, "a model without a shape is priced by its trace"
    space = layout_space(cluster, learning.size, job.plan, allowed, shape)
    price = _pricer(shape, cluster, learning.size, learning.stop.steps)
    bound = _bounder(shape, cluster, learning.size, learning.stop.steps)
    return Ground(cluster, space, price, bound, limits_of(job.budget, cluster))


def limits_of(budget: Budget, cluster: Cluster) -> dict[str, float]:
    """Return the limits of a search by quantity: the budget's, and the memory of a device."""
    usable = usable_bytes(cluster.device)
    asked = {"seconds": budget.time, "joules": budget.energy, "usd": budget.money}
    limits = {name: most for name, most in asked.items() if most is not None}
    return {**limits, "peak_bytes": min(usable, budget.memory or math.inf)}


def _pricer(shape: TransformerShape, cluster: Cluster, batch: int, steps: int) -> Price:
    @functools.cache
    def quoted(layout: Layout) -> Priced:
        step = step_cost(shape, layout, cluster)
        memory = device_bytes(shape, layout, cluster.device)
        extra_s = offload_seconds(memory.host, cluster) if layout.offload else 0.0
        terms = {name: getattr(step.breakdown, name) for name in TERMS if name != "offload"} | {"offload": extra_s}
        step_s = step.seconds.value + extra_s
        seconds = Interval(
            low=(step.seconds.low + extra_s / 2) * steps,
            value=step_s * steps,
            high=(step.seconds.high + extra_s * 2) * steps,
            method=f"{steps:,} steps of {format_seconds(step_s)}: {step.seconds.method}",
        )
        flops = least_flops(shape, batch, again=layout.checkpointing == "full") * steps
        cost = cluster_cost(seconds, memory.total, flops, terms, layout, cluster)
        fits_host = memory.host * cluster.per_node <= cluster.host_memory_bytes.value
        quote = Quote(
            cost=cost,
            step_seconds=step_s,
            time_goes={TERMS[name]: spent / step_s for name, spent in terms.items() if spent > 0},
            memory_holds={said: held for name, said in HOLDERS.items() if (held := getattr(memory, name)) > 0},
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


def _bounder(shape: TransformerShape, cluster: Cluster, batch: int, steps: int) -> Bound:
    """A price never above the real one: exact memory, and products at the datasheet's rate with the pipeline's bubble."""
    idle_watts = cluster.device.idle_watts.value * cluster.devices
    usd_per_second = cluster.usd_per_hour.value * cluster.devices / 3600
    flops = {again: least_flops(shape, batch, again=again) for again in (False, True)}
    rates = {name: rate.value for name, rate in cluster.device.flops_per_second.items()}

    @functools.cache
    def memory(layout: Layout) -> float:
        return device_bytes(shape, layout, cluster.device).total.value

    def bound(settings: Settings) -> Priced:
        layout = layout_of(settings, batch)
        rate = rates.get(layout.precision) or rates.get("bf16") or max(rates.values())
        busy_s = flops[layout.checkpointing == "full"] / (rate * layout.devices)
        bubble = (layout.pipeline - 1) / (layout.virtual_stages * layout.accumulation)
        seconds = busy_s * (1 + bubble) * steps
        return Priced(
            usd=seconds * usd_per_second,
            seconds=seconds,
            joules=seconds * idle_watts,
            peak_bytes=memory(layout),
        )

    return bound


Clock = Callable[[], float]
clock: Clock = time.perf_counter
