"""The ways of doing a job on the machine at hand, each traced and priced, the most promising first.

A trace takes a second or two, so not every combination is tried: the moves that gain most are tried one after another
from the best way so far, and trying stops when it has cost a hundredth of the training it plans, or a few seconds.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import thrifty.cost.timeline as cost_timeline
from thrifty import models
from thrifty.cost import HeapPeak, Trace, heap_peak, largest_micro_batch, peak_bytes, predict, trace_step
from thrifty.cost.time import seconds_by
from thrifty.errors import BudgetError, JobError
from thrifty.hardware.runtime import runtime_bytes
from thrifty.models.inputs import MEMORY_FORMATS
from thrifty.models.losses import LOSSES
from thrifty.optim import by_name
from thrifty.planner.correction import Seen, correct, kin_of
from thrifty.planner.explain import Quote, quote_of
from thrifty.planner.learning import Learning
from thrifty.planner.moves import values
from thrifty.planner.search import Found, Priced, Settings, Space, Way, search
from thrifty.spec import Cost, Dataset, Device, Interval, Job
from thrifty.spec.proposal import Timeline
from thrifty.spec.units import format_bytes

# Trying another way stops when what was tried took this share of the training it plans, within these seconds.
PATIENCE_SHARE, LEAST_PATIENCE_SECONDS, MOST_PATIENCE_SECONDS = 0.01, 2.0, 3.0
MEMORY_SHARE = 0.9
# validations where there are no epochs
EVALUATIONS = 10
RUNTIME = "torch and its libraries"
INSTANTS = 400


@dataclass(frozen=True)
class Held:
    """What was found of a plan's memory before it runs; None where this machine does not tell.

    Attributes:
        heap: of a dry run.
        runtime: bytes of each part of the libraries, measured.
    """

    heap: HeapPeak | None = None
    runtime: Mapping[str, int] | None = None


@dataclass
class Local:
    """A job on this machine: traces and prices each way once.

    Attributes:
        job, learning, dataset, device: what is planned, and where.
        history: earlier runs here, by which predictions are corrected.
        known: ways priced so far.
    """

    job: Job
    learning: Learning
    dataset: Dataset
    device: Device
    history: Sequence[Seen] = ()
    known: dict[str, Way] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pinned = self.job.plan.precision
        if pinned not in (None, *values("precision", self.device, here=True)):
            raise JobError(
                f"plan.precision is {pinned}, which this machine's loop does not run",
                mend=f"It runs: {', '.join(values('precision', self.device, here=True))}.",
            )
        for name in ("data", "tensor", "pipeline", "context", "virtual_stages", "zero"):
            if getattr(self.job.plan, name) not in (None, 1, 0):
                raise JobError(
                    f"plan.{name} is {getattr(self.job.plan, name)}, and this machine is one device",
                    mend="Leave it out, or plan on several: thrifty plan JOB --on h100:8.",
                )
        self.trace = functools.cache(self._trace)

    @property
    def memory(self) -> tuple[float, str]:
        """Bytes that the run may hold, and where the limit comes from."""
        own = MEMORY_SHARE * self.device.memory_bytes
        asked = self.job.budget.memory
        if asked is not None and asked < own:
            return asked, f"the budget of {format_bytes(asked)}"
        return own, f"nine tenths of this machine's {format_bytes(self.device.memory_bytes)}"

    @property
    def limits(self) -> dict[str, float]:
        """Of the search: memory alone, for a training that is too long is cut short."""
        return {"peak_bytes": self.memory[0]}

    def correct(self, quantity: str, interval: Interval) -> Interval:
        """Correct a prediction by earlier runs on this machine."""
        return correct(interval, quantity, kin_of(self.learning.model), self.history)

    def dimensions(self) -> dict[str, tuple[Any, ...]]:
        """What can be tried, pins applied; micro-batches are found as they are needed."""
        pins, convolves = self.job.plan, self.learning.traits.convolves
        formats = values("memory_format", self.device, here=True) if convolves else ("contiguous",)
        return {
            "precision": (pins.precision,) if pins.precision else values("precision", self.device, here=True),
            "memory_format": (pins.memory_format,) if pins.memory_format else formats,
        }

    def way(self, settings: Settings) -> Way:
        """Price a way, once."""
        key = repr(sorted(settings.items()))
        if key not in self.known:
            self.known[key] = Way(dict(settings), self._price(settings))
        return self.known[key]

    def largest(self, settings: Settings) -> int:
        """The most samples at once whose peak stays within memory; 0 for none."""
        trace_at = functools.partial(self.trace, settings["precision"], settings["memory_format"])
        return largest_micro_batch(trace_at, self.memory[0], self.learning.size, device_kind=self.device.kind)

    def _price(self, settings: Settings) -> Priced:
        micro = settings["micro_batch"]
        trace = self.trace(settings["precision"], settings["memory_format"], micro)
        size, steps = self.learning.size, self.learning.stop.steps
        by_epochs = self.job.train.steps is None and (self.job.train.epochs is not None or self.dataset.kind == "image")
        evaluations = math.ceil(steps / self.learning.optim.steps_per_epoch) if by_epochs else EVALUATIONS
        cost = predict(
            micro=trace,
            samples_per_micro=micro,
            accumulation=math.ceil(size / micro),
            steps=steps,
            evaluations=evaluations,
            evaluation_samples=self.dataset.counts["validation"],
            device=self.device,
            precision=settings["precision"],
        )
        cost = corrected(cost, self.correct)
        quote = Quote(
            cost=cost,
            step_seconds=cost.seconds.value / (steps + evaluations * self.dataset.counts["validation"] / size / 3),
            time_goes=seconds_by(trace, self.device, lambda op: op.kind.replace("_", " ")),
            memory_holds=_holds(trace, math.ceil(size / micro), cost.peak_bytes.value),
        )
        return Priced(
            usd=cost.usd.value,
            seconds=cost.seconds.value,
            joules=cost.joules.value,
            peak_bytes=cost.peak_bytes.value,
            risk_bytes=cost.peak_bytes.high,
            detail=quote,
        )

    def dry_run(self, settings: Settings, evaluation: int) -> Held:
        """Take the steps of a way on memory alone, a validation of so many samples after them."""
        if self.device.kind != "cpu":
            return Held()
        learning, micro = self.learning, settings["micro_batch"]
        heap = heap_peak(
            lambda: models.build(learning.model),
            LOSSES[learning.task],
            self._batch(micro),
            precision=settings["precision"],
            optimizer=by_name(learning.optim.optimizer),
            accumulation=math.ceil(learning.size / micro),
            evaluation_batch=self._batch(evaluation),
            memory_format=MEMORY_FORMATS[settings["memory_format"]],
        )
        return Held(heap, runtime_bytes(self.device.cores))

    def _batch(self, samples: int) -> dict[str, tuple[tuple[int, ...], str]]:
        shape = (samples, *self.dataset.shape)
        if self.dataset.kind == "image":
            return {"x": (shape, "float32"), "y": ((samples,), "int64")}
        return {"x": (shape, "int64"), "y": (shape, "int64")}

    def _trace(self, precision: Any, memory_format: Any, micro: int) -> Trace:
        learning = self.learning
        return trace_step(
            lambda: models.build(learning.model),
            LOSSES[learning.task],
            self._batch(micro),
            precision=precision,
            memory_format=memory_format,
            optimizer=by_name(learning.optim.optimizer),
            clip=math.isfinite(learning.optim.clip),
        )


def corrected(cost: Cost, correct: Callable[[str, Interval], Interval]) -> Cost:
    """Correct the time and memory of a cost; energy and money go with the time."""
    seconds = correct("seconds", cost.seconds)
    factor = seconds.value / cost.seconds.value if cost.seconds.value else 1.0
    going = {name: scaled(getattr(cost, name), factor) for name in ("joules", "usd")}
    peak = correct("peak_bytes", cost.peak_bytes)
    return cost.model_copy(update={"seconds": seconds, "peak_bytes": peak, **going})


def scaled(interval: Interval, factor: float) -> Interval:
    """Return an interval times a factor."""
    low, value, high = (bound * factor for bound in (interval.low, interval.value, interval.high))
    return Interval(low=low, value=value, high=high, method=interval.method)


def explore(local: Local) -> Found:
    """Try ways from the most promising on; return those tried, their front and the choice.

    Raises:
        BudgetError: not even one sample at a time fits.
    """
    began = time.perf_counter()
    dimensions = local.dimensions()
    best: Way | None = None
    for settings in _plain_first(dimensions):
        micro = local.job.plan.micro_batch or local.largest(settings)
        if not micro:
            continue
        way = local.way({**settings, "micro_batch": min(micro, local.learning.size)})
        if best is None or way.price.seconds < best.price.seconds:
            best = way
        if _spent(best, began):
            break
    if best is None:
        raise _too_small(local, next(_plain_first(dimensions)))
    micro = best.settings["micro_batch"]
    while local.job.plan.micro_batch is None and micro > 1 and not _spent(best, began):
        micro = math.ceil(micro / 2)
        way = local.way({**best.settings, "micro_batch": micro})
        if way.price.seconds > 1.1 * best.price.seconds:
            break  # smaller ones pay the overheads of an operator for fewer samples
        best = min(best, way, key=lambda each: each.price.seconds)
    ways = list(local.known.values())
    space = Space({"at": range(len(ways))})
    found = search(space, lambda settings: ways[settings["at"]].price, limits=local.limits)
    if found.choice is None:
        raise _too_small(local, best.settings)
    own = {id(way.price): way for way in ways}

    def named(each: Way) -> Way:
        return own[id(each.price)]

    return Found(
        feasible=tuple(map(named, found.feasible)),
        front=tuple(map(named, found.front)),
        choice=named(found.choice),
        candidates=math.prod(map(len, dimensions.values())) * (math.floor(math.log2(local.learning.size)) + 1),
        priced=len(ways),
    )


def timeline(trace: Trace, base_bytes: float, *, accumulating: bool) -> Timeline:
    """Say what is alive after each operator of a step, by what holds it.

    Args:
        trace: of one step of one micro-batch.
        base_bytes: alive through the whole step beside what the step holds: the libraries, and holes of the heap.
        accumulating: gradients of earlier micro-batches are there from the start.
    """
    line = cost_timeline.timeline(trace, accumulating=accumulating)
    last = max(1, len(line.ops) - 1)
    rows = [(100 * at / last, sizes) for at, sizes in enumerate(zip(*line.bytes.values(), strict=True))]
    shown = _thinned(rows)
    held = {name: tuple(float(row[1][index]) for row in shown) for index, name in enumerate(line.bytes)}
    where = line.ops[line.peak_op]
    return Timeline(
        says=f"Memory over one micro-batch, by replay of the traced step; most is alive at {where}. "
        f"Beside it stand {format_bytes(base_bytes)} of libraries and holes of the heap.",
        axis="per cent of the step's operators",
        at=tuple(row[0] for row in shown),
        held=held,
    )


def _plain_first(dimensions: dict[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Combinations with the likeliest gain first: channels-last where there is a choice, then the cheaper precision."""
    formats = sorted(dimensions["memory_format"], key=lambda value: value != "channels_last")
    for precision in reversed(dimensions["precision"]):
        yield {"precision": precision, "memory_format": formats[0]}
    for other in formats[1:]:
        for precision in reversed(dimensions["precision"]):
            yield {"precision": precision, "memory_format": other}


