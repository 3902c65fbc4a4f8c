"""A job on a cluster whose model has no closed form: copies of it over the devices, priced by its traced step.

A trace takes a second, and there are thousands of ways: so a step is traced for two micro-batches, once for each
precision and way of checkpointing, and every other micro-batch lies on the line through them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterator
from dataclasses import replace

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from thrifty import models
from thrifty.cost import Trace
from thrifty.cost.choose import calibration_for
from thrifty.cost.op_kernels import BACKWARD, FORWARD
from thrifty.cost.replica_memory import ReplicaMemory, StepMemory, Units
from thrifty.cost.replicas import replica_seconds, replicas_cost
from thrifty.cost.scaled import SAMPLES, ScaledTrace
from thrifty.errors import JobError
from thrifty.models.recompute import CHECKPOINTING, repeated_blocks
from thrifty.planner.bills import cluster_cost
from thrifty.planner.explain import Quote, quote_of
from thrifty.planner.ground import TERMS, Ground, limits_of
from thrifty.planner.growing import mean_side
from thrifty.planner.learning import Learning
from thrifty.planner.lengths import mean_length
from thrifty.planner.moves import MOVES
from thrifty.planner.offload import offload_seconds
from thrifty.planner.search import Priced, Settings, Way
from thrifty.planner.space import TRACED_PRECISIONS, Copies, copies_space, layout_of
from thrifty.planner.steps import trace_of
from thrifty.planner.validations import aims_of, validations
from thrifty.spec import KINDS, Cluster, Dataset, Device, Interval, Job
from thrifty.spec.device import DeviceKind
from thrifty.spec.units import format_bytes, format_seconds

COARSE: dict[str, tuple[object, ...]] = {"precision": ("bf16", "fp16"), "zero": (0, 1, 3), "offload": (False,)}
# A node that asks its disk for more than this is worth a word: what a solid-state disk on SATA gives.
TELLING_BYTES_PER_SECOND = 500e6
# and so is a share of the time that no number of the device tells
TELLING_LAUNCHES = 0.3


class Traced:
    """A job whose model is priced by its traced step.

    Args:
        job: for its pins and budget.
        learning: what is learned, the same on every machine.
        dataset: prepared, or declared.
        allowed: marked moves that were asked for.

    Raises:
        JobError: the model cannot be traced, or a move that has no price for it was allowed.
    """

    def __init__(self, job: Job, learning: Learning, dataset: Dataset, allowed: Collection[str] = ()) -> None:
        self.job, self.learning, self.dataset = job, learning, dataset
        named = {move.name: move for move in MOVES}
        for name in allowed:
            if named[name].field == "precision" and named[name].value not in TRACED_PRECISIONS:
                raise JobError(
                    f"move '{name}' has no price for {learning.model.name}: its step is traced in fp32 and in 16 bits",
                    mend="Leave out --allow for it.",
                )
        model = models.build(learning.model, "meta")
        # channels of batch norms, each of which has to tell its statistics
        self.norms = tuple(each.num_features for each in model.modules() if isinstance(each, _BatchNorm))
        self.convolves = any(isinstance(each, _ConvNd) for each in model.modules())
        self.terms = {**TERMS, "matmul": "convolutions and products"} if self.convolves else TERMS
        self.units = _units(model)
        self.checkpointing, self.unbearable = _bears(model)
        self.aims = aims_of(job, learning.optim, learning.stop)
        # texts are as long as the longest for memory, and as in the mean for time; so are images that grow
        texts, size = KINDS[dataset.kind].varies, learning.size
        length = mean_length(dataset, batch=size, micro=size, batching="by_length") if texts else None
        self.length = length or mean_side(learning.growth)
        self.scaled = functools.cache(self._scaled)
        self.trace = functools.cache(self._trace)
        self.memory = functools.cache(self._memory)
        self.tables: dict[tuple[object, ...], list[list[float]]] = {}
        self.scaled("fp32", "none")

    def ground(self, cluster: Cluster, allowed: Collection[str] = ()) -> Ground:
        """Lay out what can be tried on a cluster; as `thrifty.planner.ground.Work`."""
        # XLA lays images out as it likes; no convolutions, no images to lay out
        formats = (
            ("contiguous", "channels_last") if self.convolves and cluster.device.kind == "cuda" else ("contiguous",)
        )
        copies = Copies(
            model=self.learning.model.name,
            formats=formats,
            checkpointing=self.checkpointing,
            unbearable=self.unbearable,
            across=bool(self.norms),
            states=self.scaled("fp32", "none").few.optimizer_bytes,
        )
        there = _There(self, cluster)
        return Ground(
            cluster=cluster,
            space=copies_space(cluster, self.learning.size, self.job.plan, allowed, copies),
            price=there.price,
            bounds=(there.least, there.least_with_memory),
            limits=limits_of(self.job.budget, cluster),
            coarse=COARSE,
            notes=there.notes,
        )

    def _scaled(self, precision: str, checkpointing: str, length: int | None = None) -> ScaledTrace:
        few, many = (self._traced(precision, checkpointing, samples, length) for samples in SAMPLES)
        return ScaledTrace(few, many)

    def _traced(self, precision: str, checkpointing: str, samples: int, length: int | None) -> Trace:
        return trace_of(
            self.learning,
            self.dataset,
            samples,
            precision="fp32" if precision == "fp32" else "bf16",
            checkpointing=checkpointing,
            length=length,
            # what lies between two traced sizes is told from both, so both must do the same
            whole_logits=True,
        )

    def _trace(self, precision: str, checkpointing: str, samples: int, length: int | None = None) -> Trace:
        return self.scaled(precision, checkpointing, length).at(samples)

    def _memory(self, kind: DeviceKind, precision: str, checkpointing: str, samples: int) -> StepMemory:
        return StepMemory(self.trace(precision, checkpointing, samples), kind, self.units)

    def table(self, device: Device, settings: Settings) -> list[list[float]]:
        """Seconds of one micro-batch on one device, as `thrifty.cost.replicas.replica_seconds`, worked out once."""
        rates = tuple(sorted((name, rate.value) for name, rate in device.flops_per_second.items()))
        speed = (device.kind, device.calibration, device.cores, device.bytes_per_second.value, rates)
        way = (*traced_as(settings), settings["memory_format"])
        if (speed, way) not in self.tables:
            trace, calibration = self.trace(*traced_as(settings), self.length), calibration_for(device)
            self.tables[speed, way] = replica_seconds(trace, device, calibration, settings["memory_format"])
        return self.tables[speed, way]


class _There:
    """The prices of a job's ways on one cluster."""

    def __init__(self, work: Traced, cluster: Cluster) -> None:
        self.work, self.cluster = work, cluster
        self.batch, self.steps = work.learning.size, work.learning.stop.steps
        self.prices: dict[tuple[object, ...], Priced] = {}
        self.usd_per_second = cluster.usd_per_hour.value * cluster.devices / 3600
        self.idle_watts = cluster.device.idle_watts.value * cluster.devices

    def price(self, settings: Settings) -> Priced:
        """Price a way, once."""
        key = tuple(settings.values())
        if key not in self.prices:
            self.prices[key] = self._price(settings)
        return self.prices[key]

    def least(self, settings: Settings) -> Priced:
        """A price never above the real one: the passes over the batch alone."""
        table = self.work.table(self.cluster.device, settings)
        passes = self.batch // (settings["data"] * settings["micro_batch"])
        seconds = (sum(table[FORWARD]) + sum(table[BACKWARD])) * passes * self.steps
        return Priced(
            usd=seconds * self.usd_per_second, seconds=seconds, joules=seconds * self.idle_watts, peak_bytes=0.0
        )

    def least_with_memory(self, settings: Settings) -> Priced:
        """The same, with the memory that the way takes."""
        return replace(self.least(settings), peak_bytes=self._held(settings).total.value)

    def _held(self, settings: Settings) -> ReplicaMemory:
        memory = self.work.memory(self.cluster.device.kind, *traced_as(settings))
        return memory.held(layout_of(settings, self.batch))

    def _price(self, settings: Settings) -> Priced:
        work, cluster, layout = self.work, self.cluster, layout_of(settings, self.batch)
        trace, table = work.trace(*traced_as(settings), work.length), work.table(cluster.device, settings)
        step = replicas_cost(
            trace,
            cluster,
            data=layout.data,
            accumulation=layout.accumulation,
            zero=layout.zero,
            state_bytes=layout.state_bytes,
            memory_format=settings["memory_format"],
            synchronised=work.norms if layout.data > 1 else (),
            table=table,
        )
        held = self._held(settings)
        travel_s = offload_seconds(held.host, cluster) if layout.offload else 0.0
        passes = math.ceil(work.dataset.counts["validation"] / (layout.data * layout.micro_batch))
        step_s, once_s = step.seconds.value + travel_s, passes * sum(table[FORWARD])
        count = validations(work.aims, self.steps, step_s, once_s)
        validation_s = count * once_s
        terms = {**vars(step.breakdown), "offload": travel_s, "validation": validation_s / self.steps}
        said = f"{self.steps:,} steps of {format_seconds(step_s)}: {step.seconds.method}"
        seconds = Interval(
            low=(step.seconds.low + travel_s / 2) * self.steps + validation_s / 2,
            value=step_s * self.steps + validation_s,
            high=(step.seconds.high + travel_s * 2) * self.steps + validation_s * 2,
            method=f"{said}; {count:,} validations of {work.dataset.counts['validation']:,} samples",
        )
        again = sum(op.flops for op in trace.ops if op.phase == "recompute")
        done = trace.forward_flops + trace.backward_flops
        parts = self.steps * self.batch / layout.micro_batch
        cost = cluster_cost(
            seconds,
            held.total,
            terms=terms,
            flops=(done - again) * parts,
            done_flops=done * parts,
            precision=layout.precision,
            cluster=cluster,
        )
        whole_s = seconds.value / self.steps
        fits_host = held.host * cluster.per_node <= cluster.host_memory_bytes.value
        quote = Quote(
            cost=cost,
            step_seconds=step_s,
            time_goes={work.terms[name]: spent / whole_s for name, spent in terms.items() if spent > 0},
            memory_holds=held.holds,
            note="; ".join(step.doubts),
        )
        return Priced(
            usd=cost.usd.value,
            seconds=seconds.value,
            joules=cost.joules.value,
            peak_bytes=cost.peak_bytes.value if fits_host else math.inf,
            risk_bytes=cost.peak_bytes.high,
            detail=quote,
        )

    def notes(self, way: Way) -> tuple[str, ...]:
        """What batch norm sees, what the disks must give, and whether the host is what is waited for."""
        return (*self._statistics(way), *self._loading(way), *self._launching(way), *self._padding())

    def _statistics(self, way: Way) -> Iterator[str]:
        data, micro = way.settings["data"], way.settings["micro_batch"]
        if not self.work.norms:
            return
        whole = "" if data * micro == self.batch else f", not of the step's {self.batch:,}"
        if data == 1:
            if whole:
                yield f"batch norm takes its statistics of the {micro:,} samples computed at once{whole}"
            return
        share = quote_of(way).time_goes.get(TERMS["statistics"], 0.0)
        yield (
            f"batch norm takes its statistics over all {data:,} devices (torch.nn.SyncBatchNorm), so of "
            f"{data * micro:,} samples{whole}; that is {share:.1%} of the time. Statistics of each device's own "
            f"{micro:,} would save it and change what is learned: not offered"
        ).replace("%", " %")

    def _loading(self, way: Way) -> Iterator[str]:
        if self.work.dataset.kind != "image":
            return
        rate = self.batch / quote_of(way).step_seconds
        a_node = rate * math.prod(self.work.dataset.shape) / self.cluster.nodes
        if a_node > TELLING_BYTES_PER_SECOND:
            yield (
                f"{rate:,.0f} images a second, decoded and resized before, are {format_bytes(a_node)} a second from "
                "each node's disk or memory: not priced"
            )

    def _padding(self) -> Iterator[str]:
        if self.work.length is not None:
            yield f"times are of texts padded to {self.work.length} tokens, the mean when put together by length"

    def _launching(self, way: Way) -> Iterator[str]:
        share = quote_of(way).time_goes.get(TERMS["launch"], 0.0)
        if share > TELLING_LAUNCHES:
            yield (
                f"{share:.0%} of the time the device waits for its host to launch kernels: fewer devices with more "
                "samples each, torch.compile or CUDA graphs would save of that; the last two are not priced"
            ).replace("%", " %", 1)


