"""Training with frozen parameters and adapters: goes on exactly, keeps little, and leaves the plain model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from thrifty.data import Store
from thrifty.errors import BundleError
from thrifty.models import build
from thrifty.models.init import initialise
from thrifty.spec import AdaptPlan, Plan, Spent
from thrifty.spec.events import Checkpointed, Event, StepDone
from thrifty.train import Trained, probe_steps, train

PlanFactory = Callable[..., Plan]
FREEZE = AdaptPlan(freeze=("layer1.*", "*.bn?.*"))


class Killed(Exception):  # noqa: N818 - a signal, not an error
    """Stands for the end of the process."""


def go(plan: Plan, store: Store, folder: Path, *, die_at: int = 0, seed: int = 0) -> tuple[nn.Module, Trained, int]:
    """Train; returns the bytes of a checkpoint, too. ``seed`` is that of the weights."""
    sizes: list[int] = []

    def emit(event: Event) -> None:
        if isinstance(event, Checkpointed):
            sizes.append(event.bytes)
        if isinstance(event, StepDone) and event.step == die_at:
            raise Killed

    model = build(plan.model)
    initialise(model, plan.init, seed)
    trained = train(plan, model, store, folder, emit=emit, spent=Spent)
    return model, trained, sizes[-1]


def same(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def assert_goes_on(plan: Plan, store: Store, folder: Path) -> nn.Module:
    whole, trained, _ = go(plan, store, folder / "whole")
    for died in (2, 5):
        with pytest.raises(Killed):
            go(plan, store, folder / "died", die_at=died)
    torch.rand(3)  # what was drawn before does not matter
    resumed, after, _ = go(plan, store, folder / "died")
    assert same(whole, resumed) and after == trained
    return whole


@pytest.mark.slow
def test_a_frozen_run_goes_on_with_the_same_bits_and_keeps_less(
    make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"steps": 6, "evaluate_every": 2, "micro": 32, "optimizer": "momentum"}
    plan = make_plan("resnet8", adapt=FREEZE, **settings)
    assert_goes_on(plan, store, tmp_path)
    *_, kept = go(plan, store, tmp_path / "kept")
    *_, whole = go(make_plan("resnet8", **settings), store, tmp_path / "all")
    assert kept < 0.95 * whole


def test_another_base_is_refused(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    plan = make_plan("resnet8", adapt=FREEZE, steps=4)
    with pytest.raises(Killed):
        go(plan, store, tmp_path, die_at=3)
    with pytest.raises(BundleError, match="frozen weights of this model are not those"):
        go(plan, store, tmp_path, seed=1)


ADAPTED = {"rank": 2, "alpha": 4.0, "targets": ("*",), "whole": ("fc.*",)}


@pytest.mark.slow  # loads transformers, which peft needs
@pytest.mark.parametrize("model", ["resnet14", "mlp-small"])
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_an_adapted_run_goes_on_with_the_same_bits(
    model: str, kind: str, make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    adapt = AdaptPlan(kind=kind, **ADAPTED)  # type: ignore[arg-type]
    settings: dict[str, Any] = {"steps": 6, "evaluate_every": 2, "micro": 32, "learning_rate": 0.01}
    plan = make_plan(model, adapt=adapt, **settings)
    learned = assert_goes_on(plan, store, tmp_path)
    plain = build(plan.model)
    initialise(plain, plan.init, 0)
    assert learned.state_dict().keys() == plain.state_dict().keys()
    moved = [name for name, value in plain.named_parameters() if not torch.equal(value, learned.get_parameter(name))]
    assert any("conv" in name or "hidden" in name for name in moved) and "fc.weight" in moved
    assert not any("bn" in name or name == "hidden.0.bias" for name in moved)
    *_, kept = go(plan, store, tmp_path / "kept")
    *_, whole = go(make_plan(model, **settings), store, tmp_path / "all")
    assert kept < 0.5 * whole


@pytest.mark.slow
def test_checkpointing_four_bits_and_half_precision_go_with_adapters(
    make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    adapt = AdaptPlan(kind="lora", base="4bit", **ADAPTED)  # type: ignore[arg-type]
    plan = make_plan(
        "resnet14", adapt=adapt, steps=6, evaluate_every=2, micro=32, precision="bf16", checkpointing="full"
    )
    assert_goes_on(plan, store, tmp_path)
    assert len(probe_steps(plan, store, tmp_path, seconds=0).step_s) == 1
    small = make_plan("mlp-small", adapt=adapt, steps=6, evaluate_every=2, precision="bf16", learning_rate=0.01)
    assert_goes_on(small, store, tmp_path / "small")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_four_bits_are_trained_over_on_a_gpu(kind: str, make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    adapt = AdaptPlan(kind=kind, base="4bit", **ADAPTED)  # type: ignore[arg-type]
    plan = make_plan("mlp-small", adapt=adapt, steps=6, evaluate_every=2, precision="bf16", learning_rate=0.01)
    learned, *_ = go(plan.model_copy(update={"device": "cuda"}), store, tmp_path)
    plain = build(plan.model)
    assert learned.state_dict().keys() == plain.state_dict().keys()
    assert all(each.is_cuda and torch.isfinite(each).all() for each in learned.parameters())
