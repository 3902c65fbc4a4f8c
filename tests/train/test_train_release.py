"""Gradient release in the loop: the same run, to the bit; what goes wrong in it is met, or ends the run and says so."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from thrifty.data import Batches, Store
from thrifty.errors import BudgetError, DivergedError
from thrifty.models import build
from thrifty.models.init import initialise
from thrifty.models.inputs import to_tensors
from thrifty.spec import GuardPlan, Plan, Spent
from thrifty.spec.events import Evaluated, Event, Narrowed, RateLowered, Resumed, RolledBack, Skipped, StepDone
from thrifty.train import probe_steps, train
from thrifty.train.checkpoint import State
from thrifty.train.guard import Guard

PlanFactory = Callable[..., Plan]
CHILD = Path(__file__).parent / "room_run.py"


class Killed(Exception):  # noqa: N818 - a signal, not an error
    """Stands for the end of the process at a given event."""


class Spoilt(torch.autograd.Function):
    """Numbers as they are, whose gradient is none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * math.nan


class Poisoned(nn.Module):
    """A model of which some batches spoil the gradient, or the loss too."""

    def __init__(self, inner: nn.Module, bad: list[Tensor], loss: bool) -> None:
        super().__init__()
        self.inner, self.bad, self.loss = inner, bad, loss
        self.running = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        self.running(x)
        out: Tensor = self.inner(x)
        if not (self.training and any(torch.equal(x, each) for each in self.bad)):
            return out
        return out * math.nan if self.loss else Spoilt.apply(out)


class Starved(nn.Module):
    """A model for which memory runs out in the backward pass, after a few steps."""

    def __init__(self, inner: nn.Module, steps: int) -> None:
        super().__init__()
        self.inner, self.left = inner, steps
        next(inner.parameters()).register_hook(self._backward)

    def _backward(self, _: Tensor) -> None:
        self.left -= 1
        if self.left < 0:
            raise torch.OutOfMemoryError("no memory for a gradient")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out


def fresh(plan: Plan) -> nn.Module:
    model = build(plan.model)
    initialise(model, plan.init, plan.seed)
    return model


def go(
    plan: Plan, store: Store, folder: Path, *, die_at: int = 0, model: nn.Module | None = None
) -> tuple[nn.Module, list[Event]]:
    events: list[Event] = []

    def emit(event: Event) -> None:
        events.append(event)
        if die_at and isinstance(event, StepDone) and event.step == die_at:
            raise Killed

    model = model or fresh(plan)
    train(plan, model, store, folder, emit=emit, spent=Spent)
    return model, events


def poisoned(plan: Plan, store: Store, bad: range, *, loss: bool) -> Poisoned:
    """Spoil the batches of some steps, counted from 1."""
    batches = Batches(store, batch=plan.batch.size, micro=plan.batch.micro, seed=plan.seed)
    return Poisoned(fresh(plan), [to_tensors(batches.step(number - 1)[0])["x"] for number in bad], loss)


