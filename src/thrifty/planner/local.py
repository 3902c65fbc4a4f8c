"""A job on the machine at hand: what can be tried, and the price of each way, traced and priced once."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from thrifty import models
from thrifty.cost import Trace, largest_micro_batch, peak_bytes, predict
from thrifty.cost.asked import heard, slowest
from thrifty.cost.time import seconds_by, times_of
from thrifty.data.images.growth import Growth
from thrifty.errors import JobError
from thrifty.hardware.asking import Asker
from thrifty.hardware.pages import keeping
from thrifty.models.recompute import repeated_blocks
from thrifty.planner.between import Between, Compared, between_ranks, compared
from thrifty.planner.compilable import BESIDE
from thrifty.planner.correction import Seen, correct, corrected, kin_of
from thrifty.planner.devices import freed_bytes, ranks_of
from thrifty.planner.dry import Held, dry_run
from thrifty.planner.explain import Quote
from thrifty.planner.growing import evaluation_work, mean_side
from thrifty.planner.holding import holds
from thrifty.planner.learning import Learning
from thrifty.planner.lengths import PackedShape, largest_shape, mean_length, packed_shape
from thrifty.planner.moves import MOVES, values
from thrifty.planner.offload import offload_here
from thrifty.planner.pins import check_pins
from thrifty.planner.proven import proof_of
from thrifty.planner.search import Priced, Settings, Way
from thrifty.planner.steps import trace_of
from thrifty.planner.validations import aims_of, validations
from thrifty.spec import BF16_HELD, KINDS, Batching, Dataset, Device, Interval, Job
from thrifty.spec.units import format_bytes

MEMORY_SHARE = 0.9
# what a trace depends on beside the length of its texts, in the order of `Local._trace`
TRACED = ("precision", "memory_format", "checkpointing", "micro_batch")


@dataclass
class Local:
    """A job on this machine: traces and prices each way once.

    Attributes:
        job, learning, dataset, device: what is planned, and where.
        history: earlier runs here, by which predictions are corrected.
        known: ways priced so far.
        asker: of this machine's device; None leaves all to what was timed of it before.
        held: bytes that the process holds before the run: a budget is for all of it, a prediction for what is added.
        whole: all of this machine, where ``device`` is what one of several ranks has of it.
        between: what ranks tell each other; None for one device.
        doubt: bytes by which a prediction's bound may pass the memory: the loop holds itself to a budget as it runs.
    """

    job: Job
    learning: Learning
    dataset: Dataset
    device: Device
    history: Sequence[Seen] = ()
    known: dict[str, Way] = field(default_factory=dict)
    asker: Asker | None = None
    held: int = 0
    doubt: float = 0.0
    whole: Device | None = None
    between: Between | None = None

    def __post_init__(self) -> None:
        check_pins(self.job, self.learning, self.dataset, self.device, repeats=self.repeats, batchings=self.batchings)
        if self.between is None:
            self.between = between_ranks(self.learning, self.device.kind, self.ranks, self.job.plan.zero or 0)
        self._traced = functools.cache(self._trace)

    @functools.cached_property
    def blocks(self) -> int:
        """How many repeated blocks the model has."""
        return sum(1 for _ in repeated_blocks(models.build(self.learning.model, "meta")))

    @property
    def repeats(self) -> bool:
        """Whether the model has blocks that can be computed again."""
        return self.blocks > 0

    @property
    def ranks(self) -> int:
        """Devices that train together; ``device`` is what one of them has."""
        return ranks_of(self.job)

    @property
    def share(self) -> int:
        """Samples of a step that one of them computes, at most."""
        return math.ceil(self.learning.size / self.ranks)

    @functools.cached_property
    def freed(self) -> float:
        """Bytes that one of several needs less than one alone, which is what is traced."""
        if self.ranks == 1:
            return 0.0
        plain = {name: each[0] for name, each in self.dimensions().items()} | {"micro_batch": self.fewest}
        return freed_bytes(self.learning, self.trace(plain), self.device.kind, self.ranks, self.job.plan.zero or 0)

    @property
    def memory(self) -> tuple[float, str]:
        """Bytes that the run, or one rank of it alone, may hold, and where the limit comes from."""
        own = MEMORY_SHARE * self.device.memory_bytes
        asked, held = self.job.budget.memory, self.held if self.device.kind == "cpu" else 0
        said = "" if self.ranks == 1 else f", one of {self.ranks} ranks"
        if asked is not None:
            # ranks on a processor share its memory
            part = (asked - held) / self.ranks if self.device.kind == "cpu" else asked
            if part < own:
                less = f" less {format_bytes(held)} that are held before the run" if held else ""
                return part + self.doubt + self.freed, f"the budget of {format_bytes(asked)}{less}{said}"
        return own + self.freed, f"nine tenths of this machine's {format_bytes(self.device.memory_bytes)}{said}"

    def with_memory(self, factor: int) -> Local:
        """The same job where it may hold so many times as much; what was traced and priced here is known there."""
        asked = self.job.budget.memory
        budget = self.job.budget.model_copy(update={"memory": asked * factor if asked is not None else None})
        other = replace(
            self,
            job=self.job.model_copy(update={"budget": budget}),
            device=self.device.model_copy(update={"memory_bytes": self.device.memory_bytes * factor}),
            known=dict(self.known),
            # what was said of this job's operators is in the device and the traces; no more is asked for a comparison
            asker=None,
        )
        other._traced = self._traced
        return other

    def releasing(self, wanted: bool) -> Local:
        """The same job with parameters stepped in the backward pass, without clipping then; or with gradients kept."""
        plan = self.job.plan.model_copy(update={"gradient_release": wanted})
        learning = self.learning
        if wanted:
            learning = replace(learning, optim=learning.optim.model_copy(update={"clip": math.inf}))
        job = self.job.model_copy(update={"plan": plan})
        return replace(self, job=job, learning=learning, known={}, asker=None)

    def growing(self, growth: Growth) -> Local:
        """The same job whose images grow; what was traced is known there."""
        other = replace(self, learning=replace(self.learning, growth=growth), known={}, asker=None)
        other._traced = self._traced
        return other

    def offloading(self) -> Local | None:
        """The same job with optimizer states in the processor's memory; None where it has them so, or cannot."""
        if self.job.plan.offload is not None:
            return None
        job = self.job.model_copy(update={"plan": self.job.plan.model_copy(update={"offload": True})})
        with contextlib.suppress(JobError):
            return replace(self, job=job, known={}, asker=None)
        return None

    def trusting(self) -> Local | None:
        """The same job where ways are taken that fit as foreseen, though their bounds pass the budget.

        Where none does, the leanest one; None where that cannot fit.
        """
        room, budget = self.memory[0], self.job.budget.memory
        if self.device.kind != "cpu" or budget is None:
            return None
        leanest = []
        for settings in self._plainest():
            with contextlib.suppress(JobError):
                leanest.append(self.peak({**settings, "micro_batch": self.fewest}))
        likely = [peak.high for peak in leanest if peak.value <= room]
        if not likely:
            likely = [peak.high for peak in sorted(leanest, key=lambda peak: peak.high)[:1] if peak.low <= room]
        if not likely:
            return None
        other = replace(self, doubt=max(0.0, max(likely) - room), known={})
        other._traced = self._traced
        return other

    def _plainest(self) -> Iterator[Settings]:
        """Ways of computing again at each precision, of all else the plainest."""
        dimensions = self.dimensions()
        plain = {field: each[0] for field, each in dimensions.items()}
        for precision, how in itertools.product(dimensions["precision"], reversed(dimensions["checkpointing"])):
            yield {**plain, "precision": precision, "checkpointing": how}

    @property
    def sure_bytes(self) -> float:
        """Bytes that the run, or one rank of it alone, may hold, of which none are in doubt."""
        return self.memory[0] - self.doubt

    @property
    def limits(self) -> dict[str, float]:
        """Of the search: memory alone, for a training that is too long is cut short."""
        return {"peak_bytes": self.memory[0]}

    def correct(self, quantity: str, interval: Interval) -> Interval:
        """Correct a prediction by earlier runs on this machine."""
        return correct(interval, quantity, kin_of(self.learning.model), self.history)

    @functools.cached_property
    def precisions(self) -> tuple[str, ...]:
        """What the job pins; else fp32 and what is proven to learn as it does, for models of this family.

        Weights held in bf16 save memory and no time, and double the search: they are taken where they are pinned.
        """
        if self.job.plan.precision:
            return (self.job.plan.precision,)
        family = self.learning.model.family
        known = [move.name for move in MOVES if move.field == "precision" and proof_of(move.value, family)]
        found = values("precision", self.device, known, here=True)
        return tuple(each for each in found if proof_of(each, family) and each not in BF16_HELD)

    def dimensions(self) -> dict[str, tuple[Any, ...]]:
        """What can be tried, pins applied, plain values first; micro-batches are found as they are needed."""
        pins, convolves = self.job.plan, self.learning.traits.convolves
        formats = values("memory_format", self.device, here=True) if convolves else ("contiguous",)
        again = values("checkpointing", self.device, here=True) if self.repeats else ("none",)
        again = tuple(how for how in again if how in BESIDE[pins.compile or "none"])
        batching = (pins.batching,) if pins.batching else self.batchings
        return {
            "precision": self.precisions,
            "memory_format": (pins.memory_format,) if pins.memory_format else formats,
            "checkpointing": (pins.checkpointing,) if pins.checkpointing else again,
            **({"batching": batching} if self.batches else {}),
        }

    @property
    def batches(self) -> bool:
        """Whether the way of batching is told in settings: of texts, and where documents lie apart."""
        return KINDS[self.dataset.kind].varies or self.learning.apart

    @property
    def batchings(self) -> tuple[Batching, ...]:
        """Ways of batching texts that the model takes, plain ones first; of windows whose documents lie apart one."""
        if self.learning.apart:
            return ("packed",)
        ways: tuple[Batching, ...] = values("batching", self.device, here=True)
        return tuple(way for way in ways if way != "packed" or self.learning.traits.packs)

    def way(self, settings: Settings) -> Way:
        """Price a way, once."""
        key = key_of(settings)
        if key not in self.known:
            self.known[key] = Way(dict(settings), self.price(settings))
        return self.known[key]

    def ask(self, settings: Settings, seconds: float) -> None:
        """Ask the device about the operators that take most of a way, and price all ways anew by what it says.

        What it says of an operator tells of those like it, too.
        """
        assert self.asker is not None
        trace, before = self.typical(settings), set(self.asker.known)
        self.asker.ask(slowest(trace, times_of(self.device).price(trace)), seconds)
        found = tuple(point for key, point in self.asker.known.items() if key not in before)
        self.device = self.device.model_copy(update={"kernels": (*self.device.kernels, *found)})
        for key, way in self.known.items():
            self.known[key] = Way(way.settings, self.price(way.settings))

    def widest(self, settings: Settings) -> Way | None:
        """Price a way with the micro-batch that the job pins, else the largest that fits; None where none does."""
        micro = self.job.plan.micro_batch or self.largest(settings)
        micro = 0 if self.releases and micro < self.share else micro
        return self.way({**settings, "micro_batch": min(micro, self.share)}) if micro else None

    def largest(self, settings: Settings) -> int:
        """The most samples at once whose peak stays within memory; 0 for none."""
        return largest_micro_batch(
            lambda micro: self.trace({**settings, "micro_batch": micro}),
            self.memory[0],
            self.share,
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
    def releases(self) -> bool:
        """Whether parameters are stepped in the backward pass."""
        return bool(self.job.plan.gradient_release)

    @property
    def fewest(self) -> int:
        """The fewest samples that may be computed at once: one, or what the job pins; all where gradients are released.

        Batch norm over features takes no statistics of a lone sample; of pairs an odd step would leave one. Ours norm
        over pixels too.
        """
        if self.releases:
            return self.share
        lone = self.learning.traits.batch_norm and self.learning.model.family not in models.FAMILIES
        return min(self.job.plan.micro_batch or (3 if lone else 1), self.share)

    def fits(self, way: Way) -> bool:
        """Whether a way stays within memory nine times in ten."""
        return way.price.risk_bytes <= self.memory[0]

    def peak(self, settings: Settings) -> Interval:
        """Predict the memory of a way from its trace alone."""
        parts = math.ceil(self.share / settings["micro_batch"])
        peak = peak_bytes(self.trace(settings), accumulation=parts, device_kind=self.device.kind)
        return self.correct("peak_bytes", peak)

    def trace(self, settings: Settings) -> Trace:
        """Trace one micro-batch of a way, once; of texts the longest, which memory goes by."""
        return self._traced(
            *(settings[field] for field in TRACED), largest_shape(self.dataset, settings, batch=self.learning.size)
        )

    def typical(self, settings: Settings) -> Trace:
        """Trace one micro-batch of a way, once; of texts of mean length, of images of mean side, by which time goes."""
        if settings.get("batching") == "packed":
            micro = settings["micro_batch"]
            shape = packed_shape(self.dataset, batch=self.learning.size, micro=micro)
            return self._traced(*(settings[field] for field in TRACED), shape)
        length = self.length(settings)
        if self.dataset.kind == "image":
            length = mean_side(self.learning.growth)
        elif length == self.dataset.shape[0]:
            length = None
        if length is None:
            return self.trace(settings)
        return self._traced(*(settings[field] for field in TRACED), length)

    def length(self, settings: Settings) -> int | None:
        """Tokens that a text takes in the mean, padded or packed; None for data whose samples are all of one size."""
        if not self.batches:
            return None
        if settings["batching"] == "packed":
            size, micro = self.learning.size, settings["micro_batch"]
            return round(packed_shape(self.dataset, batch=size, micro=micro).tokens / micro)
        micro, batching = settings["micro_batch"], settings["batching"]
        return mean_length(self.dataset, batch=self.learning.size, micro=micro, batching=batching)

    def price(self, settings: Settings) -> Priced:
        """Price a way, whether or not it may be taken."""
        micro, trace, largest = settings["micro_batch"], self.typical(settings), self.trace(settings)
        size, steps = self.share, self.learning.stop.steps
        held_out = math.ceil(self.dataset.counts["validation"] / self.ranks)
        aims, step_s = aims_of(self.job, self.learning.optim, self.learning.stop), 0.0

        def count(seconds: float, validation_s: float) -> int:
            nonlocal step_s
            step_s = seconds
            return validations(aims, steps, seconds, validation_s)

        foreseen = predict(
            micro=trace,
            samples_per_micro=micro,
            accumulation=math.ceil(size / micro),
            steps=steps,
            evaluations=count,
            evaluation_samples=held_out,
            evaluation_work=evaluation_work(self.learning.growth),
            device=self.device,
            precision=settings["precision"],
            keeping=keeping(self.device.kind, settings["checkpointing"]),
            largest=largest,
            waits=self.waits(settings),
        )
        cost = corrected(foreseen, self.correct)
        quote = Quote(
            cost=cost,
            step_seconds=step_s * cost.seconds.value / foreseen.seconds.value,
            time_goes=seconds_by(trace, self.device, lambda op: op.kind.replace("_", " ")),
            memory_holds=holds(largest, math.ceil(size / micro), cost.peak_bytes.value),
        )
        return Priced(
            usd=cost.usd.value,
            seconds=cost.seconds.value,
            joules=cost.joules.value,
            peak_bytes=cost.peak_bytes.value,
            risk_bytes=cost.peak_bytes.high,
            detail=quote,
        )

    def waits(self, settings: Settings) -> Interval | None:
        """Predict the seconds of a step that pass beside the device's own work; None where none do.

        Ranks wait for each other's messages, a GPU for the step that is taken in the processor's memory.
        """
        if self.job.plan.offload:
            return offload_here(self.typical(settings).gradient_bytes / 4)
        if self.between is None:
            return None
        return self.between.seconds(
            self.typical(settings), math.ceil(self.share / settings["micro_batch"]), self.device
        )

    def compared(self, way: Way) -> Compared:
        """Set a step of several ranks beside one of one device."""
        assert self.between is not None and self.whole is not None
        settings = way.settings
        return compared(
            self.between,
            self.typical(settings),
            (self.device, self.whole),
            (self.learning.size, settings["micro_batch"]),
            settings["precision"],
            keeping(self.device.kind, settings["checkpointing"]),
        )

    def dry_run(self, settings: Settings, evaluation: int) -> Held:
        """Take the steps of a way on memory alone, a validation of so many samples after them."""
        if self.device.kind != "cpu":
            return Held()
        if self.asker is not None:
            self.asker.close()
        return dry_run(
            self.learning,
            self.dataset,
            settings,
            evaluation,
            share=self.share,
            cores=self.device.cores,
            release=self.releases,
        )

    def _trace(
        self,
        precision: Any,
        memory_format: Any,
        checkpointing: str,
        micro: int,
        length: int | PackedShape | None = None,
    ) -> Trace:
        trace = trace_of(
            self.learning,
            self.dataset,
            micro,
            precision=precision,
            memory_format=memory_format,
            checkpointing=checkpointing,
            device="cuda" if self.device.kind == "cuda" else "cpu",
            length=length,
            accumulating=micro < self.learning.size,
            release=self.releases,
            offload=bool(self.job.plan.offload),
        )
        if self.asker is None:
            return trace
        if self.device.kind == "cuda":
            self.asker.ask(trace.calls)
        return heard(trace, self.asker)


def key_of(settings: Settings) -> str:
    """What tells a way from another."""
    return repr(sorted(settings.items()))
