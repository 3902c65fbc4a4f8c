"""A run that is asked to wait, to go on, to stop or to spend less while it trains."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from short_runs import same

from thrifty.data import Store
from thrifty.errors import SignalledError
from thrifty.models import build
from thrifty.models.init import initialise
from thrifty.spec import Plan, Spent
from thrifty.spec.events import Checkpointed, Event, Lowered, Paused, StepDone, Stopped, WentOn
from thrifty.spec.steering import Steering
from thrifty.train import steering, train
from thrifty.train.launch import train_on_ranks

pytestmark = pytest.mark.slow

PlanFactory = Callable[..., Plan]


@pytest.fixture(autouse=True)
def looks_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steering, "LOOK_SECONDS", 0.0)


class Desk:
    """What is asked of a run, which changes at events."""

    def __init__(self, asks: dict[int, Steering]) -> None:
        self.asks, self.now, self.events = asks, Steering(), list[Event]()

    def steer(self) -> Steering:
        return self.now

    def emit(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, StepDone):
            self.now = self.asks.get(event.step, self.now)
        if isinstance(event, Paused):
            # somebody else says so, in a while
            threading.Timer(0.05, self._let_go).start()

    def _let_go(self) -> None:
        self.now = self.now.model_copy(update={"ask": "go"})

    def kinds(self, *kinds: type) -> list[Event]:
        return [event for event in self.events if isinstance(event, kinds)]


def go(plan: Plan, store: Store, folder: Path, desk: Desk, spent: Callable[[], Spent] = Spent) -> tuple[Any, Any]:
    model = build(plan.model)
    initialise(model, plan.init, plan.seed)
    return model, train(plan, model, store, folder, emit=desk.emit, spent=spent, steer=desk.steer)


def test_a_pause_saves_waits_and_changes_nothing(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    plan = make_plan(steps=12, checkpoint_seconds=1e9)
    undisturbed, _ = go(plan, store, tmp_path / "one", Desk({}))
    desk = Desk({4: Steering(ask="pause"), 9: Steering(ask="pause")})
    model, trained = go(plan, store, tmp_path / "other", desk)
    assert same(model, undisturbed), "to the bit"
    told = desk.kinds(Paused, WentOn, Checkpointed)
    assert [(type(each).__name__, each.step) for each in told][:6] == [  # type: ignore[union-attr]
        ("Checkpointed", 4), ("Paused", 4), ("WentOn", 4), ("Checkpointed", 9), ("Paused", 9), ("WentOn", 9),
    ]  # fmt: skip
    assert all(each.seconds >= 0.04 for each in desk.events if isinstance(each, WentOn))
    assert trained.steps == 12


def test_a_stop_keeps_the_best_and_ends_as_a_budget_does(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    plan = make_plan(steps=400, evaluate_every=5)
    desk = Desk({13: Steering(ask="stop")})
    model, trained = go(plan, store, tmp_path, desk)
    assert (trained.steps, trained.reason) == (13, "stopped as asked, at step 13 of 400")
    assert trained.best_step in (5, 10, 13) and trained.metrics["accuracy"] > 0.1
    assert desk.kinds(Stopped) == [Stopped(13, "stopped as asked, at step 13 of 400")]
    assert all(torch.isfinite(each).all() for each in model.state_dict().values() if each.is_floating_point())


def test_a_stop_before_the_first_step_is_heard_after_it(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    desk = Desk({})
    desk.now = Steering(ask="stop")
    _, trained = go(make_plan(steps=9), store, tmp_path, desk)
    assert trained.steps == 1


def test_a_lower_budget_ends_it_and_is_told_once(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    began = time.perf_counter()

    def spent() -> Spent:
        return Spent(wall_s=100.0 * (time.perf_counter() - began))

    lower = Steering.model_validate({"time": "30s", "money": "5USD"})
    desk = Desk({3: lower, 5: lower.model_copy()})
    _, trained = go(make_plan(steps=100_000, seconds=1e6), store, tmp_path, desk, spent)
    assert trained.reason.startswith("time budget: ") and "of 30.0 s for training spent" in trained.reason
    assert desk.kinds(Lowered) == [Lowered(3, "30.0 s, $5.00")]


def test_a_budget_that_is_not_lower_changes_nothing(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    desk = Desk({2: Steering.model_validate({"time": "2h"})})
    _, trained = go(make_plan(steps=8, seconds=3600.0), store, tmp_path, desk)
    assert trained.reason == "all 8 steps done" and desk.kinds(Lowered) == []


def test_a_signal_ends_a_run_that_waits(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    import os
    import signal

    desk = Desk({4: Steering(ask="pause")})
    desk._let_go = lambda: os.kill(os.getpid(), signal.SIGTERM)  # type: ignore[method-assign]
    with pytest.raises(SignalledError, match="step 4 of 20 is saved"):
        go(make_plan(steps=20), store, tmp_path, desk)
    assert [type(each) for each in desk.events if isinstance(each, Paused | WentOn)] == [Paused, WentOn]
    later = Desk({})
    _, trained = go(make_plan(steps=20), store, tmp_path, later)
    assert trained.steps == 20 and later.kinds(StepDone)[0].step == 5  # type: ignore[union-attr]


@pytest.mark.timeout(600)
def test_several_ranks_wait_and_stop_together(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    plan = make_plan(steps=200_000, evaluate_every=100_000, checkpoint_seconds=1e9)
    plan = plan.model_copy(update={"devices": 2})
    desk = Desk({20: Steering(ask="pause")})

    def emit(event: Event) -> None:
        desk.emit(event)
        if isinstance(event, WentOn):
            desk.now = Steering(ask="stop")

    model = build(plan.model)
    initialise(model, plan.init, plan.seed)
    trained = train_on_ranks(plan, model, store, tmp_path, emit=emit, spent=Spent, steer=desk.steer)
    (paused,) = desk.kinds(Paused)
    assert isinstance(paused, Paused) and 20 <= paused.step < trained.steps < 200_000
    assert trained.reason.startswith("stopped as asked, at step ")
    saved = [event.step for event in desk.events if isinstance(event, Checkpointed)]
    assert saved[0] == paused.step
