"""A run whose model is compiled: learns as any other, goes on exactly, tells its seconds apart, and leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from thrifty.data import Store
from thrifty.models import build
from thrifty.models.compiling import compiled_parts, lacking
from thrifty.models.init import initialise
from thrifty.spec import Plan, Spent
from thrifty.spec.events import Compiled, Event, StepDone
from thrifty.train import train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(lacking("cpu")), reason="needs a C++ compiler"),
    # see the tests of models.compiling
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),
]


class Killed(Exception):  # noqa: N818 - a signal, not an error
    """Stands for the end of the process at a given step."""


def go(plan: Plan, store: Store, folder: Path, *, die_at: int = 0) -> tuple[nn.Module, list[Event]]:
    model, events = build(plan.model), []
    initialise(model, plan.init, plan.seed)

    def emit(event: Event) -> None:
        events.append(event)
        if isinstance(event, StepDone) and event.step == die_at:
            raise Killed

    try:
        train(plan, model, store, folder, emit=emit, spent=Spent)
    except Killed:
        assert die_at
    return model, events


def test_a_compiled_run_learns_the_same_and_goes_on_exactly(
    make_plan: Callable[..., Plan], store: Store, tmp_path: Path
) -> None:
    # the last step of an epoch is smaller, and compiles nothing
    plain, compiled = make_plan(steps=8), make_plan(steps=8, compile="whole")
    assert store.dataset.counts["train"] % 64
    eager, _ = go(plain, store, tmp_path / "eager")
    model, events = go(compiled, store, tmp_path / "whole")
    (told,) = [event for event in events if isinstance(event, Compiled)]
    assert (told.step, told.parts) == (1, 1)
    first = next(event for event in events if isinstance(event, StepDone))
    assert first.seconds < told.seconds
    assert compiled_parts(model) == 0
    assert list(model.state_dict()) == list(eager.state_dict())
    for ours, theirs in zip(model.state_dict().values(), eager.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)

    go(compiled, store, tmp_path / "killed", die_at=6)
    resumed, _ = go(compiled, store, tmp_path / "killed")
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in resumed.state_dict().items())
    # what is learned is the same, and so a checkpoint goes on without compiling too
    go(compiled, store, tmp_path / "other", die_at=6)
    other, events = go(plain, store, tmp_path / "other")
    assert not any(isinstance(event, Compiled) for event in events)
    for ours, theirs in zip(other.state_dict().values(), eager.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
