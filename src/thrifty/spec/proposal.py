"""`Proposal`: what `thrifty plan` answers: the ways there are, what each takes, the one to take, and why."""

from __future__ import annotations

from typing import Literal

from thrifty.spec.cost import Cost
from thrifty.spec.plain import Plain
from thrifty.spec.plan import Decision, Plan

Setting = str | int | float | bool
Mark = Literal["chosen", "front", "usual", "allowed"]


class Offer(Plain):
    """One way to do the job.

    Attributes:
        says: in the words of a table, such as ``bf16 · tensor 8 · pipeline 16``.
        settings: every field of it.
        cost: of the whole training; ``peak_bytes`` is of one device.
        step_seconds: of one optimizer step.
        mark: ``chosen``; of the ``front``; as most people run it (``usual``); or what an ``allowed`` move would give.
        remark: why it is shown.
        fits: within the memory there is and the budget.
    """

    says: str
    settings: dict[str, Setting]
    cost: Cost
    step_seconds: float
    mark: Mark
    remark: str = ""
    fits: bool = True


class Limit(Plain):
    """A limit beside what the chosen way takes: one of the job's budget, or the memory there is.

    Attributes:
        quantity: as in `Cost`.
        limit, predicted, high: in its unit; ``high`` is the upper end of the interval.
        says: where the limit comes from.
    """

    quantity: Literal["peak_bytes", "seconds", "joules", "usd"]
    limit: float
    predicted: float
    high: float
    says: str


class Doubling(Plain):
    """What twice one of a device's numbers would buy.

    Attributes:
        number: ``arithmetic``, ``memory bandwidth``, ``memory``, ``network``.
        seconds: of the whole training with it.
        speedup: today's seconds over those.
        says: the way that would then be best, when it is another one.
    """

    number: str
    seconds: float
    speedup: float
    says: str = ""


class Machine(Plain):
    """The job on some machine of the catalogue, by its best plan there.

    Attributes:
        name: to plan on it again: ``--on NAME``.
        device: its full name.
        devices: how many.
        offer: the best plan there.
        speedup_of_doubling: over half as many of the same; 0 for the smallest number that holds the job.
        pays: the last doubling gave at least half of what it cost.
        on_front: no other machine is both faster and cheaper.
    """

    name: str
    device: str
    devices: int
    offer: Offer
    speedup_of_doubling: float
    pays: bool
    on_front: bool


class Timeline(Plain):
    """Memory of one device over a step.

    Attributes:
        says: what is drawn, and how it was got.
        at: instants, in the unit that ``axis`` names.
        axis: of the instants.
        held: bytes at each instant by what holds them, from the bottom up.
    """

    says: str
    axis: str
    at: tuple[float, ...]
    held: dict[str, tuple[float, ...]]


class Probing(Plain):
    """A few real steps of one way, beside what was predicted of them."""

    says: str
    predicted_step_s: float
    measured_step_s: float
    steps: int

    @property
    def missed(self) -> float:
        """Measured over predicted, less one."""
        return self.measured_step_s / self.predicted_step_s - 1


class Proposal(Plain):
    """The answer to `thrifty plan`.

    Attributes:
        job, model, where: names; ``where`` is the machine or cluster.
        parameters: of the model.
        steps, batch: optimizer steps, and samples of each.
        length: tokens of a sample; 0 for images.
        offers: the rows of the table: the chosen way first, then the front from cheap to dear, then the usual way.
        front: every way that no other beats in time, memory and money.
        why: of each decision.
        time_goes, memory_holds: shares of a step's time, and bytes at the peak, by what takes them.
        limits: the budget and the memory there is.
        would_fit: when nothing fits: what would, the smallest change first.
        cheaper_still: what moves that are off would save.
        limited_by: what twice each number of the device would buy, the most first.
        machines: for a search over the catalogue, the cheapest first.
        timeline: memory over a step.
        probed: what real steps of the best ways took.
        notes: what else a reader must know, such as a prediction outside what was calibrated.
        candidates, priced: ways there were, and ways whose price had to be worked out.
        planning_seconds: that this took.
        plan: what `thrifty run` would carry out here; None for another machine.
    """

    job: str
    model: str
    where: str
    parameters: int
    steps: int
    batch: int
    length: int
    offers: tuple[Offer, ...]
    front: tuple[Offer, ...]
    why: tuple[Decision, ...]
    time_goes: dict[str, float]
    memory_holds: dict[str, float]
    limits: tuple[Limit, ...]
    would_fit: tuple[str, ...] = ()
    cheaper_still: tuple[str, ...] = ()
    limited_by: tuple[Doubling, ...] = ()
    machines: tuple[Machine, ...] = ()
    timeline: Timeline | None = None
    probed: tuple[Probing, ...] = ()
    notes: tuple[str, ...] = ()
    candidates: int
    priced: int
    planning_seconds: float
    plan: Plan | None = None

    @property
    def chosen(self) -> Offer | None:
        """The way to take; None when nothing fits."""
        return next((offer for offer in self.offers if offer.mark == "chosen"), None)

    @property
    def fits(self) -> bool:
        """Whether there is a way at all that keeps the budget and the memory there is."""
        return bool(self.machines) or self.chosen is not None
