"""Memory on demand: what does not fit is taken again with fewer samples, and learns what they would have learned."""

from __future__ import annotations

import math
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from thrifty.data import Store
from thrifty.errors import BudgetError
from thrifty.hardware.pages import trim
from thrifty.ledger import resident_bytes
from thrifty.models import build
from thrifty.models.gpt import GPT
from thrifty.spec import Plan, Spent
from thrifty.spec.events import Event, Narrowed, Resumed, StepDone, Warned
from thrifty.train import evaluate_split, train
from thrifty.train.room import no_memory
from thrifty.train.watch import Watch

PlanFactory = Callable[..., Plan]
CHILD = Path(__file__).parent / "room_run.py"
MIB = 1 << 20
# numbers of each layer of the child's model, a sample; and MiB above what it begins with
EACH, ABOVE = 65_536, 150


class Killed(Exception):  # noqa: N818 - a signal, not an error
    """Stands for the end of the process at a given event."""


class Starved(nn.Module):
    """A model that draws from every generator there is, and for which there is no memory of more than some samples.

    Args:
        inner: what is computed.
        most: samples at once, in training and in validation.
        until: samples that are computed before memory is short.
    """

    def __init__(self, inner: nn.Module, most: int, most_held_out: int = 1000, until: int = 0) -> None:
        super().__init__()
        self.inner, self.most, self.held_out, self.left = inner, most, most_held_out, until

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = nn.functional.dropout(x, 0.1) * (1 + 0.1 * float(np.random.rand()) + 0.1 * random.random())
        out: Tensor = self.inner(x)
        self.left -= len(x) if self.training else 0
        if self.left < 0 and len(x) > (self.most if self.training else self.held_out):
            raise torch.OutOfMemoryError(f"no memory for {len(x)} samples\n of a stack that nobody wants to read")
        return out


