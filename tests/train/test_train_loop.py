"""The loop: learns, stops for each reason, goes on exactly, and stays shallow."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from thrifty.data import Batch, Batches, Store, sweep
from thrifty.errors import BudgetError, BundleError, DivergedError
from thrifty.hardware.pages import keeping
from thrifty.models import build
from thrifty.models.init import initialise
from thrifty.models.losses import LOSS_SUMS
from thrifty.models.resnet import BasicBlock
from thrifty.optim import OPTIMIZERS, SCHEDULES
from thrifty.spec import Augment, Plan, Spent
from thrifty.spec.events import (
    CheckpointDamaged,
    Checkpointed,
    Evaluated,
    Event,
    Resumed,
    StepDone,
    Stopped,
    Warned,
)
from thrifty.train import Trained, probe_steps, train

PlanFactory = Callable[..., Plan]


class Killed(Exception):  # noqa: N818 - a signal, not an error
    """Stands for the end of the process at a given event."""


def fresh(plan: Plan) -> nn.Module:
    model = build(plan.model)
    initialise(model, plan.init, plan.seed)
    return model


def go(
    plan: Plan,
    store: Store,
    folder: Path,
    *,
    die_at: int = 0,
    spent: Callable[[], Spent] = Spent,
) -> tuple[nn.Module, Trained, list[Event]]:
    events: list[Event] = []

    def emit(event: Event) -> None:
        events.append(event)
        if die_at and isinstance(event, StepDone) and event.step == die_at:
            raise Killed

    model = fresh(plan)
    trained = train(plan, model, store, folder, emit=emit, spent=spent)
    return model, trained, events


def same(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_it_learns(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    _, trained, events = go(make_plan(steps=60, evaluate_every=10), store, tmp_path)
    losses = [event.loss for event in events if isinstance(event, StepDone)]
    assert len(losses) == trained.steps == 60
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert trained.metrics["accuracy"] > 0.6
    assert isinstance(events[-1], Stopped)
    assert trained.reason == "all 60 steps done"
    assert 0 < trained.loading_share < 1


def test_a_loss_that_is_handed_in_is_learned_by(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    def next_digit(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return LOSS_SUMS["classify"](model, {**batch, "y": (batch["y"] + 1) % 10})

    plan = make_plan(steps=40, evaluate_every=40)
    model = fresh(plan)
    trained = train(plan, model, store, tmp_path, emit=lambda event: None, spent=Spent, loss=next_digit)
    assert trained.metrics["accuracy"] < 0.1
    (batch,) = sweep(store, "validation", 1000)
    told = model.eval()(torch.from_numpy(batch["x"].astype(np.float32))).argmax(1).numpy()
    assert (told == (batch["y"] + 1) % 10).mean() > 0.4


def test_batches_that_are_slow_to_make_are_told(
    make_plan: PlanFactory, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = Batches.step

    def slow(self: Batches, index: int) -> list[Batch]:
        time.sleep(0.1)
        return usual(self, index)

    monkeypatch.setattr(Batches, "step", slow)
    _, trained, _ = go(make_plan(steps=4, evaluate_every=4), store, tmp_path)
    assert trained.loading_share > 0.5


def test_what_is_learned_does_not_depend_on_when_batches_are_made(
    make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    plan = make_plan(steps=12, evaluate_every=4, micro=32)
    beside = plan.model_copy(update={"loading": "beside", "augment": Augment(crop=1, mixup=0.2)})
    between = beside.model_copy(update={"loading": "between"})
    whole, trained, events = go(between, store, tmp_path / "whole")
    with pytest.raises(Killed):
        go(beside, store, tmp_path / "killed", die_at=7)
    assert not [each for each in threading.enumerate() if each.name.startswith("thrifty-batches")]
    resumed, again, later = go(beside, store, tmp_path / "killed")
    assert same(whole, resumed) and trained == again
    assert [each.loss for each in events if isinstance(each, StepDone)][6:] == [
        each.loss for each in later if isinstance(each, StepDone)
    ]


def test_an_error_of_a_batch_made_beside_the_steps_ends_the_run_with_its_trace(
    make_plan: PlanFactory, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = Batches.step

    def broken(self: Batches, index: int) -> list[Batch]:
        if index == 3:
            raise OSError("the disk is gone")
        return usual(self, index)

    monkeypatch.setattr(Batches, "step", broken)
    plan = make_plan(steps=6).model_copy(update={"loading": "beside"})
    steps: list[int] = []

    def emit(event: Event) -> None:
        if isinstance(event, StepDone):
            steps.append(event.step)

    with pytest.raises(OSError, match="the disk is gone") as caught:
        train(plan, fresh(plan), store, tmp_path, emit=emit, spent=Spent)
    assert steps == [1, 2, 3], "steps whose batches were whole are taken"
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "broken"
    assert not [each for each in threading.enumerate() if each.name.startswith("thrifty-batches")]


# each its own way through the loop; the rest are slow rows, whose states are tested in tests/optim
QUICK = {
    ("adamw", "cosine"),
    ("schedule_free", "cosine"),
    ("momentum", "plateau"),
}
ROWS = [
    pytest.param(*row, marks=[] if row in QUICK else pytest.mark.slow)
    for row in [
        *((optimizer, "cosine") for optimizer in OPTIMIZERS),
        *(("momentum", schedule) for schedule in SCHEDULES),
    ]
]


@pytest.mark.parametrize(("optimizer", "schedule"), ROWS)
def test_a_run_that_died_ends_with_the_same_weights(
    optimizer: str, schedule: str, make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    plan = make_plan(optimizer=optimizer, schedule=schedule, steps=13, evaluate_every=3, learning_rate=0.01)
    whole, trained, _ = go(plan, store, tmp_path / "whole")
    for died in (4, 9):
        with pytest.raises(Killed):
            go(plan, store, tmp_path / "died", die_at=died)
    resumed, after, events = go(plan, store, tmp_path / "died")
    assert isinstance(events[0], Resumed)
    assert same(whole, resumed)
    assert after == trained


@pytest.mark.slow
def test_batch_norm_and_bf16_resume_exactly_too(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    plan = make_plan("resnet8", steps=6, evaluate_every=2, precision="bf16", micro=16)
    whole, *_ = go(plan, store, tmp_path / "whole")
    with pytest.raises(Killed):
        go(plan, store, tmp_path / "died", die_at=3)
    resumed, *_ = go(plan, store, tmp_path / "died")
    assert same(whole, resumed)


@pytest.mark.parametrize("how", ["selective", "full"])
@pytest.mark.slow
def test_checkpointing_learns_the_same_and_goes_on_from_a_run_without(
    how: str, make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"steps": 6, "evaluate_every": 2, "micro": 16, "learning_rate": 0.01}
    whole, trained, _ = go(make_plan("resnet14", **settings), store, tmp_path / "whole")
    for folder, first in (("same", how), ("other", "none")):
        with pytest.raises(Killed):
            go(make_plan("resnet14", checkpointing=first, **settings), store, tmp_path / folder, die_at=3)
        resumed, after, events = go(make_plan("resnet14", checkpointing=how, **settings), store, tmp_path / folder)
        assert isinstance(events[0], Resumed)
        assert same(whole, resumed)
        assert after == trained
        assert {type(module.forward) for module in resumed.modules()} == {type(resumed.forward)}


def test_checkpointing_calls_blocks_twice_and_a_probe_does_too(
    make_plan: PlanFactory, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    forward = BasicBlock.forward

    def counted(block: BasicBlock, x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += torch.is_grad_enabled()
        return forward(block, x)

    monkeypatch.setattr(BasicBlock, "forward", counted)
    blocks = 6
    for how, passes in (("none", 1), ("full", 2)):
        calls = 0
        go(make_plan("resnet14", checkpointing=how, steps=1), store, tmp_path / how)
        assert calls == passes * blocks
        calls = 0
        assert len(probe_steps(make_plan("resnet14", checkpointing=how), store, tmp_path, seconds=0).step_s) == 1
        assert calls == passes * blocks


def test_a_probe_keeps_its_pages_before_it_builds_and_training_keeps_them_too(
    make_plan: PlanFactory, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def built(*arguments: Any) -> nn.Module:
        done.append("build")
        return build(*arguments)

    monkeypatch.setattr("thrifty.train.probe.keep_pages", lambda what: done.append(f"keep {what}"))
    monkeypatch.setattr("thrifty.train.probe.build", built)
    probe_steps(make_plan(), store, tmp_path, seconds=0)
    assert done == [f"keep {keeping('cpu', 'none')}", "build"]
    monkeypatch.setattr("thrifty.train.loop.keep_pages", lambda what: done.append(f"keep {what}"))
    go(make_plan("resnet14", steps=1, checkpointing="full"), store, tmp_path / "train")
    assert done[2:] == [f"keep {keeping('cpu', 'full')}"]


@pytest.mark.parametrize("micro", [1, 7, 32])
def test_the_micro_batch_changes_nothing_that_is_learned(
    micro: int, make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    def weights(plan: Plan, folder: Path) -> torch.Tensor:
        model, *_ = go(plan, store, folder)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    settings: dict[str, Any] = {"optimizer": "momentum", "learning_rate": 0.05, "steps": 4, "evaluate_every": 4}
    at_once = weights(make_plan(micro=64, **settings), tmp_path / "one")
    in_parts = weights(make_plan(micro=micro, **settings), tmp_path / "parts")
    assert torch.allclose(at_once, in_parts, rtol=1e-4, atol=1e-6)


def test_full_batch_takes_one_step_an_epoch(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    samples = store.dataset.counts["train"]
    plan = make_plan(size=samples, micro=50, steps=3, evaluate_every=1, optimizer="gd", schedule="fixed")
    _, _, events = go(plan, store, tmp_path)
    assert [event.epoch for event in events if isinstance(event, StepDone)] == [1.0, 2.0, 3.0]
    assert Batches(store, split="train", batch=samples, micro=50, seed=0).steps_per_epoch == 1


STOPS: list[tuple[dict[str, Any], Spent, str]] = [
    ({"target": 0.2}, Spent(), "target reached: accuracy"),
    ({"patience": 1, "learning_rate": 1e-9}, Spent(), "no better accuracy in 1 validations"),
    ({"seconds": 10.0}, Spent(wall_s=11.0), "time budget: 11.0 s of 10.0 s"),
    ({"joules": 10.0}, Spent(joules=11.0), "energy budget: 11 J of 10 J"),
    ({"usd": 0.01}, Spent(usd=0.02), "money budget: $0.020 of $0.010"),
]


@pytest.mark.parametrize(("changes", "spent", "reason"), STOPS, ids=[row[2] for row in STOPS])
def test_each_reason_to_stop(
    changes: dict[str, Any], spent: Spent, reason: str, make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    later = itertools.chain([Spent()], itertools.repeat(spent))
    _, trained, _ = go(make_plan(steps=100_000, **changes), store, tmp_path, spent=lambda: next(later))
    assert trained.reason.startswith(reason)
    assert 0 < trained.steps < 100_000
    assert trained.metrics, "what was learned until then is validated and kept"


@pytest.mark.parametrize(("changes", "spent", "reason"), STOPS[2:], ids=[row[2] for row in STOPS[2:]])
def test_a_budget_that_is_gone_before_the_first_step_leaves_no_untrained_model(
    changes: dict[str, Any], spent: Spent, reason: str, make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    with pytest.raises(BudgetError, match="nothing was trained: ") as caught:
        go(make_plan(steps=40, **changes), store, tmp_path, spent=lambda: spent)
    assert reason in caught.value.what
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 3, 7, 50])
@pytest.mark.parametrize("limit_s", [40.0, 66.5, 100.0])
def test_with_what_a_plan_keeps_back_a_run_ends_within_its_time(
    every: int, limit_s: float, make_plan: PlanFactory, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that goes on by steps of 2 s and validations of 5 s, as a plan foresees them."""
    monkeypatch.setattr("thrifty.train.ending.BUDGET_CHECK_SECONDS", 0.0)
    step_s, validation_s = 2.0, 5.0
    events: list[Event] = []

    def clock() -> Spent:
        steps, looks = (sum(isinstance(event, kind) for event in events) for kind in (StepDone, Evaluated))
        return Spent(wall_s=steps * step_s + looks * validation_s)

    plan = make_plan(steps=1000, evaluate_every=every, seconds=limit_s - step_s - validation_s)
    trained = train(plan, fresh(plan), store, tmp_path, emit=events.append, spent=clock)
    assert trained.reason.startswith("time budget")
    assert limit_s - 2 * (step_s + validation_s) <= clock().wall_s <= limit_s
    assert trained.best_step > 0


