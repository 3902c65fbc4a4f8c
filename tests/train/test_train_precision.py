"""Precisions of the loop: each learns as fp32 does, resumes exactly, and scales of fp16 keep out of the guard's way."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_train_loop import Killed, fresh, go, same
from torch import Tensor, nn

from thrifty import optim
from thrifty.data import Batches, Store, sweep
from thrifty.evaluate import evaluate
from thrifty.export.bundle import load_bundle, write_bundle
from thrifty.models.precision import with_precision
from thrifty.spec import BF16_HELD, Plan, Spent
from thrifty.spec.events import Event, Resumed, Skipped, StepDone
from thrifty.train import take_step, train
from thrifty.train.checkpoint import State
from thrifty.train.precision import LEAST, MOST, PATIENCE, START, LossScale, gradient_norm

PlanFactory = Callable[..., Plan]
OTHERS = ("bf16", *BF16_HELD, "fp16")


class Steep(nn.Module):
    """A model whose answers are those of another, and whose gradients are so many times as large."""

    def __init__(self, inner: nn.Module, times: float) -> None:
        super().__init__()
        self.inner, self.times = inner, times

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _Steeper.apply(self.inner(x), self.times)  # type: ignore[no-untyped-call]
        return out


class _Steeper(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, times):  # type: ignore[no-untyped-def]
        ctx.times = times
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        return gradient * ctx.times, None


def steep(plan: Plan, store: Store, folder: Path, times: float, *, die_at: int = 0) -> tuple[nn.Module, list[Event]]:
    events: list[Event] = []

    def emit(event: Event) -> None:
        events.append(event)
        if die_at and isinstance(event, StepDone) and event.step == die_at:
            raise Killed

    model = Steep(fresh(plan), times)
    train(plan, model, store, folder, emit=emit, spent=Spent)
    return model, events


def norms(events: list[Event]) -> list[float]:
    return [event.gradient_norm for event in events if isinstance(event, StepDone)]


@pytest.mark.slow
@pytest.mark.parametrize("precision", OTHERS)
def test_it_learns_what_fp32_learns(precision: str, make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    settings = {"steps": 150, "evaluate_every": 150, "learning_rate": 3e-3, "checkpoint_seconds": 1e9}
    _, reference, _ = go(make_plan(**settings), store, tmp_path / "fp32")
    model, found, _ = go(make_plan(**settings, precision=precision), store, tmp_path / precision)
    assert found.metrics["loss"] == pytest.approx(reference.metrics["loss"], rel=0.05)
    # what goes into the bundle
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize("precision", BF16_HELD)
def test_a_bundle_of_weights_in_bf16_serves_in_float32(
    precision: str, make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    plan = make_plan(steps=60, evaluate_every=60, precision=precision, learning_rate=3e-3, checkpoint_seconds=1e9)
    model, trained, _ = go(plan, store, tmp_path / "run")
    write_bundle(
        tmp_path / "bundle", name="a", version=1, task="classify", model=model, plan=plan.model, data=store.dataset,
        tokenizer=None, metrics=trained.metrics, isa=(), bill=Spent(),
    )  # fmt: skip
    served = load_bundle(tmp_path / "bundle").model
    assert {parameter.dtype for parameter in served.parameters()} == {torch.float32}
    tested = evaluate(served, sweep(store, "validation", 64), "classify").metrics
    assert tested["loss"] == pytest.approx(trained.metrics["loss"], rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "optimizer"), [(BF16_HELD[0], "adamw"), (BF16_HELD[1], "schedule_free")])
def test_a_run_that_died_ends_with_the_same_weights(
    precision: str, optimizer: str, make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    plan = make_plan(steps=9, evaluate_every=3, precision=precision, optimizer=optimizer, micro=16)
    whole, trained, _ = go(plan, store, tmp_path / "whole")
    for died in (4, 7):
        with pytest.raises(Killed):
            go(plan, store, tmp_path / "died", die_at=died)
    resumed, after, events = go(plan, store, tmp_path / "died")
    assert isinstance(events[0], Resumed)
    assert same(whole, resumed)
    assert after == trained


@pytest.mark.slow
@pytest.mark.parametrize("precision", BF16_HELD)
def test_micro_batches_add_up_in_float32(precision: str, make_plan: PlanFactory, store: Store) -> None:
    """The gradient of a step cut in pieces lies no farther from the whole one's than bf16 rounds it."""

    def gradients(micro: int) -> tuple[list[Tensor], float]:
        plan = make_plan(precision=precision, micro=micro)
        model = with_precision(fresh(plan), precision, accumulating=micro < 64)
        optimizer, kept = optim.build(model, plan.optim, precision), []

        def keep(loss: float, norm: float) -> bool:
            kept.extend(each.grad.clone() for each in model.parameters() if each.grad is not None)
            return False

        batches = Batches(store, batch=64, micro=micro, seed=0)
        _, norm = take_step(plan, model, optimizer, batches.step(0), 0.0, sound=keep)
        return kept, norm

    (whole, norm), (pieces, norm_of_pieces) = gradients(64), gradients(8)
    assert whole[0].dtype == torch.bfloat16
    assert {each.dtype for each in pieces} == {torch.float32}
    off = [(one.float() - other).norm() / other.norm() for one, other in zip(whole, pieces, strict=True)]
    assert max(off) < 2.0**-7
    assert norm == pytest.approx(norm_of_pieces, rel=2e-3)


