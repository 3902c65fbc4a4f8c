"""The training loop: plan, model and data in; trained weights out; read it from top to bottom."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from thrifty import optim
from thrifty.data import STEPS_AHEAD, Ahead, Batch, Batches, Store
from thrifty.data.images.growth import growth_of
from thrifty.errors import DiskFullError, DivergedError, SignalledError
from thrifty.hardware.pages import keep_pages, keeping
from thrifty.models.compiling import compile_news, compile_seconds
from thrifty.models.losses import LossSum
from thrifty.optim.release import releasing
from thrifty.optim.rows import use_rows
from thrifty.spec import Plan, Spent
from thrifty.spec.events import Emit, Event, Resumed, StepDone, Stopped
from thrifty.train.checkpoint import Checkpoints, State, learning_key
from thrifty.train.ending import Budget, due_for_validation, reason_to_stop
from thrifty.train.generators import seed_generators
from thrifty.train.guard import Guard
from thrifty.train.precision import LossScale
from thrifty.train.ranks import ALONE, World
from thrifty.train.room import Room, statistics_change
from thrifty.train.savings import computing_as, with_savings, without_savings
from thrifty.train.signals import Asked, LeftOff, asked_to_end
from thrifty.train.spread import spread_over
from thrifty.train.steering import Helm, Steer, undisturbed
from thrifty.train.step import rehearse_step, take_step
from thrifty.train.validate import validate


@dataclass(frozen=True)
class Trained:
    """What training left: the model holds the best weights of the run.

    Attributes:
        steps: optimizer steps taken, in all attempts.
        metrics: validation figures of the best weights.
        best_step: the step they were reached at.
        reason: why training ended, a sentence.
        wasted_seconds: of steps that were skipped or rolled back, in all attempts.
        gave_up: the guard ended it; the weights are of before what went wrong.
        loading_share: of the time of this attempt's steps, in which they waited for their batches.
    """

    steps: int
    metrics: dict[str, float]
    best_step: int
    reason: str
    wasted_seconds: float = 0.0
    gave_up: bool = False
    loading_share: float = field(default=0.0, compare=False)


def train(
    plan: Plan,
    model: nn.Module,
    store: Store,
    folder: Path,
    *,
    emit: Emit,
    spent: Callable[[], Spent],
    world: World = ALONE,
    loss: LossSum | None = None,
    steer: Steer = undisturbed,
) -> Trained:
    """Train a model by a plan, from the last whole checkpoint in ``folder`` if there is one.

    The weights after a given number of steps depend on plan, data and initial weights alone, not on how often the
    run was killed and resumed. A checkpoint of a plan that computes the same otherwise, say with other micro-batches,
    is gone on with too: the same but for rounding.

    Args:
        plan: every decision taken.
        model: built and initialised.
        store: prepared data.
        folder: where checkpoints go; held by this process alone.
        emit: is told of each step, validation and checkpoint, and of each trouble.
        spent: what the run has spent so far, earlier attempts included; of several ranks the first one's counts.
        world: the ranks that take each step together, each of which calls this with the same plan and model.
        loss: that is learned by, summed over a micro-batch; the task's own when left out. Validation has the task's.
        steer: says between steps what is asked for: to wait, to stop, to spend less.

    Raises:
        DivergedError: losses were no numbers, or far too high, before any validation.
        SignalledError: a signal asked for the end; the step at work was finished and saved.
        StorageError: a checkpoint could not be written; of a full disk only when the last one cannot.
        BundleError: no checkpoint that is there is whole, or of this plan.
    """
    keep_pages(keeping(plan.device, plan.checkpointing))
    torch.set_num_threads(plan.threads)
    seed_generators(plan.seed)  # dropout draws from them; a checkpoint brings their states back
    computing_as(with_savings(model, plan), plan, store.dataset.kind).train()
    spread = spread_over(world, model, plan.zero)
    optimizer = optim.build(model, plan.optim, plan.precision, plan.seed, offload=plan.offload)
    used = use_rows(model, optimizer, store.dataset.vocabulary) if plan.rows == "used" else []
    spread.follow(optimizer)
    schedule = optim.Schedule(plan.optim)
    growth = growth_of(plan, store.dataset)
    made = Batches(
        store,
        split="train",
        batch=plan.batch.size,
        micro=plan.batch.micro,
        seed=plan.seed,
        batching=plan.batch.batching,
        rank=world.rank,
        ranks=world.size,
        along=spread.computes_along,
        augment=plan.augment,
        label_smoothing=plan.label_smoothing,
        side_at=growth.at if growth is not None else None,
    )
    budget, helm = Budget(spent, world), Helm(steer, plan.stop, world)

    def rehearse(parts: list[Batch]) -> None:
        rehearse_step(plan, model, optimizer, parts, used, release, loss)

    def following(step: int) -> int | None:
        return step + 1 if step + 1 < plan.stop.steps else None

    key, beside = learning_key(plan, store.dataset.key), plan.saving == "beside"

    with (
        releasing(optimizer, plan.gradient_release) as release,
        Room(plan, model, emit) as room,
        Ahead(made, STEPS_AHEAD if plan.loading == "beside" and not room.watches else 0, following) as batches,
        Checkpoints(
            folder, key=key, keep=plan.checkpoints_kept, beside=beside, holds=room.holds, spread=spread
        ) as checkpoints,
        asked_to_end(world) as asked,
    ):
        state = checkpoints.load(model, optimizer) or State()
        before = room.take_up(state, batches, optimizer, checkpoints.wait)
        _tell(checkpoints.news(), emit)
        if state.step:
            schedule.load(state.schedule)
            emit(Resumed(state.step))
            _tell(statistics_change(model, before, state.micro * world.size, state.step), emit)
        guard = Guard(plan.guard, model, state.guard, releases=plan.gradient_release)
        scale = LossScale.of(plan.precision, state.scale)

        saved_at, saved_step = time.perf_counter(), state.step
        loading_s, stepping_s = 0.0, 0.0
        while True:
            due = guard.calm and due_for_validation(plan, state)
            if due and state.evaluated_step != state.step:
                with contextlib.suppress(LeftOff), optim.evaluating(optimizer):
                    validate(plan, model, store, state, schedule, checkpoints, asked, room, emit)
            asked.agree()
            if asked.signal is not None:
                raise _left(asked, checkpoints, _noted(state, schedule, guard, scale), model, optimizer, plan, emit)
            waited = world.of_first(time.perf_counter() - saved_at)
            late = waited > plan.checkpoint_seconds or (due and waited > plan.checkpoint_seconds / 10)
            if late and guard.calm and state.step > saved_step:
                checkpoints.save(_noted(state, schedule, guard, scale), model, optimizer)
                saved_at, saved_step = time.perf_counter(), state.step
            _tell(checkpoints.news(), emit)
            ask = helm.follow(state.step, emit)
            if ask == "pause" and guard.calm:
                if state.step > saved_step:
                    _tell(checkpoints.saved(_noted(state, schedule, guard, scale), model, optimizer), emit)
                helm.wait(state.step, asked, emit)
                saved_at, saved_step = time.perf_counter(), state.step
                continue
            if reason := guard.gave_up or reason_to_stop(helm.stop, state, budget, told=ask == "stop"):
                break

            began, compiled_s = time.perf_counter(), compile_seconds()
            rate = guard.rate(schedule.rate(state.step), state.step)
            guard.begin()
            for attempt in room.attempts(state, batches, optimizer, guard, rehearse):
                with attempt:
                    asked_at = time.perf_counter()
                    parts = batches.step(state.step)
                    loading_s += time.perf_counter() - asked_at
                    mean, norm = take_step(
                        plan, model, optimizer, parts, rate, used, guard.sound, scale, spread, release, loss
                    )
            state.step += 1
            compiled_s = compile_seconds() - compiled_s
            seconds = time.perf_counter() - began - compiled_s
            stepping_s += seconds
            _tell(compile_news(model, state.step, compiled_s), emit)
            speed = made.samples(state.step - 1) / seconds
            epoch = state.step / made.steps_per_epoch
            emit(StepDone(state.step, plan.stop.steps, epoch, mean, rate, norm, speed, seconds))
            guard.ended(
                state.step, mean, norm, seconds, lambda step: checkpoints.roll_back(step, model, optimizer), emit
            )

        if not guard.gave_up and state.evaluated_step != state.step:
            with contextlib.suppress(LeftOff), optim.evaluating(optimizer):
                validate(plan, model, store, state, schedule, checkpoints, asked, room, emit)
            if asked.signal is not None:
                raise _left(asked, checkpoints, _noted(state, schedule, guard, scale), model, optimizer, plan, emit)
        if not state.best:
            raise DivergedError(
                f"training diverged: {reason}",
                mend=f"Lower train.learning_rate (it was {plan.optim.learning_rate:g}), or set train.clip.",
            )
        _tell(checkpoints.finish(_noted(state, schedule, guard, scale), model, optimizer), emit)
        for each in used:
            each.release()
        spread.release()
        checkpoints.load_best(state, model)
        reason += room.says
    without_savings(model)
    emit(Stopped(state.step, reason))
    if asked.signal is not None:
        raise asked.error(f"training is done and saved in '{folder}': {reason}")
    return Trained(
        state.step,
        state.best,
        state.best_step,
        reason,
        guard.watch.wasted_seconds,
        bool(guard.gave_up),
        loading_s / stepping_s if stepping_s else 0.0,
    )


def _noted(state: State, schedule: optim.Schedule, guard: Guard, scale: LossScale) -> State:
    """Where training stands, with what schedule, guard and scale remember."""
    state.schedule, state.guard, state.scale = schedule.state(), guard.state(), scale.state()
    return state


def _tell(news: Iterable[Event], emit: Emit) -> None:
    for event in news:
        emit(event)


def _left(
    asked: Asked,
    checkpoints: Checkpoints,
    state: State,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    plan: Plan,
    emit: Emit,
) -> SignalledError:
    """Save where training stands; return the error to leave with."""
    at = f"step {state.step:,} of {plan.stop.steps:,}"
    try:
        _tell(checkpoints.finish(state, model, optimizer), emit)
        what = f"{at} is saved in '{checkpoints.folder}'"
    except DiskFullError as error:
        last = checkpoints.last_step
        what = f"{at} could not be saved ({error.what}); " + (
            "nothing is saved" if last is None else f"step {last:,} is"
        )
    left = asked.error(what)
    emit(Stopped(state.step, left.what))
    return left