def _spent(best: Way, began: float) -> bool:
    patience = min(max(LEAST_PATIENCE_SECONDS, PATIENCE_SHARE * best.price.seconds), MOST_PATIENCE_SECONDS)
    return time.perf_counter() - began > patience


def _too_small(local: Local, settings: Settings) -> BudgetError:
    trace = local.trace(settings["precision"], settings["memory_format"], 1)
    least = peak_bytes(trace, accumulation=local.learning.size, device_kind=local.device.kind)
    return BudgetError(
        f"memory {format_bytes(local.memory[0])} is too small: one sample at a time needs about "
        f"{format_bytes(least.high)}",
        mend="Raise budget.memory, choose a smaller model, or plan on another machine: thrifty plan JOB --on any.",
    )


def _holds(trace: Trace, accumulation: int, peak: float) -> dict[str, float]:
    """What is alive when most is, by what holds it; the rest of the predicted peak is the libraries and the heap."""
    held = cost_timeline.timeline(trace, accumulating=accumulation > 1).holds
    rest = max(0.0, peak - sum(held.values()))
    return {name: float(size) for name, size in {**held, RUNTIME: rest}.items() if size > 0}


def _thinned(rows: Sequence[tuple[float, tuple[int, ...]]]) -> list[tuple[float, tuple[int, ...]]]:
    """Keep the fullest instant of each stretch."""
    if len(rows) <= INSTANTS:
        return list(rows)
    stretches = [rows[n * len(rows) // INSTANTS : (n + 1) * len(rows) // INSTANTS] for n in range(INSTANTS)]
    return [max(stretch, key=lambda row: sum(row[1])) for stretch in stretches if stretch]


def base_bytes(way: Way) -> float:
    """Return the part of a way's peak that no step holds: libraries and the heap."""
    return quote_of(way).memory_holds.get(RUNTIME, 0.0)
