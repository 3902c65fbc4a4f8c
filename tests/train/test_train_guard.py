"""The guard: changes nothing of a sound run; skips, lowers, goes back and gives up where a run is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thrifty import optim
from thrifty.data import Batches, Store
from thrifty.errors import DivergedError
from thrifty.models import build
from thrifty.models.init import initialise
from thrifty.models.inputs import to_tensors
from thrifty.spec import GuardPlan, Plan, Spent
from thrifty.spec.events import Event, RateLowered, Resumed, RolledBack, Skipped, StepDone
from thrifty.train import Trained, take_step, train
from thrifty.train.checkpoint import State
from thrifty.train.guard import LEAST_LOSSES, Guard

PlanFactory = Callable[..., Plan]
SETTINGS: dict[str, Any] = {"optimizer": "momentum", "schedule": "fixed", "learning_rate": 0.01, "warmup_steps": 0}


class Killed(Exception):  # noqa: N818 - a signal, not an error
    """Stands for the end of the process at a given event."""


class Poisoned(nn.Module):
    """A model that answers some batches, known by their content, with a multiple of what it should."""

    def __init__(self, inner: nn.Module, bad: list[torch.Tensor], factor: float) -> None:
        super().__init__()
        self.inner, self.bad, self.factor = inner, bad, factor
        self.running = nn.BatchNorm2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wrong = self.training and any(torch.equal(x, each) for each in self.bad)
        self.running(x * self.factor if wrong else x)
        out = self.inner(x)
        return out * self.factor if wrong else out


def go(
    plan: Plan, store: Store, folder: Path, bad: range | list[int], factor: float = math.nan, *, die_at: int = 0
) -> tuple[nn.Module, Trained, list[Event]]:
    """Train where the batches of some steps, counted from 1, are poisoned."""
    batches = Batches(store, batch=plan.batch.size, micro=plan.batch.micro, seed=plan.seed)
    poison = [to_tensors(batches.step(number - 1)[0])["x"] for number in bad]
    inner = build(plan.model)
    initialise(inner, plan.init, plan.seed)
    model = Poisoned(inner, poison, factor)
    events: list[Event] = []

    def emit(event: Event) -> None:
        events.append(event)
        if die_at and isinstance(event, StepDone) and event.step == die_at:
            raise Killed

    return model, train(plan, model, store, folder, emit=emit, spent=Spent), events


def troubles(events: list[Event]) -> list[tuple[str, int]]:
    return [(type(e).__name__, e.step) for e in events if isinstance(e, Skipped | RateLowered | RolledBack)]


def same(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def watch(guard: Guard, losses: list[float]) -> list[bool]:
    return [guard.sound(loss, 1.0) for loss in losses]


@pytest.mark.parametrize(
    ("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (-math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)]
)
def test_what_is_no_number_is_never_sound(loss: float, norm: float) -> None:
    assert not Guard(GuardPlan(), nn.Linear(1, 1), {}).sound(loss, norm)


@given(st.lists(st.floats(0.0, 3.0), max_size=300))
def test_losses_within_half_of_the_untrained_are_always_sound(noise: list[float]) -> None:
    """A loss that falls from 10 with noise of any shape within half of that."""
    guard = Guard(GuardPlan(), nn.Linear(1, 1), {})
    falling = [10.0] * LEAST_LOSSES + [10 * math.exp(-number / 100) + each for number, each in enumerate(noise)]
    assert all(watch(guard, falling))


@given(st.lists(st.floats(0.01, 10.0), min_size=LEAST_LOSSES, max_size=200), st.integers(LEAST_LOSSES, 64))
def test_a_restored_guard_says_the_same(losses: list[float], window: int) -> None:
    plan = GuardPlan(window=window)
    one = Guard(plan, nn.Linear(1, 1), {})
    watch(one, losses)
    other = Guard(plan, nn.Linear(1, 1), one.state())
    assert other.bound() == one.bound()
    more = [0.5, 20.0, 3.0, 1e9]
    assert watch(one, more) == watch(other, more)
    assert one.state() == other.state()


ROWS = [
    ("a leap above the untrained", [2.3] * 20, 9.0, False),
    ("a leap from far below it", [2.3] * 20 + [0.5] * 150, 2.5, False),
    ("a hard batch late in training", [2.3] * 20 + [0.01] * 150, 0.9, True),
    ("a loss that was always noisy", [2.0, 12.0] * 60, 14.0, True),
    ("before there is enough to tell by", [2.3] * (LEAST_LOSSES - 1), 1e9, True),
]


@pytest.mark.parametrize(("losses", "last", "sound"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_what_leaps_up(losses: list[float], last: float, sound: bool) -> None:
    guard = Guard(GuardPlan(), nn.Linear(1, 1), {})
    watch(guard, losses)
    assert guard.sound(last, 1.0) == sound


def test_the_ladder_rung_by_rung() -> None:
    """Every step is bad: skipped; at the third the rate falls; at the sixth it goes back, twice; then it gives up."""
    plan = GuardPlan(skips=3, rollbacks=2, lowered_steps=10)
    guard = Guard(plan, nn.Linear(1, 1), {})
    events: list[Event] = []
    asked: list[int] = []

    def roll_back(before: int) -> State:
        asked.append(before)
        return State(step=before - 1, guard=Guard(plan, nn.Linear(1, 1), {}).state())

    step = 0
    for number in range(1, 5):
        guard.sound(1.0, 1.0)
        guard.ended(number, 1.0, 1.0, 1.0, roll_back, events.append)
    step = 4
    while not guard.gave_up:
        step += 1
        assert step < 100
        guard.sound(math.nan, 1.0)
        guard.ended(step, math.nan, 1.0, 1.0, roll_back, events.append)
        if step == 8:
            assert (guard.rate(1.0, 8), guard.rate(1.0, 16), guard.rate(1.0, 17)) == (0.5, 0.5, 1.0)
    assert asked == [4, 10], "the loss of step 5 judges the weights of step 4: those of step 3 are known to be good"
    assert troubles(events) == [
        ("Skipped", 5), ("Skipped", 6), ("Skipped", 7), ("RateLowered", 7),
        ("Skipped", 8), ("Skipped", 9), ("Skipped", 10), ("RolledBack", 10),
        ("Skipped", 11), ("Skipped", 12), ("Skipped", 13), ("RateLowered", 13),
        ("Skipped", 14), ("Skipped", 15), ("Skipped", 16), ("RolledBack", 16),
        ("Skipped", 17), ("Skipped", 18), ("Skipped", 19), ("RateLowered", 19),
        ("Skipped", 20), ("Skipped", 21), ("Skipped", 22),
    ]  # fmt: skip
    assert guard.rate(1.0, 1000) == 0.25
    assert guard.gave_up == "the loss of step 22 is nan, after 2 roll-backs"
    assert guard.watch.wasted_seconds == guard.watch.trained_seconds == 22.0


@pytest.mark.slow
def test_a_sound_run_is_what_it_would_be_without_a_guard(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    plan = make_plan("resnet8", steps=8, micro=32)
    model = build(plan.model)
    initialise(model, plan.init, plan.seed)
    torch.set_num_threads(plan.threads)
    optimizer, schedule = optim.build(model.train(), plan.optim), optim.Schedule(plan.optim)
    batches = Batches(store, batch=plan.batch.size, micro=plan.batch.micro, seed=plan.seed)
    plain = [take_step(plan, model, optimizer, batches.step(n), schedule.rate(n)) for n in range(plan.stop.steps)]
    guarded = build(plan.model)
    initialise(guarded, plan.init, plan.seed)
    events: list[Event] = []
    trained = train(plan, guarded, store, tmp_path, emit=events.append, spent=Spent)
    assert [(e.loss, e.gradient_norm) for e in events if isinstance(e, StepDone)] == plain
    assert trained.wasted_seconds == 0
    if trained.best_step == plan.stop.steps:
        assert same(model, guarded)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [math.nan, 1e30, -100.0])
def test_a_bad_batch_leaves_no_trace(factor: float, make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    """Weights, optimizer and statistics after the skipped step are those before it, to the bit."""
    plan = make_plan(steps=22, evaluate_every=22, **SETTINGS)
    _, _, events = go(plan, store, tmp_path / "bad", [20], factor)
    assert troubles(events) == [("Skipped", 20)]
    with pytest.raises(Killed):
        go(plan, store, tmp_path / "before", [20], factor, die_at=20)
    with pytest.raises(Killed):
        go(plan, store, tmp_path / "after", [20], factor, die_at=22)
    # step 19 was saved before the bad one; after it, step 21 was
    before, after = (
        torch.load(tmp_path / name, weights_only=True) for name in ("before/step-19.pt", "after/step-21.pt")
    )
    clean = Batches(store, batch=plan.batch.size, micro=plan.batch.micro, seed=plan.seed)
    model = Poisoned(build(plan.model), [], factor).train()
    optimizer = optim.build(model, plan.optim)
    model.load_state_dict(before["model"])
    optimizer.load_state_dict(before["optimizer"])
    take_step(plan, model, optimizer, clean.step(20), plan.optim.learning_rate)
    assert all(torch.equal(value, after["model"][name]) for name, value in model.state_dict().items())
    assert after["state"]["step"] == 21 and after["state"]["guard"]["sound"]


def test_a_bad_stretch_goes_up_the_ladder_and_training_goes_on(
    make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    # a window of steps takes about five an epoch: poison that comes back is another matter
    plan = make_plan(steps=24, evaluate_every=8, size=16, micro=16, **SETTINGS)
    model, trained, events = go(plan, store, tmp_path, range(10, 16))
    assert [name for name, _ in troubles(events)] == ["Skipped"] * 3 + ["RateLowered"] + ["Skipped"] * 3 + [
        "RolledBack"
    ]
    (back,) = [event for event in events if isinstance(event, RolledBack)]
    assert (back.step, back.to, back.factor) == (15, 8, 0.5)
    rates = {event.step: event.learning_rate for event in events if isinstance(event, StepDone)}
    assert (rates[9], rates[12], rates[13], rates[16], rates[24]) == (0.01, 0.01, 0.005, 0.005, 0.005)
    taken = {event.step: event.seconds for event in events if isinstance(event, StepDone)}
    assert trained.wasted_seconds == pytest.approx(sum(taken[number] for number in range(9, 16)))
    assert trained.steps == 24
    assert trained.metrics["accuracy"] > 0.1
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


@pytest.mark.slow
def test_it_goes_on_from_the_same_weights_where_states_lie_elsewhere(
    make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    plan = make_plan(steps=24, evaluate_every=8, size=16, micro=16, **SETTINGS)
    here, _, events = go(plan, store, tmp_path / "here", range(10, 16))
    there, _, others = go(plan.model_copy(update={"offload": True}), store, tmp_path / "there", range(10, 16))
    assert ("RolledBack", 15) in troubles(events) and troubles(events) == troubles(others)
    assert same(here, there)


@pytest.mark.slow
def test_a_run_that_cannot_be_saved_keeps_its_best(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    plan = make_plan(steps=60, evaluate_every=4, size=16, micro=16, **SETTINGS)
    model, trained, events = go(plan, store, tmp_path, range(10, 61))
    assert trained.reason == "the loss of step 27 is nan, after 2 roll-backs"
    assert trained.steps == 27 and trained.best_step in {4, 8} and trained.gave_up
    assert [name for name, _ in troubles(events)].count("RolledBack") == 2
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_without_a_best_it_says_what_to_lower(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    plan = make_plan(steps=30, evaluate_every=30, checkpoint_seconds=math.inf, size=16, micro=16, **SETTINGS)
    with pytest.raises(DivergedError, match=r"the loss of step 10 is nan, with no good checkpoint.*Lower train"):
        go(plan, store, tmp_path, range(5, 31))


@pytest.mark.slow
@pytest.mark.parametrize("die_at", [11, 13, 16, 20])
def test_a_resumed_run_climbs_the_same_ladder(
    die_at: int, make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    plan = make_plan(steps=24, evaluate_every=8, size=16, micro=16, **SETTINGS)
    whole, trained, events = go(plan, store, tmp_path / "whole", range(10, 16))
    with pytest.raises(Killed):
        go(plan, store, tmp_path / "died", range(10, 16), die_at=die_at)
    resumed, after, later = go(plan, store, tmp_path / "died", range(10, 16))
    assert same(whole, resumed)
    assert (after.steps, after.metrics, after.best_step) == (trained.steps, trained.metrics, trained.best_step)
    assert not trained.gave_up
    (start,) = [event.step for event in later if isinstance(event, Resumed)]
    assert troubles(later) == [each for each in troubles(events) if each[1] > start]


def test_a_leap_that_lasts_is_learned_through_where_there_is_nothing_to_go_back_to() -> None:
    plan = GuardPlan(skips=3, lowered_steps=10)
    guard = Guard(plan, nn.Linear(1, 1), {})
    events: list[Event] = []
    said = []
    for step in range(1, LEAST_LOSSES + 20):
        loss = 0.7 if step <= LEAST_LOSSES else 1.5
        said.append(guard.sound(loss, 1.0))
        guard.ended(step, loss, 1.0, 1.0, lambda before: None, events.append)
    assert said == [True] * LEAST_LOSSES + [False] * 6 + [True] * 13
    assert not guard.gave_up
    assert guard.rate(1.0, LEAST_LOSSES + 10) == plan.factor
