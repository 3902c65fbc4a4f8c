"""What a configuration will take, before it runs: planned once for each model, set right by what trials took.

Planning takes seconds, as long as a small trial: so it is done for each model and optimizer alone. What else a
configuration changes is put into that plan: what is learned, and how many micro-batches of the size that was planned
make a step. Its price goes by the samples that it sees. That smaller batches, changed samples or a busy machine take
longer is seen in the trials that ran, and the next ones are priced by it.
"""

from __future__ import annotations

import contextlib
import json
import math
import statistics
from collections.abc import Mapping, Sequence

from thrifty import planner
from thrifty.data import Store
from thrifty.errors import BudgetError
from thrifty.planner import Probe
from thrifty.planner.learning import decide
from thrifty.planner.rules import Reasons
from thrifty.planner.steps import rows_of
from thrifty.spec import Device, Job, Pins, Plan, Spent
from thrifty.spec.tuning import Settings
from thrifty.tune.ladder import Ladder
from thrifty.tune.record import Price, Record
from thrifty.tune.space import with_settings

# settings that a plan of its own is made for
PLANNED = ("model", "optimizer")
# settings that bear on what a sample takes
BEARING = ("model", "optimizer", "batch", "augment", "dropout", "progressive")
# trials whose median sets a price right: the last ones
CORRECTED_BY = 9
# how far: one that took far longer was disturbed
_LEAST, _MOST = 0.1, 10.0
# of the memory that larger batches may take by what a smaller one takes, which is more than they do
_MEMORY_SHARE = 0.5


class Pricer:
    """Plans and prices the configurations of a job.

    Args:
        job: as it is; of its budget the memory alone holds for a trial, and its target ends one where ``targeted``.
        store: prepared data.
        device: what a trial has of the machine.
        probe: times a few real steps of a plan.
        targeted: whether trials end at the job's target.
        plans: that were made before.

    Attributes:
        plans: by model and optimizer; the first decides how all are computed.
    """

    def __init__(
        self,
        job: Job,
        store: Store,
        device: Device,
        *,
        probe: Probe | None,
        targeted: bool = False,
        plans: Mapping[str, Plan] | None = None,
    ) -> None:
        budget = job.budget.of_memory
        # the ladder says who ends early
        train = job.train.model_copy(update={"patience": None})
        self._job = job.model_copy(update={"budget": budget, "train": train})
        self._store, self._device, self._probe, self._targeted = store, device, probe, targeted
        self.plans = dict(plans or {})
        self._decided: dict[str, Plan] = {}

    def plan(self, settings: Settings, ladder: Ladder | None = None) -> Plan:
        """Return the plan of a configuration; on a ladder it is validated at each level and in between.

        Raises:
            JobError: the settings do not go together, or not with the data.
            BudgetError: not even one sample at a time fits the memory.
        """
        asked = json.dumps([settings, ladder.shares if ladder is not None else None], sort_keys=True)
        if asked not in self._decided:
            self._decided[asked] = self._plan(settings, ladder)
        return self._decided[asked]

    def _plan(self, settings: Settings, ladder: Ladder | None) -> Plan:
        dataset = self._store.dataset
        job = with_settings(self._job, settings, dataset)
        way = f"{job.model} {job.train.optimizer}"
        if way not in self.plans:
            self.plans[way] = self._planned(settings)
        base = self.plans[way]
        learning = decide(job, dataset, Reasons([]))
        stop, micro = learning.stop, self._micro(base, learning.size)
        if not self._targeted:
            stop = stop.model_copy(update={"target": math.inf if stop.higher_is_better else -math.inf})
        batch = base.batch.model_copy(
            update={"size": learning.size, "micro": micro, "accumulation": math.ceil(learning.size / micro)}
        )
        return base.model_copy(
            update={
                "model": base.model.model_copy(update={"arguments": learning.model.arguments}),
                "init": learning.init,
                "optim": learning.optim,
                "batch": batch,
                "stop": stop,
                "rows": rows_of(learning, base.precision),
                "augment": job.train.augment,
                "progressive": learning.growth.begin if learning.growth is not None else 1.0,
                "label_smoothing": job.train.label_smoothing,
                "evaluate_every": ladder.every(stop.steps) if ladder is not None else base.evaluate_every,
            }
        )

    def price(self, settings: Settings, plan: Plan) -> Price:
        """Return what the whole training of a configuration takes by its plan, by the samples it sees."""
        job = with_settings(self._job, settings, self._store.dataset)
        base = self.plans[f"{job.model} {job.train.optimizer}"]
        share = plan.stop.steps * plan.batch.size / (base.stop.steps * base.batch.size)
        cost = base.cost
        return Price(seconds=cost.seconds.value, joules=cost.joules.value, usd=cost.usd.value).part(share)

    def _micro(self, base: Plan, size: int) -> int:
        """Samples computed at once of a batch of another size: all, where that surely fits the memory, else as planned.

        Batch norm takes its statistics of them, so it matters that a run of its own would have as many.
        """
        planned = base.batch.micro
        if size <= planned or planned < base.batch.size or self._job.plan.micro_batch is not None:
            return min(planned, size)
        limit = self._job.budget.memory or _MEMORY_SHARE * self._device.memory_bytes
        return size if base.cost.peak_bytes.high * size / planned <= limit else planned

    def _planned(self, settings: Settings) -> Plan:
        """Plan a model and optimizer; the first one decides how all are computed."""
        named = {name: value for name, value in settings.items() if name in PLANNED}
        job = with_settings(self._job, named, self._store.dataset)
        first = next(iter(self.plans.values()), None)
        if first is None:
            return self._by_planner(job)
        pins = _as_computed(job.plan, first)
        if pins.micro_batch is None and first.batch.micro == first.batch.size:
            with contextlib.suppress(BudgetError):
                # the whole batch at once, as the first has it, where the memory allows: fewer ways are traced
                whole = pins.model_copy(update={"micro_batch": first.batch.size})
                return self._by_planner(job.model_copy(update={"plan": whole}))
        return self._by_planner(job.model_copy(update={"plan": pins}))

    def _by_planner(self, job: Job) -> Plan:
        return planner.plan(job, self._store.dataset, self._device, key="trial", spent=Spent(), probe=self._probe)


def _as_computed(pins: Pins, first: Plan) -> Pins:
    """What a job pins, and of the rest what the first plan chose: choosing takes seconds."""
    chosen = {
        "precision": first.precision,
        "memory_format": first.memory_format,
        "compile": first.compile,
        "loading": first.loading,
    }
    return pins.model_copy(update={name: getattr(pins, name) or value for name, value in chosen.items()})


def correction(records: Sequence[Record], settings: Settings) -> float:
    """Return how many times as long as planned trials took: those that compute alike, else all; 1 before any ran.

    Args:
        records: of the study.
        settings: of the configuration that is priced.
    """

    def way(of: Settings) -> list[object]:
        # dropped or not, whatever the share
        return [bool(of.get(name)) if name == "dropout" else of.get(name) for name in BEARING]

    took = [
        (way(each.settings), each.said.spent.seconds / (each.said.foreseen_s * each.said.step / each.said.total))
        for each in records
        if each.said.step and each.said.foreseen_s and each.said.spent.seconds
    ]
    alike = [ratio for other, ratio in took if other == way(settings)]
    ratios = (alike or [ratio for _, ratio in took])[-CORRECTED_BY:]
    return min(max(statistics.median(ratios), _LEAST), _MOST) if ratios else 1.0