def small() -> nn.Module:
    """A small network with a batch norm, the same each time."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))


def learn(plan: Plan, store: Store, folder: Path, *, die_at: int = 0, **starved: int) -> tuple[Starved, list[Event]]:
    model, events = Starved(small(), **{"most": 1000, **starved}), []

    def emit(event: Event) -> None:
        events.append(event)
        if isinstance(event, StepDone) and event.step == die_at:
            raise Killed

    train(plan, model, store, folder, emit=emit, spent=Spent)
    return model, events


def same(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def narrowed(events: list[Event]) -> list[tuple[str, int, int, int]]:
    return [(each.stage, each.step, each.before, each.to) for each in events if isinstance(each, Narrowed)]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("can't allocate memory"), False),
        (None, False),
    ],
)
def test_what_says_that_there_was_no_memory(error: BaseException | None, expected: bool) -> None:
    assert no_memory(error) == expected


@pytest.mark.parametrize("memory", [pytest.param(math.inf, marks=pytest.mark.slow), 1e15])
@pytest.mark.slow
def test_without_room_a_step_is_what_fewer_at_once_would_have_made_it(
    memory: float, make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    """Batch norm's statistics and, where they are kept, generators are those of a run that was narrow from the start.

    Under a limit, however far, the first step is rehearsed: of that nothing is left, either.
    """
    settings: dict[str, Any] = {"steps": 4, "evaluate_every": 4, "memory": memory}
    model, events = learn(make_plan(micro=64, **settings), store, tmp_path / "starved", most=16)
    assert narrowed(events) == [("training", 1, 64, 32), ("training", 1, 32, 16)]
    assert "no memory for 64 samples of a stack" in next(e.reason for e in events if isinstance(e, Narrowed))
    warned = [event.message for event in events if isinstance(event, Warned)]
    assert len(warned) == 2 and "over 16 samples from here on, over 32 until step 0" in warned[1]
    free, _ = learn(make_plan(micro=16, **settings | {"memory": 1e15}), store, tmp_path / "free")
    if math.isfinite(memory):
        assert same(model, free)
    assert not same(model.inner, small())


@pytest.mark.slow
def test_near_the_limit_a_later_step_is_taken_again_with_the_same_draws(
    make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    learn(make_plan(steps=1), store, tmp_path / "loads")
    trim()
    settings: dict[str, Any] = {"steps": 5, "evaluate_every": 5, "memory": resident_bytes() / 0.75}
    model, events = learn(make_plan(micro=64, **settings), store, tmp_path / "starved", most=32, until=3 * 64 + 60)
    ((stage, step, before, to),) = narrowed(events)
    assert (stage, before, to) == ("training", 64, 32) and 1 < step <= 4
    # a run that is gone on with in halves from there draws the same
    with pytest.raises(Killed):
        learn(make_plan(micro=64, **settings), store, tmp_path / "other", die_at=step)
    other, then = learn(make_plan(micro=32, **settings), store, tmp_path / "other")
    assert then[0] == Resumed(step - 1)
    assert same(model, other)


@pytest.mark.slow
def test_what_was_narrowed_stays_so_when_the_run_is_gone_on_with(
    make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    plan = make_plan(steps=6, evaluate_every=2)
    whole, events = learn(plan, store, tmp_path / "whole", most=20, most_held_out=30)
    assert narrowed(events) == [
        ("training", 1, 64, 32), ("training", 1, 32, 16), ("validation", 2, 64, 32), ("validation", 2, 32, 16),
    ]  # fmt: skip
    assert events[-1].reason == "all 6 steps done; for memory 16 samples at once, not 64"  # type: ignore[union-attr]
    with pytest.raises(Killed):
        learn(plan, store, tmp_path / "died", most=20, most_held_out=30, die_at=4)
    again, then = learn(plan, store, tmp_path / "died", most=20, most_held_out=30)
    assert isinstance(then[0], Resumed) and not narrowed(then)
    assert same(whole, again)


@pytest.mark.slow
def test_another_plan_s_micro_batch_is_followed_when_the_run_is_gone_on_with(
    make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        learn(make_plan(steps=4), store, tmp_path, most=20, die_at=3)
    _, events = learn(make_plan(steps=4, micro=48), store, tmp_path)
    assert not narrowed(events)
    assert isinstance(events[1], Warned) and "over 48 samples from here on, over 16 until step 2" in events[1].message
    assert events[-1].reason == "all 4 steps done"  # type: ignore[union-attr]


@pytest.mark.slow
def test_one_sample_that_does_not_fit_is_an_error_that_says_what_to_do(
    make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    with pytest.raises(BudgetError, match=r"training at step 1 does not fit the memory there is, with 1 samples at"):
        learn(make_plan(steps=4, micro=4), store, tmp_path / "one", most=0)
    limit = resident_bytes() + 4 * MIB
    with pytest.raises(BudgetError, match=r"does not fit .* of memory, with 1 samples at once: .* Allow more by"):
        learn(make_plan(steps=4, micro=4, memory=limit), store, tmp_path / "none")
    with pytest.raises(BudgetError, match=r"validation at step 4 does not fit the memory there is, with 1 samples"):
        learn(make_plan(steps=4), store, tmp_path / "held_out", most_held_out=0)


def test_an_error_that_is_not_of_memory_is_not_met(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    plan = make_plan(steps=2, memory=1e15)
    with pytest.raises(RuntimeError, match="shapes"):
        train(plan, nn.Linear(3, 3), store, tmp_path, emit=lambda event: None, spent=Spent)


def test_an_optimizer_that_ran_out_within_its_work_ends_the_run(
    make_plan: PlanFactory, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some weights may have been updated already: the step cannot be taken again."""

    def starve(*arguments: Any, **named: Any) -> None:
        raise torch.OutOfMemoryError("no memory for states")

    monkeypatch.setattr(torch.optim.AdamW, "_init_group", starve)
    with pytest.raises(BudgetError, match="no memory for the optimizer in step 1: no memory for states"):
        learn(make_plan(steps=2), store, tmp_path)


def test_a_split_is_measured_alone_with_as_much_as_fits(make_plan: PlanFactory, store: Store) -> None:
    plan = make_plan(memory=1e15)
    model = Starved(build(plan.model), most=64, most_held_out=10)
    assert evaluate_split(plan, model, store, "test").metrics["samples"] == store.dataset.counts["test"]
    assert not model._forward_pre_hooks