def test_norms_of_bf16_gradients_are_summed_in_float32() -> None:
    gradients = [torch.full((1_000,), 1.0, dtype=torch.bfloat16), torch.full((5,), 2.0)]
    assert gradient_norm(gradients) == pytest.approx(math.sqrt(1_020), rel=1e-6)
    assert gradient_norm([torch.full((1_001,), 1.0, dtype=torch.bfloat16)]) == pytest.approx(math.sqrt(1_001), rel=1e-6)


@pytest.mark.slow
def test_where_gradients_overflow_the_scale_falls_and_the_guard_hears_nothing(
    make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    plan = make_plan(steps=14, precision="fp16", evaluate_every=3)
    model, events = steep(plan, store, tmp_path / "whole", 2.0**9)
    overflown = [not math.isfinite(norm) for norm in norms(events)]
    # the first steps find the scale, and each one after them is taken
    assert overflown[0]
    assert overflown == sorted(overflown, reverse=True)
    assert sum(overflown) < 10
    assert not any(isinstance(event, Skipped) for event in events)
    with pytest.raises(Killed):
        steep(plan, store, tmp_path / "died", 2.0**9, die_at=11)
    resumed, later = steep(plan, store, tmp_path / "died", 2.0**9)
    assert same(model, resumed)
    assert all(math.isfinite(norm) for norm in norms(later))


def test_the_norm_is_that_of_gradients_without_the_scale(make_plan: PlanFactory, store: Store) -> None:
    def norm(precision: str, scale: float) -> float:
        plan = make_plan(precision=precision, clip=0.1)
        model = fresh(plan)
        optimizer = optim.build(model, plan.optim)
        batches = Batches(store, batch=64, micro=64, seed=0)
        return take_step(plan, model, optimizer, batches.step(0), 0.0, scale=LossScale(scale, scaling=True))[1]

    assert norm("fp16", 1024.0) == pytest.approx(norm("fp32", 1.0), rel=2e-3)
    assert norm("fp32", 1024.0) == norm("fp32", 1.0)


def test_scaling_changes_no_step(make_plan: PlanFactory, store: Store) -> None:
    """A power of two goes in and out of float32 without a trace, clipped or not."""
    for clip in (0.1, math.inf):
        plan = make_plan(clip=clip)
        models = [fresh(plan), fresh(plan)]
        for model, scale in zip(models, (1.0, 4096.0), strict=True):
            optimizer = optim.build(model, plan.optim)
            batches = Batches(store, batch=64, micro=32, seed=0)
            take_step(plan, model, optimizer, batches.step(0), 0.01, scale=LossScale(scale, scaling=True))
        for one, other in zip(*(model.parameters() for model in models), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


def test_from_the_least_scale_on_the_guard_takes_over(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    _, events = steep(make_plan(steps=18, precision="fp16", evaluate_every=50), store, tmp_path, math.inf)
    skipped = [event.step for event in events if isinstance(event, Skipped)]
    assert skipped == [17, 18]
    assert math.log2(START / LEAST) == 16


def test_only_fp16_is_scaled() -> None:
    assert {LossScale.of(each).scale for each in ("fp32", "bf16", *BF16_HELD)} == {1.0}
    assert LossScale.of("bf16").state() == {}
    assert not LossScale.of("fp32").overflows(1.0, math.inf)


@given(st.lists(st.booleans(), max_size=60), st.integers(0, 60))
def test_a_scale_goes_on_where_it_was(overflown: list[bool], at: int) -> None:
    def run(scale: LossScale, flows: list[bool]) -> LossScale:
        for over in flows:
            scale.overflows(1.0, math.inf if over else 1.0)
        return scale

    whole = run(LossScale.of("fp16"), overflown)
    half = run(LossScale.of("fp16"), overflown[:at])
    assert run(LossScale.of("fp16", half.state()), overflown[at:]) == whole
    assert LEAST <= whole.scale <= START


def test_a_scale_rises_after_enough_steps_and_never_past_the_most() -> None:
    scale = LossScale.of("fp16")
    for _ in range(PATIENCE):
        assert scale.scale == START
        assert not scale.overflows(1.0, 1.0)
    assert scale.scale == 2 * START
    for _ in range(40 * PATIENCE):
        scale.overflows(1.0, 1.0)
    assert scale.scale == MOST


def test_a_loss_that_is_no_number_is_not_the_scales_business() -> None:
    scale = LossScale.of("fp16")
    assert not scale.overflows(math.nan, math.nan)
    assert scale.scale == START
    assert State().scale == {}
