"""What the search's tests stand on: a search of the digits, and training that only counts."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thrifty.data import Store
from thrifty.spec import Budget, Device, Job, Plan, Spent
from thrifty.spec.events import Emit, Event
from thrifty.spec.tuning import Choice, Space
from thrifty.train import Trained
from thrifty.train.steering import Steer, undisturbed
from thrifty.tune.ladder import ladder
from thrifty.tune.pricing import Pricer
from thrifty.tune.search import Worker
from thrifty.tune.storage import Study
from thrifty.tune.task import Aim, Task
from thrifty.tune.trial import Look, Ran, Runner

SPACE: Space = {
    "learning_rate": Choice(first=0.3, low=1e-4, high=1.0),
    "schedule": Choice(values=("cosine", "linear")),
}


@dataclass(frozen=True)
class Ground:
    """What searches of the digits begin with."""

    job: Job
    store: Store
    device: Device
    pricer: Pricer

    def task(self, folder: Path, **changes: Any) -> Task:
        draft = self.pricer.plan({})
        asked: dict[str, Any] = {
            "job": self.job,
            "key": "study",
            "aim": Aim(goal="best", metric="accuracy", rises=True),
            "space": SPACE,
            "shares": ladder(draft.stop.steps, draft.optim.steps_per_epoch).shares,
            "sampler": "tpe",
            "pruner": "asha",
            "trials": 12,
            "budget": Budget(),
            "began_at": time.time(),
            "url": str(folder / "study.sqlite"),
            "store": self.store.folder,
            "folder": folder,
            "device": self.device,
        }
        return Task(**(asked | changes))


def silent(event: Event) -> None:
    """Say nothing."""


def truth(settings: dict[str, Any]) -> float:
    """The accuracy that a configuration ends at: best at a rate of 1e-2."""
    return 0.9 - 0.05 * abs(math.log10(float(settings["learning_rate"])) + 2)


@dataclass
class Counting:
    """Training that takes no time: it counts steps, and its accuracy rises to that of `truth`.

    Attributes:
        paid: for each trial's key, the parts of it: from which step to which.
        kept: how good each best bundle was.
        before: is called before each part, and may raise.
    """

    paid: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    kept: list[float] = field(default_factory=list)
    before: Callable[[str, int], None] = lambda key, until: None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, runner: Runner, number: int, plan: Plan, key: str, until: int, look: Look) -> Ran:
        folder = runner.folder_of(key)
        saved = [int(path.stem.partition("-")[2]) for path in folder.glob("step-*.sha256")]
        step = begun = max(saved, default=0)
        self.before(key, until)
        total, values = plan.stop.steps, [0.0]
        while step < until:
            step = min(step - step % plan.evaluate_every + plan.evaluate_every, until)
            value = truth({"learning_rate": plan.optim.learning_rate}) - 0.1 * (1 - step / total)
            values.append(value)
            look(step, value)
        with self.lock:
            self.paid.setdefault(key, []).append((begun, until))
        (folder / f"step-{until}.sha256").touch()
        trained = Trained(until, {"accuracy": max(values)}, until, "all steps done")
        return Ran(trained, None)  # type: ignore[arg-type]


def carry_out(
    ground: Ground, task: Task, *, spent: Callable[[], Spent] = Spent, emit: Emit = silent, steer: Steer = undisturbed
) -> tuple[str, Study]:
    """Be a worker until nothing is left; returns why, and the study."""
    study = Study(task.url, task.key, rises=task.aim.rises, emit=emit)
    return Worker(task, study, ground.store, ground.pricer, spent=spent, emit=emit, steer=steer).work(), study
