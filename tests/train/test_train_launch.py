"""Ranks started and watched: one that is killed, a signal, an error; nothing is lost, and nobody is left behind."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from thrifty.data import Store
from thrifty.errors import RankLostError, SignalledError, ThriftyError
from thrifty.models import build
from thrifty.models.init import initialise
from thrifty.spec import Plan, Spent
from thrifty.spec.events import Event, Resumed, StepDone
from thrifty.train import train
from thrifty.train.launch import train_on_ranks
from thrifty.train.line import Use

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PlanFactory = Callable[..., Plan]
LEAST_BYTES = 50 << 20


def fresh(plan: Plan) -> nn.Module:
    model = build(plan.model)
    initialise(model, plan.init, plan.seed)
    return model


def ranks_of(parent: int) -> dict[int, int]:
    """Process numbers of the ranks that a process has started, by rank."""
    found = {}
    for path in Path(f"/proc/{parent}/task").glob("*/children"):
        for pid in path.read_text().split():
            variables = Path(f"/proc/{pid}/environ").read_bytes()
            if match := re.search(rb"(?:^|\0)RANK=(\d+)\0", variables):
                found[int(match[1])] = int(pid)
    return found


def on_ranks(
    plan: Plan, store: Store, folder: Path, at: Callable[[int], None] = lambda step: None
) -> tuple[nn.Module, list[Event], Sequence[Use]]:
    events: list[Event] = []
    last: list[Sequence[Use]] = [()]

    def emit(event: Event) -> None:
        events.append(event)
        if isinstance(event, StepDone):
            at(event.step)

    model = fresh(plan)
    train_on_ranks(plan, model, store, folder, emit=emit, spent=Spent, used=lambda uses: last.append(uses))
    return model, events, last[-1]


def alike(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.allclose(value, theirs[name], rtol=1e-5, atol=1e-5) for name, value in one.state_dict().items())


def test_a_killed_rank_ends_all_and_other_numbers_of_devices_go_on(
    make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"steps": 14, "evaluate_every": 5, "optimizer": "momentum", "learning_rate": 0.02}
    plan = make_plan(size=50, micro=9, **settings)
    whole = fresh(plan)
    train(plan, whole, store, tmp_path / "whole", emit=lambda event: None, spent=Spent)
    two, folder = plan.model_copy(update={"devices": 2}), tmp_path / "run"

    killed: dict[str, Any] = {}

    def kill_the_last(step: int) -> None:
        if step == 4:
            killed.update(ranks=ranks_of(os.getpid()), at=time.monotonic())
            os.kill(killed["ranks"][1], signal.SIGKILL)

    with pytest.raises(RankLostError, match=r"rank 1 of 2 \(process \d+\) was killed by SIGKILL after step \d+ of 14"):
        on_ranks(two, store, folder, kill_the_last)
    assert time.monotonic() - killed["at"] < 15
    assert len(killed["ranks"]) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in killed["ranks"].values())

    # weights shared out from here on, until this process is told to end; whoever hears first, all leave
    def told(step: int) -> None:
        if step == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SignalledError, match=r"stopped by SIGTERM: step \d+ of 14 is saved") as left:
        on_ranks(two.model_copy(update={"zero": 3}), store, folder, told)
    assert left.value.exit_code == 143

    events: list[Event] = []
    model = fresh(plan)
    trained = train(plan, model, store, folder, emit=events.append, spent=Spent)
    resumed = events[0]
    assert isinstance(resumed, Resumed) and resumed.step >= 8
    assert trained.steps == 14
    assert alike(model, whole)


def test_the_best_weights_come_back_and_the_ranks_use_is_told(
    make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    plan = make_plan(size=50, micro=9, steps=6, evaluate_every=3)
    whole = fresh(plan)
    expected = train(plan, whole, store, tmp_path / "whole", emit=lambda event: None, spent=Spent)
    model, events, uses = on_ranks(plan.model_copy(update={"devices": 2}), store, tmp_path / "run")
    assert alike(model, whole)
    assert sum(isinstance(event, StepDone) for event in events) == expected.steps
    assert [use.peak_rss_bytes > LEAST_BYTES for use in uses] == [True, True]
    # they are this process's own once the ranks have ended
    assert [use.cpu_s for use in uses] == [0, 0]


def test_an_error_of_the_loop_is_that_of_one_device(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    plan = make_plan(steps=3, checkpoint_seconds=0.0)
    (tmp_path / "run").write_text("a file, where checkpoints were to lie")
    messages = []
    for devices in (1, 2):
        with pytest.raises(ThriftyError) as failed:
            chosen = plan.model_copy(update={"devices": devices})
            if devices == 1:
                train(chosen, fresh(plan), store, tmp_path / "run", emit=lambda event: None, spent=Spent)
            else:
                on_ranks(chosen, store, tmp_path / "run")
        messages.append((type(failed.value), str(failed.value), failed.value.exit_code))
    assert messages[0] == messages[1]
