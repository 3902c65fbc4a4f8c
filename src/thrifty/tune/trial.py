"""A part of a trial, for real: build, begin or go on from its checkpoint, train to a step, look at each validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from thrifty import models
from thrifty.data import Store
from thrifty.hardware.pages import keep_pages, keeping
from thrifty.models.init import initialise
from thrifty.spec import Plan, Spent
from thrifty.spec.events import Emit, Evaluated, Event, Lowered, Paused, Progress, StepDone, Warned, WentOn
from thrifty.train import Trained, train
from thrifty.train.steering import Steer, undisturbed

# Told of each validation: the step, and the figure; raises `Hopeless` where going on is a waste.
Look = Callable[[int, float], None]


class Hopeless(Exception):  # noqa: N818 - a signal, not an error
    """Raised by a `Look`; what it says is why."""


@dataclass(frozen=True)
class Ran:
    """A part of a trial that came to where it should, or as far as the budget went; the model has its best weights."""

    trained: Trained
    model: nn.Module


@dataclass
class Runner:
    """Runs parts of trials.

    Attributes:
        store: prepared data.
        folder: in which each trial has its checkpoints, by its key.
        limits: of the whole search, as a plan has them.
        spent: what the search took until now.
        emit: is told how steps go.
        steer: says what the search is asked for.
    """

    store: Store
    folder: Path
    limits: dict[str, float]
    spent: Callable[[], Spent]
    emit: Emit
    steer: Steer = undisturbed

    def folder_of(self, key: str) -> Path:
        """Folder of a trial's checkpoints."""
        return self.folder / "trials" / key

    def has(self, key: str, step: int) -> bool:
        """Whether a trial of so many steps can be gone on with here: its checkpoint may lie on another machine."""
        return step == 0 or any(self.folder_of(key).glob("step-*.sha256"))

    def run(self, number: int, plan: Plan, key: str, until: int, look: Look) -> Ran:
        """Train to a step, from the trial's last checkpoint.

        Args:
            number: of the trial, to be shown.
            plan: of its whole training.
            key: of what it learns.
            until: step to stop at.
            look: is told of each validation.

        Raises:
            Hopeless: ``look`` did; nothing of the part is kept.
            ThriftyError: as training does.
        """
        part = plan.model_copy(update={"stop": plan.stop.model_copy(update={"steps": until, **self.limits})})

        def emit(event: Event) -> None:
            if isinstance(event, StepDone):
                self.emit(Progress(f"trial {number + 1}", event.step, plan.stop.steps, "steps"))
            elif isinstance(event, Evaluated):
                look(event.step, event.metrics[plan.stop.metric])
            elif isinstance(event, Warned | Paused | WentOn | Lowered):
                self.emit(event)

        keep_pages(keeping(plan.device, plan.checkpointing))
        model = models.build(plan.model, seed=plan.seed)
        initialise(model, plan.init, plan.seed, plan.model)
        folder = self.folder_of(key)
        return Ran(train(part, model, self.store, folder, emit=emit, spent=self.spent, steer=self.steer), model)
