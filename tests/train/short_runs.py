"""Short trainings for the tests: run to the end or killed, and compared to the bit."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from thrifty.data import Store
from thrifty.models import build
from thrifty.models.init import initialise
from thrifty.spec import Plan, Spent
from thrifty.spec.events import Event, StepDone
from thrifty.train import train


class Killed(Exception):  # noqa: N818 - a signal, not an error
    """Stands for the end of the process at a given event."""


def go(plan: Plan, store: Store, folder: Path, die_at: int | None = None) -> tuple[nn.Module, list[Event]]:
    events: list[Event] = []

    def emit(event: Event) -> None:
        events.append(event)
        if isinstance(event, StepDone) and event.step == die_at:
            raise Killed

    model = build(plan.model)
    initialise(model, plan.init, plan.seed)
    train(plan, model, store, folder, emit=emit, spent=Spent)
    return model, events


def same(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())
