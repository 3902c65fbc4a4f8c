"""The training loop: plan, model and data in; trained weights out; read it from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from thrifty import optim
from thrifty.data import Batches, Store
from thrifty.errors import DivergedError
from thrifty.hardware.pages import keep_pages, keeping
from thrifty.models.adapters import adapting, merging, start
from thrifty.models.inputs import to_device, to_tensors
from thrifty.models.losses import LOSSES
from thrifty.models.recompute import recomputing
from thrifty.spec import Plan, Spent
from thrifty.spec.events import Checkpointed, Emit, Resumed, StepDone, Stopped
from thrifty.spec.plan import StopPlan
from thrifty.spec.units import format_joules, format_seconds, format_usd
from thrifty.train.checkpoint import Checkpoints, State
from thrifty.train.precision import compute_precision
from thrifty.train.validate import validate

BUDGET_CHECK_SECONDS = 0.2
IGNORED_LABEL = -100


@dataclass(frozen=True)
class Trained:
    """What training left: the model holds the best weights of the run.

    Attributes:
        steps: optimizer steps taken, in all attempts.
        metrics: validation figures of the best weights.
        best_step: the step they were reached at.
        reason: why training ended, a sentence.
    """

    steps: int
    metrics: dict[str, float]
    best_step: int
    reason: str


def train(
    plan: Plan, model: nn.Module, store: Store, folder: Path, *, emit: Emit, spent: Callable[[], Spent]
) -> Trained:
    """Train a model by a plan, from the last checkpoint in ``folder`` if there is one.

    The weights after a given number of steps depend on plan, data and initial weights alone, not on how often the
    run was killed and resumed.

    Args:
        plan: every decision taken.
        model: built and initialised.
        store: prepared data.
        folder: where checkpoints go.
        emit: is told of each step, validation and checkpoint.
        spent: what the run has spent so far, earlier attempts included.

    Raises:
        DivergedError: the loss stopped being a number before any validation.
        StorageError: a checkpoint could not be written.
    """
    keep_pages(keeping(plan.device, plan.checkpointing))
    torch.set_num_threads(plan.threads)
    torch.manual_seed(plan.seed)  # dropout draws from it; a checkpoint brings its state back
    start(adapting(model, plan.adapt), plan.seed)
    to_device(model, plan.device, plan.memory_format)
    recomputing(model, plan.checkpointing)
    model.train()
    optimizer = optim.build(model, plan.optim)
    schedule = optim.Schedule(plan.optim)
    batches = Batches(store, split="train", batch=plan.batch.size, micro=plan.batch.micro, seed=plan.seed)
    checkpoints = Checkpoints(folder)

    state = checkpoints.load(model, optimizer, plan.key) or State()
    if state.step:
        schedule.load(state.schedule)
        emit(Resumed(state.step))

    budget = _Budget(plan.stop, spent)
    saved_at = time.perf_counter()
    loss = 0.0
    while not (reason := _reason_to_stop(plan.stop, state, budget, loss)):
        began = time.perf_counter()
        rate = schedule.rate(state.step)
        loss, norm = take_step(plan, model, optimizer, batches.step(state.step), rate)
        state.step += 1
        seconds = time.perf_counter() - began
        samples = batches.samples(state.step - 1)
        epoch = state.step / batches.steps_per_epoch
        emit(StepDone(state.step, plan.stop.steps, epoch, loss, rate, norm, samples / seconds, seconds))

        due = state.step % plan.evaluate_every == 0 or state.step == plan.stop.steps
        if due and math.isfinite(loss):
            validate(plan, model, store, state, schedule, checkpoints, emit, epoch)
        waited = time.perf_counter() - saved_at
        if waited > plan.checkpoint_seconds or (due and waited > plan.checkpoint_seconds / 10):
            saved_at = _save(checkpoints, state, schedule, model, optimizer, plan, emit)

    if math.isfinite(loss) and state.evaluated_step != state.step:
        validate(plan, model, store, state, schedule, checkpoints, emit, state.step / batches.steps_per_epoch)
    if not state.best:
        raise DivergedError(
            f"training diverged: {reason}",
            mend=f"Lower train.learning_rate (it was {plan.optim.learning_rate:g}), or set train.clip.",
        )
    _save(checkpoints, state, schedule, model, optimizer, plan, emit)
    checkpoints.load_best(state, model)
    recomputing(model, "none")
    merging(model)
    emit(Stopped(state.step, reason))
    return Trained(state.step, state.best, state.best_step, reason)


def take_step(
    plan: Plan,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    micro_batches: list[dict[str, np.ndarray]],
    learning_rate: float,
) -> tuple[float, float]:
    """Take one optimizer step over its micro-batches; return the mean loss and the norm of the gradient.

    Each micro-batch adds the sum of its losses over the weight of the whole step, so the gradient does not depend on
    how the step is cut.
    """
    weight = sum(int(np.count_nonzero(batch["y"] != IGNORED_LABEL)) for batch in micro_batches)
    total = torch.zeros((), device=plan.device)
    for arrays in micro_batches:
        batch = to_tensors(arrays, plan.device, plan.memory_format)
        with compute_precision(plan.device, plan.precision):
            loss_sum, _ = LOSSES[plan.task](model, batch)
        loss = loss_sum / weight
        loss.backward()
        total += loss.detach()
    norm = nn.utils.clip_grad_norm_(model.parameters(), plan.optim.clip)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total.item(), norm.item()


class _Budget:
    """Asks what was spent now and then, because asking reads the system's counters."""

    def __init__(self, stop: StopPlan, spent: Callable[[], Spent]) -> None:
        self.limited = any(math.isfinite(limit) for limit in (stop.seconds, stop.joules, stop.usd))
        self.spent, self.asked_at, self.last = spent, -math.inf, Spent()

    def now(self) -> Spent:
        if self.limited and time.perf_counter() - self.asked_at > BUDGET_CHECK_SECONDS:
            self.last, self.asked_at = self.spent(), time.perf_counter()
        return self.last


def _reason_to_stop(stop: StopPlan, state: State, budget: _Budget, loss: float) -> str:
    """Why training should end now, or an empty string."""
    if not math.isfinite(loss):
        return f"the loss of step {state.step} is {loss}"
    if state.best and _reached(state.best[stop.metric], stop):
        return f"target reached: {stop.metric} {state.best[stop.metric]:.4g} (wanted {stop.target:g})"
    if state.step >= stop.steps:
        return f"all {stop.steps:,} steps done"
    if stop.patience and state.since_best >= stop.patience:
        return f"no better {stop.metric} in {stop.patience} validations"
    spent = budget.now()
    if spent.wall_s >= stop.seconds:
        return f"time budget: {format_seconds(spent.wall_s)} of {format_seconds(stop.seconds)} for training spent"
    if spent.joules >= stop.joules:
        return f"energy budget: {format_joules(spent.joules)} of {format_joules(stop.joules)} spent"
    if spent.usd >= stop.usd:
        return f"money budget: {format_usd(spent.usd)} of {format_usd(stop.usd)} spent"
    return ""


def _reached(value: float, stop: StopPlan) -> bool:
    return value >= stop.target if stop.higher_is_better else value <= stop.target


def _save(
    checkpoints: Checkpoints,
    state: State,
    schedule: optim.Schedule,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    plan: Plan,
    emit: Emit,
) -> float:
    began = time.perf_counter()
    state.schedule = schedule.state()
    size = checkpoints.save(state, model, optimizer, plan.key)
    ended = time.perf_counter()
    emit(Checkpointed(state.step, size, ended - began))
    return ended