def traced_as(settings: Settings) -> tuple[str, str, int]:
    """Say which traced step a way takes: fp16 does what bf16 does."""
    precision = "fp32" if settings["precision"] == "fp32" else "bf16"
    return precision, settings["checkpointing"], settings["micro_batch"]


def _units(model: nn.Module) -> Units:
    """Bytes of what ZeRO gathers at once: repeated blocks, as FSDP wraps them, else modules with their own weights."""
    whole = sum(each.numel() * each.element_size() for each in model.parameters())
    blocks = [_weight_bytes(block) for block in repeated_blocks(model)]
    if blocks:
        return Units(float(max(blocks)), float(whole - sum(blocks)))
    return Units(float(max((_weight_bytes(each, own=True) for each in model.modules()), default=0)))


def _weight_bytes(module: nn.Module, *, own: bool = False) -> int:
    return sum(each.numel() * each.element_size() for each in module.parameters(recurse=not own))


def _bears(model: nn.Module) -> tuple[tuple[str, ...], str]:
    """Ways of checkpointing that a model bears, and why no others."""
    if any(isinstance(each, _BatchNorm) for each in model.modules()):
        return ("none",), "has batch norm, whose statistics over several devices would be taken again with each block"
    if next(repeated_blocks(model), None) is None:
        return ("none",), "has no repeated blocks to compute again"
    return CHECKPOINTING, ""