@pytest.mark.slow
def test_the_best_weights_are_returned_not_the_last(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    """A rate that climbs until the run breaks: the best validation lies before the end."""
    plan = make_plan(steps=60, evaluate_every=5, learning_rate=3.0, optimizer="sgd", warmup_steps=60)
    model, trained, events = go(plan, store, tmp_path)
    seen = {event.step: event.metrics["accuracy"] for event in events if isinstance(event, Evaluated)}
    assert trained.metrics["accuracy"] == max(seen.values())
    assert seen[trained.best_step] == trained.metrics["accuracy"]
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_a_run_that_diverges_at_once_says_what_to_lower(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    plan = make_plan(optimizer="sgd", learning_rate=1e30, warmup_steps=0)
    with pytest.raises(DivergedError, match=r"the loss of step \d+ is (nan|inf).*Lower train.learning_rate"):
        go(plan, store, tmp_path)


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before_it(
    make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    plan = make_plan(steps=9)
    whole, *_ = go(plan, store, tmp_path / "whole")
    with pytest.raises(Killed):
        go(plan, store, tmp_path / "died", die_at=8)
    path = tmp_path / "died" / "step-7.pt"
    path.write_bytes(path.read_bytes()[:-100])
    resumed, _, events = go(plan, store, tmp_path / "died")
    assert isinstance(events[0], CheckpointDamaged) and events[1] == Resumed(6)
    assert same(whole, resumed)


def test_a_checkpoint_of_another_plan_is_refused(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        go(make_plan(steps=6), store, tmp_path, die_at=6)
    with pytest.raises(BundleError, match="made by another plan"):
        go(make_plan(steps=6, learning_rate=0.5), store, tmp_path)


@pytest.mark.slow
def test_only_the_best_that_a_checkpoint_names_is_kept(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    _, trained, events = go(make_plan(steps=40, checkpoints_kept=1), store, tmp_path)
    assert [p.name for p in tmp_path.glob("best-*")] == [f"best-{trained.best_step}.safetensors"]
    assert any(isinstance(event, Checkpointed) for event in events)


def test_few_frames_lie_between_the_call_and_backward(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    """The stack in a hook of a gradient, which autograd calls on the way back through the model."""
    plan = make_plan(steps=1)
    model = fresh(plan)
    frames: list[str] = []

    def look(gradient: torch.Tensor) -> None:
        frames[:] = [f.name for f in traceback.extract_stack() if "/src/thrifty/" in f.filename]

    next(model.parameters()).register_hook(look)
    train(plan, model, store, tmp_path, emit=lambda event: None, spent=Spent)
    assert frames == ["train", "take_step"]


class Noisy(nn.Module):
    """A user's model that draws from every generator there is."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.drop = inner, nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            x = self.drop(x) * (1 + 0.1 * float(np.random.rand()) + 0.1 * random.random())
        out: torch.Tensor = self.inner(x)
        return out


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["plateau", "cosine"])
@pytest.mark.parametrize(("saving", "dropout"), [("beside", "sampled"), ("between", "bits")])
def test_all_generators_go_on_where_they_were(
    schedule: str, saving: str, dropout: str, make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    how = {"schedule": schedule, "saving": saving, "dropout": dropout}
    plan = make_plan(steps=11, evaluate_every=2, learning_rate=0.02, micro=16, **how)

    def learn(folder: Path, die_at: int = 0) -> nn.Module:
        model = Noisy(fresh(plan))
        random.seed(folder.name + str(die_at))  # what was drawn before does not matter
        np.random.seed(die_at)

        def emit(event: Event) -> None:
            if isinstance(event, StepDone) and event.step == die_at:
                raise Killed

        train(plan, model, store, folder, emit=emit, spent=Spent)
        return model

    whole = learn(tmp_path / "whole")
    for die_at in (3, 7, 10):
        with pytest.raises(Killed):
            learn(tmp_path / "died", die_at)
    assert same(whole, learn(tmp_path / "died"))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
def test_another_micro_batch_goes_on_along_the_same_curve(
    optimizer: str, make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    """Same data in the same order, the loss equal to 1e-5 in fp32, whichever micro-batch a stretch is computed by."""
    settings: dict[str, Any] = {"optimizer": optimizer, "learning_rate": 0.01, "steps": 18, "evaluate_every": 6}
    _, _, events = go(make_plan(**settings), store, tmp_path / "whole")
    expected = {event.step: event.loss for event in events if isinstance(event, StepDone)}
    seen: dict[int, float] = {}
    for micro, die_at in ((64, 5), (16, 9), (7, 14), (32, 0)):
        plan = make_plan(micro=micro, **settings).model_copy(update={"key": f"micro-{micro}"})
        told: list[Event] = []

        def emit(event: Event, told: list[Event] = told, die_at: int = die_at) -> None:
            told.append(event)
            if isinstance(event, StepDone):
                seen[event.step] = event.loss
                if event.step == die_at:
                    raise Killed

        stopped = pytest.raises(Killed) if die_at else contextlib.nullcontext()
        with stopped:
            train(plan, fresh(plan), store, tmp_path / "died", emit=emit, spent=Spent)
        assert not [event for event in told if isinstance(event, Warned)]
    assert seen.keys() == expected.keys()
    for step, loss in expected.items():
        assert seen[step] == pytest.approx(loss, rel=1e-5), step


def test_batch_norm_over_other_micro_batches_is_told(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": 4, "evaluate_every": 2}
    with pytest.raises(Killed):
        go(make_plan("resnet8", micro=32, **settings), store, tmp_path, die_at=3)
    _, _, events = go(make_plan("resnet8", micro=16, **settings), store, tmp_path)
    assert isinstance(events[0], Resumed)
    assert isinstance(events[1], Warned) and "over 16 samples from here on, over 32 until step 2" in events[1].message


def test_it_says_how_long_a_checkpoint_held_training(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    _, _, events = go(make_plan(steps=5), store, tmp_path)
    saved = [event for event in events if isinstance(event, Checkpointed)]
    assert [event.step for event in saved] == [1, 2, 3, 4, 5, 5], "the last step is saved when training ends, too"
    assert all(0 < event.held_seconds <= event.seconds for event in saved)