def test_hooks_cost_little_and_none_are_left() -> None:
    """A small GPT, twelve windows of 64 tokens: time of all that is asked in a step, over that of the step."""
    torch.set_num_threads(1)
    model = GPT(vocabulary=65, length=64, layers=4, width=128, heads=4)
    tokens = torch.randint(0, 65, (12, 64))

    def step() -> None:
        nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()

    watch = Watch(lambda resident: 1.25 * resident, 0.0)
    watch.on(model, model.parameters())
    step()
    assert watch.near
    places = len(watch._layers)
    began = time.process_time()
    for _ in range(3):
        step()
    step_s = (time.process_time() - began) / 3
    began = time.process_time()
    for _ in range(2000):
        watch.look(1)
    assert places * (time.process_time() - began) / 2000 < 0.01 * step_s
    watch.off()
    hooks = [len(each._forward_pre_hooks) for each in model.modules()]
    assert sum(hooks) == 0 and not any(each._post_accumulate_grad_hooks for each in model.parameters())


class Workplace:
    """A plan and its data, to be trained by in processes of their own."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder, self.store = folder, store

    def start(self, name: str, plan: Plan, **options: float) -> subprocess.Popen[str]:
        path = self.folder / f"{name}.json"
        path.write_text(plan.model_dump_json())
        arguments = [path, self.store.folder, self.folder / name, self.folder / f"{name}.safetensors"]
        told = [f"{key}={value}" for key, value in {"each": EACH, **options}.items()]
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", str(CHILD), *map(str, arguments), *told],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, name: str, plan: Plan, **options: float) -> tuple[int, list[str], str]:
        with self.start(name, plan, **options) as process:
            said, errors = process.communicate(timeout=120)
        return process.returncode, said.splitlines(), errors

    def weights(self, name: str) -> dict[str, Tensor]:
        return load_file(self.folder / f"{name}.safetensors")


def peak_and_limit(said: list[str]) -> tuple[float, float]:
    _, peak, _, limit = next(line for line in said if line.startswith("peak")).split()
    return float(peak), float(limit)


def agree(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.allclose(value, other[name], rtol=1e-6, atol=1e-12) for name, value in one.items()
    )


@pytest.fixture(scope="module")
def held_plan(make_plan: PlanFactory) -> Plan:
    """32 samples at once are 400 MiB, of which there is room for a third."""
    return make_plan(steps=3, size=32, micro=32, evaluate_every=3)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone tells what is resident")
def test_a_budget_is_kept_where_nothing_is_raised_and_the_same_is_learned(
    held_plan: Plan, make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    workplace = Workplace(tmp_path, store)
    code, said, errors = workplace.finish("held", held_plan, above=ABOVE)
    assert code == 0, errors
    peak, limit = peak_and_limit(said)
    assert limit - ABOVE / 2 < peak < limit, "it is kept, and made use of"
    *_, (_, step, stage, before, to, *_) = (
        line.split() for line in said if line.startswith("Narrowed") and "training" in line
    )
    assert (int(step), stage) == (1, "training") and int(to) < int(before) <= 32
    narrow = held_plan.model_copy(update={"batch": held_plan.batch.model_copy(update={"micro": int(to)})})
    code, said, errors = workplace.finish("narrow", narrow)
    assert code == 0, errors
    assert agree(workplace.weights("held"), workplace.weights("narrow"))

    with workplace.start("killed", held_plan, above=ABOVE, slow=0.01) as process:
        assert process.stdout is not None
        first = []
        for line in process.stdout:
            first.append(line)
            if line.startswith("Checkpointed"):
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    code, said, errors = workplace.finish("killed", held_plan, above=ABOVE)
    assert code == 0, errors
    assert said[0].startswith("Resumed")
    *_, was = (line.split()[4] for line in first if line.startswith("Narrowed") and "training" in line)
    assert all(int(line.split()[3]) <= int(was) for line in said if line.startswith("Narrowed") and "training" in line)
    peak, limit = peak_and_limit(said)
    assert peak < limit
    assert agree(workplace.weights("held"), workplace.weights("killed"))


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone tells what is resident")
def test_a_budget_for_less_than_one_sample_ends_before_it_is_passed(
    held_plan: Plan, store: Store, tmp_path: Path
) -> None:
    code, said, errors = Workplace(tmp_path, store).finish("none", held_plan, above=18)
    assert code == BudgetError.exit_code
    assert "training at step 1 does not fit" in errors and "with 1 samples at once" in errors
    peak, limit = peak_and_limit(said)
    assert peak < limit