def same(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def norms(events: list[Event]) -> list[float]:
    return [each.gradient_norm for each in events if isinstance(each, StepDone)]


def told(events: list[Event]) -> list[tuple[float, ...] | dict[str, float]]:
    return [
        (each.step, each.loss, each.learning_rate) if isinstance(each, StepDone) else each.metrics
        for each in events
        if isinstance(each, StepDone | Evaluated)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "optimizer", "precision"),
    [
        ("mlp-small", "adamw", "fp32"),
        pytest.param("resnet8", "momentum", "fp32", marks=pytest.mark.slow),
        pytest.param("resnet8", "muon", "bf16", marks=pytest.mark.slow),
        pytest.param("mlp-small", "schedule_free", "fp32", marks=pytest.mark.slow),
        pytest.param("mlp-small", "adamw", "bf16_compensated", marks=pytest.mark.slow),
    ],
)
def test_a_run_is_the_same_and_goes_on_with_or_without(
    model: str, optimizer: str, precision: str, make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    kept = make_plan(model, steps=8, evaluate_every=4, optimizer=optimizer, precision=precision)
    released = kept.model_copy(update={"gradient_release": True})
    plain, expected = go(kept, store, tmp_path / "plain")
    whole, events = go(released, store, tmp_path / "whole")
    assert same(plain, whole) and told(events) == told(expected)
    assert norms(events) == pytest.approx(norms(expected), rel=1e-5)
    for first, then in ((kept, released), (released, kept), (released, released)):
        folder = tmp_path / f"{first.gradient_release}-{then.gradient_release}"
        with pytest.raises(Killed):
            go(first, store, folder, die_at=6)
        resumed, later = go(then, store, folder)
        assert [each.step for each in later if isinstance(each, Resumed)] == [5]
        assert same(plain, resumed)


def test_a_step_is_left_out_for_its_loss_and_its_weights_go_back_for_its_gradient(
    make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    """Of a bad loss nothing is left, as without; of a bad gradient what the last checkpoint had."""
    plan = make_plan(steps=10, evaluate_every=10, schedule="fixed", warmup_steps=0, gradient_release=True)
    bad = range(7, 8)
    model, events = go(plan, store, tmp_path / "loss", model=poisoned(plan, store, bad, loss=True))
    (skipped,) = [each for each in events if isinstance(each, Skipped | RateLowered | RolledBack)]
    assert isinstance(skipped, Skipped) and (skipped.step, skipped.gradient_norm) == (7, 0.0)
    kept = plan.model_copy(update={"gradient_release": False})
    assert same(model, go(kept, store, tmp_path / "kept", model=poisoned(plan, store, bad, loss=True))[0])

    model, events = go(plan, store, tmp_path / "gradient", model=poisoned(plan, store, bad, loss=False))
    (back,) = [each for each in events if isinstance(each, Skipped | RateLowered | RolledBack)]
    assert isinstance(back, RolledBack) and (back.step, back.to, back.factor) == (7, 6, 0.5)
    steps = {each.step: each for each in events if isinstance(each, StepDone)}
    assert math.isfinite(steps[7].loss) and math.isnan(steps[7].gradient_norm)
    assert steps[8].learning_rate == 0.5 * steps[6].learning_rate
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_without_a_checkpoint_to_go_back_to_a_bad_gradient_ends_the_run(
    make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    plan = make_plan(steps=10, evaluate_every=10, checkpoint_seconds=math.inf, gradient_release=True)
    with pytest.raises(DivergedError, match="the gradient's norm of step 3 is nan, with no good checkpoint"):
        go(plan, store, tmp_path, model=poisoned(plan, store, range(3, 4), loss=False))


def test_what_is_spoilt_goes_back_each_time_and_then_ends() -> None:
    guard = Guard(GuardPlan(rollbacks=2), nn.Linear(1, 1), {}, releases=True)
    events: list[Any] = []
    for step in (5, 9, 12):
        guard.begin()
        assert guard.sound(1.0, 0.0) and not guard.sound(1.0, math.inf) and not guard.calm
        guard.ended(step, 1.0, math.inf, 1.0, lambda before: State(step=before - 1), events.append)
    assert [(type(each), each.step, each.to) for each in events] == [(RolledBack, 5, 4), (RolledBack, 9, 8)]
    assert guard.gave_up == "the gradient's norm of step 12 is inf, after 2 roll-backs"


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 3])
def test_a_step_that_finds_no_memory_cannot_be_cut(
    steps: int, make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    plan = make_plan(steps=6, evaluate_every=6, gradient_release=True)
    with pytest.raises(BudgetError, match=rf"training at step {steps + 1} does not fit .* 64 samples at once.*part"):
        go(plan, store, tmp_path, model=Starved(fresh(plan), steps))
    if steps:
        resumed, events = go(plan, store, tmp_path, model=Starved(fresh(plan), 100))
        assert [each.step for each in events if isinstance(each, Resumed)] == [steps]
        assert same(resumed, go(plan, store, tmp_path / "whole", model=Starved(fresh(plan), 100))[0])


def test_a_probe_takes_steps_as_the_run_will(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    probed = probe_steps(make_plan(gradient_release=True), store, tmp_path, seconds=0.1)
    assert all(each > 0 for each in probed.step_s)


@pytest.mark.slow
@pytest.mark.parametrize(("above", "fits"), [(600, True), (150, False)])
def test_a_limit_is_kept_or_the_run_ends_below_it(
    above: int, fits: bool, make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    """32 samples at once are 400 MiB: where there is no room for them, there is none for fewer either."""
    plan = make_plan(steps=3, size=32, micro=32, evaluate_every=3, gradient_release=True)
    (tmp_path / "plan.json").write_text(plan.model_dump_json())
    arguments = [tmp_path / "plan.json", store.folder, tmp_path / "run", tmp_path / "out", "each=65536"]
    command = [sys.executable, "-W", "ignore", str(CHILD), *map(str, arguments), f"above={above}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    said = done.stdout.splitlines()
    assert (done.returncode == 0) == fits, done.stderr
    assert fits or ("training at step 1 does not fit" in done.stderr and "cannot be of a part of it" in done.stderr)
    assert not any(line.startswith(Narrowed.__name__) and "training" in line for line in said)
    _, peak, _, limit = next(line for line in said if line.startswith("peak")).split()
    assert float(peak) <= float(limit)
