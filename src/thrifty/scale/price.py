"""What runs of a family take: here, by this machine's measured rates, and on what the budget is to be spent on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from thrifty.errors import BudgetError, JobError
from thrifty.planner import Seen
from thrifty.planner.quoted import Quoted, quote_here, quote_on
from thrifty.scale.layout import Amounts
from thrifty.spec import Cluster, Dataset, Device, Job, Pins
from thrifty.spec.scaling import Quantity, Size

# of a run that is priced for what a sample takes: enough that its one validation is little
STEPS_PRICED = 1_000
# Seconds of a small run beside its training: planning, building, validating twice, its bundle and its page; as small
# GPTs took on two cores (benchmarks.scale).
OVERHEAD_S = 4.0
# how small runs are computed, as is the best for the job's own size
SETTLED = ("precision", "memory_format", "micro_batch")
# how far off the price of the small runs may be, each way
DOUBT = 0.5


@dataclass
class Prices:
    """What a family's runs take here.

    Attributes:
        job: whose family; small runs are like it but for size, rate and length.
        dataset, device: what it learns from, and on.
        batch: samples of a step.
        history: earlier runs here, by which predictions are corrected.
        pins: how small runs are computed, all alike; None until one was priced.
    """

    job: Job
    dataset: Dataset
    device: Device
    batch: int
    history: list[Seen] = field(default_factory=list)
    pins: Pins | None = None
    _quotes: dict[str, Quoted] = field(default_factory=dict)

    def run(self, size: Size, steps: int) -> dict[Quantity, float]:
        """Price a small run of a size in so many steps."""
        quoted = self._quote(size)
        seconds = OVERHEAD_S + quoted.step_s * (steps + self._validation_steps())
        return {
            "flops": size.flops * steps * self.batch,
            "seconds": seconds,
            "joules": seconds * _a_second(quoted, "joules"),
            "usd": seconds * _a_second(quoted, "usd"),
        }

    def sample(self, size: Size) -> dict[Quantity, float] | None:
        """Price learning from one sample here once; None where not even one fits.

        A size that does not fit as the small ones are computed is priced by the best way there is.
        """
        for pins in (self.settled(), self.job.plan):
            with contextlib.suppress(BudgetError):
                job = self._long(size.model, pins)
                return _of_sample(quote_here(job, self.dataset, self.device, self.history), size, self.batch)
        return None

    def _quote(self, size: Size) -> Quoted:
        if size.model not in self._quotes:
            job = self._long(size.model, self.settled())
            self._quotes[size.model] = quote_here(job, self.dataset, self.device, self.history)
        return self._quotes[size.model]

    def settled(self) -> Pins:
        """Pin how small runs are computed, as the job's own size is best: precision is not to differ between them."""
        if self.pins is None:
            self.pins = plain_pins(self.job.plan)
            with contextlib.suppress(BudgetError):
                job = self._long(self.job.model, self.pins)
                settings = quote_here(job, self.dataset, self.device, self.history).settings
                how = {name: settings[name] for name in SETTLED if name in settings}
                self.pins = self.pins.model_copy(update=how)
        return self.pins

    def _long(self, model: str, pins: Pins) -> Job:
        return longer(self.job, model, self.batch, pins)

    def _validation_steps(self) -> float:
        # a forward pass is a third of a step; the validation split, then that of the test
        held_out = self.dataset.counts["validation"] + self.dataset.counts["test"]
        return held_out / self.batch / 3


def plain_pins(pins: Pins) -> Pins:
    """Pin what would cost a small run more time than it saves: compiling, and ways that spare memory."""
    plain = {"compile": pins.compile or "none", "checkpointing": pins.checkpointing or "none"}
    return pins.model_copy(update=plain)


def longer(job: Job, model: str, batch: int, pins: Pins) -> Job:
    """The job with another model, in as many steps as are priced."""
    train = job.train.model_copy(
        update={"epochs": None, "steps": STEPS_PRICED, "batch": batch, "evaluations": 1, "patience": 0}
    )
    budget = job.budget.of_memory
    return job.model_copy(update={"model": model, "train": train, "plan": pins, "target": None, "budget": budget})


def sample_on(job: Job, dataset: Dataset, cluster: Cluster, batch: int) -> Callable[[Size], Amounts | None]:
    """Return what prices learning from one sample of a size on other devices; None for a size that does not fit."""

    def price(size: Size) -> Amounts | None:
        with contextlib.suppress(JobError):
            quoted = quote_on(longer(job, size.model, batch, Pins()), dataset, cluster)
            return _of_sample(quoted, size, batch) if quoted else None
        return None

    return price


def _of_sample(quoted: Quoted, size: Size, batch: int) -> dict[Quantity, float]:
    seconds = quoted.step_s / batch
    return {
        "flops": size.flops,
        "seconds": seconds,
        "joules": seconds * _a_second(quoted, "joules"),
        "usd": seconds * _a_second(quoted, "usd"),
    }


def _a_second(quoted: Quoted, quantity: str) -> float:
    seconds = quoted.cost.seconds.value
    return float(getattr(quoted.cost, quantity).value / seconds) if seconds else 0.0
