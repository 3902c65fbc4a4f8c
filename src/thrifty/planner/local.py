"""The ways of doing a job on the machine at hand, each traced and priced, the most promising first.

A trace takes a second or two, so not every combination is tried: the moves that gain most are tried one after another
from the best way so far, and trying stops when it has cost a hundredth of the training it plans, or a few seconds.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import thrifty.cost.timeline as cost_timeline
from thrifty import models
from thrifty.cost import HeapPeak, Trace, heap_peak, largest_micro_batch, peak_bytes, predict
from thrifty.cost.time import seconds_by
from thrifty.errors import BudgetError, JobError
from thrifty.hardware.pages import keeping
from thrifty.hardware.runtime import runtime_bytes
from thrifty.models.inputs import MEMORY_FORMATS
from thrifty.models.losses import LOSSES
from thrifty.models.recompute import recomputing, repeated_blocks
from thrifty.optim import by_name
from thrifty.planner.correction import Seen, correct, kin_of
from thrifty.planner.explain import Quote, quote_of
from thrifty.planner.learning import Learning, evaluations_of
from thrifty.planner.moves import values
from thrifty.planner.search import Found, Priced, Settings, Space, Way, search
from thrifty.planner.steps import batch_of, trace_of
from thrifty.spec import Cost, Dataset, Device, Interval, Job
from thrifty.spec.proposal import Timeline
from thrifty.spec.units import format_bytes

# Trying another way stops when what was tried took this share of the training it plans, within these seconds.
PATIENCE_SHARE, LEAST_PATIENCE_SECONDS, MOST_PATIENCE_SECONDS = 0.01, 2.0, 3.0
MEMORY_SHARE = 0.9
RUNTIME = "torch and its libraries"
INSTANTS = 400
# what a trace depends on, in the order of `Local._trace`
TRACED = ("precision", "memory_format", "checkpointing", "micro_batch")


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
        again = self.job.plan.checkpointing
        if again not in (None, "none") and not self.repeats:
            raise JobError(
                f"plan.checkpointing is '{again}', and model '{self.learning.model.name}' has no repeated blocks to "
                "compute again",
                mend="Leave it out: for this model there is only 'none'.",
            )
        self._traced = functools.cache(self._trace)

    @functools.cached_property
    def repeats(self) -> bool:
        """Whether the model has blocks that can be computed again."""
        return any(True for _ in repeated_blocks(models.build(self.learning.model, "meta")))

    @property
    def memory(self) -> tuple[float, str]:
        """Bytes that the run may hold, and where the limit comes from."""
        own = MEMORY_SHARE * self.device.memory_bytes
        asked = self.job.budget.memory
        if asked is not None and asked < own:
            return asked, f"the budget of {format_bytes(asked)}"
        return own, f"nine tenths of this machine's {format_bytes(self.device.memory_bytes)}"

    def with_memory(self, factor: int) -> Local:
        """The same job where it may hold so many times as much; what was traced and priced here is known there."""
        asked = self.job.budget.memory
        budget = self.job.budget.model_copy(update={"memory": asked * factor if asked is not None else None})
        other = replace(
            self,
            job=self.job.model_copy(update={"budget": budget}),
            device=self.device.model_copy(update={"memory_bytes": self.device.memory_bytes * factor}),
            known=dict(self.known),
        )
        other._traced = self._traced
        return other

    @property
    def limits(self) -> dict[str, float]:
        """Of the search: memory alone, for a training that is too long is cut short."""
        return {"peak_bytes": self.memory[0]}

    def correct(self, quantity: str, interval: Interval) -> Interval:
        """Correct a prediction by earlier runs on this machine."""
        return correct(interval, quantity, kin_of(self.learning.model), self.history)

    def dimensions(self) -> dict[str, tuple[Any, ...]]:
        """What can be tried, pins applied, plain values first; micro-batches are found as they are needed."""
        pins, convolves = self.job.plan, self.learning.traits.convolves
        formats = values("memory_format", self.device, here=True) if convolves else ("contiguous",)
        again = values("checkpointing", self.device, here=True) if self.repeats else ("none",)
        return {
            "precision": (pins.precision,) if pins.precision else values("precision", self.device, here=True),
            "memory_format": (pins.memory_format,) if pins.memory_format else formats,
            "checkpointing": (pins.checkpointing,) if pins.checkpointing else again,
        }

    def way(self, settings: Settings) -> Way:
        """Price a way, once."""
        key = repr(sorted(settings.items()))
        if key not in self.known:
            self.known[key] = Way(dict(settings), self.price(settings))
        return self.known[key]

    def widest(self, settings: Settings) -> Way | None:
        """Price a way with the micro-batch that the job pins, else the largest that fits; None where none does."""
        micro = self.job.plan.micro_batch or self.largest(settings)
        return self.way({**settings, "micro_batch": min(micro, self.learning.size)}) if micro else None

    def largest(self, settings: Settings) -> int:
        """The most samples at once whose peak stays within memory; 0 for none."""
        return largest_micro_batch(
            lambda micro: self.trace({**settings, "micro_batch": micro}),
            self.memory[0],
            self.learning.size,
            device_kind=self.device.kind,
        )

    def smaller(self, way: Way) -> Way | None:
        """The way to take where this one needs more memory than was foreseen; None where there is none left.

        It takes half as many samples at once; from one sample on, it computes more again.
        """
        micro, kinds = way.settings["micro_batch"], self.dimensions()["checkpointing"]
        if micro > 1 and math.ceil(micro / 2) >= self.fewest and not self.job.plan.micro_batch:
            return self.way({**way.settings, "micro_batch": math.ceil(micro / 2)})
        for how in kinds[kinds.index(way.settings["checkpointing"]) + 1 :]:
            with contextlib.suppress(JobError):
                settings = {**way.settings, "checkpointing": how}
                return self.widest(settings) or self.way(settings)
        return None

    @property
    def fewest(self) -> int:
        """The fewest samples that may be computed at once: one, or what the job pins.

        Batch norm over features takes no statistics of a lone sample; of pairs an odd step would leave one. Ours norm
        over pixels too.
        """
        lone = self.learning.traits.batch_norm and self.learning.model.family not in models.FAMILIES
        return min(self.job.plan.micro_batch or (3 if lone else 1), self.learning.size)

    def fits(self, way: Way) -> bool:
        """Whether a way stays within memory nine times in ten."""
        return way.price.risk_bytes <= self.memory[0]

    def peak(self, settings: Settings) -> Interval:
        """Predict the memory of a way from its trace alone."""
        parts = math.ceil(self.learning.size / settings["micro_batch"])
        peak = peak_bytes(self.trace(settings), accumulation=parts, device_kind=self.device.kind)
        return self.correct("peak_bytes", peak)

    def trace(self, settings: Settings) -> Trace:
        """Trace one micro-batch of a way, once."""
        return self._traced(*(settings[field] for field in TRACED))

    def price(self, settings: Settings) -> Priced:
        """Price a way, whether or not it may be taken."""
        micro, trace = settings["micro_batch"], self.trace(settings)
        size, steps = self.learning.size, self.learning.stop.steps
        evaluations = evaluations_of(self.job, self.learning, self.dataset)
        cost = predict(
            micro=trace,
            samples_per_micro=micro,
            accumulation=math.ceil(size / micro),
            steps=steps,
            evaluations=evaluations,
            evaluation_samples=self.dataset.counts["validation"],
            device=self.device,
            precision=settings["precision"],
            keeping=keeping(self.device.kind, settings["checkpointing"]),
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
            lambda: recomputing(models.build(learning.model), settings["checkpointing"]),
            LOSSES[learning.task],
            batch_of(self.dataset, micro),
            precision=settings["precision"],
            optimizer=by_name(learning.optim.optimizer),
            accumulation=math.ceil(learning.size / micro),
            evaluation_batch=batch_of(self.dataset, evaluation),
            memory_format=MEMORY_FORMATS[settings["memory_format"]],
            keeping=keeping(self.device.kind, settings["checkpointing"]),
        )
        return Held(heap, runtime_bytes(self.device.cores))

    def _trace(self, precision: Any, memory_format: Any, checkpointing: str, micro: int) -> Trace:
        return trace_of(
            self.learning,
            self.dataset,
            micro,
            precision=precision,
            memory_format=memory_format,
            checkpointing=checkpointing,
            device="cuda" if self.device.kind == "cuda" else "cpu",
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
        best = _better(local, best, local.widest(settings))
        if best is not None and _spent(best, began):
            break
    micro = best.settings["micro_batch"] if best is not None and local.job.plan.micro_batch is None else 1
    while best is not None and micro > 1 and math.ceil(micro / 2) >= local.fewest and not _spent(best, began):
        micro = math.ceil(micro / 2)
        way = local.way({**best.settings, "micro_batch": micro})
        if way.price.seconds > 1.1 * best.price.seconds:
            break  # smaller ones pay the overheads of an operator for fewer samples
        best = _better(local, best, way)
    if best is None or not local.fits(best):
        best = _until_it_fits(local, dimensions, best, began)
    else:
        _try_checkpointing(local, dimensions["checkpointing"][1:], best, began)
    if best is None:
        raise _too_small(local, dimensions)
    ways = list(local.known.values())
    space = Space({"at": range(len(ways))})
    found = search(space, lambda settings: ways[settings["at"]].price, limits=local.limits)
    if found.choice is None:
        raise _too_small(local, dimensions)
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


def _until_it_fits(local: Local, dimensions: dict[str, tuple[Any, ...]], best: Way | None, began: float) -> Way | None:
    """Compute more and more again, until some way fits; the best there is, None where no way takes even one sample.

    Code of a model that does not bear being run twice leaves that way out.
    """
    for how in dimensions["checkpointing"][1:]:
        for plain in _plain_first(dimensions):
            settings = {**plain, "checkpointing": how}
            with contextlib.suppress(JobError):
                one = local.peak({**settings, "micro_batch": local.fewest})
                if one.high <= local.memory[0]:
                    best = _better(local, best, local.widest(settings))
        if best is not None and local.fits(best):
            whole = best.settings["micro_batch"] in (local.job.plan.micro_batch, local.learning.size)
            if whole or _spent(best, began):
                break
    return best


def _try_checkpointing(local: Local, kinds: Sequence[str], best: Way, began: float) -> None:
    """Price what computes more again than the best way: where that lets more samples through at once, or to show it.

    Computing again never makes a micro-batch faster. So it can only win where memory cut the micro-batch and the whole
    batch would have been faster; elsewhere it is shown for its memory, while there is patience for a trace.
    """
    settings, size = best.settings, local.learning.size
    cut = settings["micro_batch"] < size and not local.job.plan.micro_batch
    if cut and local.price({**settings, "micro_batch": size}).seconds < best.price.seconds:
        for how in kinds:
            with contextlib.suppress(JobError):
                local.widest({**settings, "checkpointing": how})
            if _spent(best, began):
                break
        return
    for how in reversed(kinds):
        if _spent(best, began):
            break
        with contextlib.suppress(JobError):
            local.way({**settings, "checkpointing": how})


def _better(local: Local, one: Way | None, other: Way | None) -> Way | None:
    """The faster of two ways, where both or none fit."""
    ways = [way for way in (one, other) if way is not None]
    return min(ways, key=lambda way: (not local.fits(way), way.price.seconds), default=None)


def _plain_first(dimensions: dict[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Combinations with the likeliest gain first: channels-last where there is a choice, then the cheaper precision.

    Of checkpointing the first value alone: the others never make a micro-batch faster.
    """
    again = dimensions["checkpointing"][0]
    formats = sorted(dimensions["memory_format"], key=lambda value: value != "channels_last")
    for precision in reversed(dimensions["precision"]):
        yield {"precision": precision, "memory_format": formats[0], "checkpointing": again}
    for other in formats[1:]:
        for precision in reversed(dimensions["precision"]):
            yield {"precision": precision, "memory_format": other, "checkpointing": again}


def _spent(best: Way, began: float) -> bool:
    patience = min(max(LEAST_PATIENCE_SECONDS, PATIENCE_SHARE * best.price.seconds), MOST_PATIENCE_SECONDS)
    return time.perf_counter() - began > patience


def _too_small(local: Local, dimensions: dict[str, tuple[Any, ...]]) -> BudgetError:
    plain, needed = next(_plain_first(dimensions)), {}
    for how in dimensions["checkpointing"]:
        with contextlib.suppress(JobError):
            needed[how] = local.peak({**plain, "checkpointing": how, "micro_batch": local.fewest}).high
    how = min(needed, key=lambda each: needed[each])
    samples = "one sample at a time needs" if local.fewest == 1 else f"{local.fewest:,} samples at a time need"
    again = "" if how == "none" else f", with {how} checkpointing"
    lower = "Lower plan.micro_batch, raise" if local.job.plan.micro_batch and local.fewest > 1 else "Raise"
    return BudgetError(
        f"memory {format_bytes(local.memory[0])} is too small: {samples} about {format_bytes(needed[how])}{again}",
        mend=f"{lower} budget.memory, choose a smaller model, or plan on another machine: thrifty plan JOB --on any.",
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
