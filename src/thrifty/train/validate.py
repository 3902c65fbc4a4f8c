"""Validation inside a run: measure a held-out split, remember the best weights, tell the schedule."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable

from torch import nn

from thrifty.data import Batch, Store, sweep
from thrifty.evaluate import Evaluation, evaluate
from thrifty.optim import Schedule
from thrifty.spec import Plan
from thrifty.spec.events import Emit, Evaluated
from thrifty.train.checkpoint import Checkpoints, State
from thrifty.train.ranks import ALONE, World
from thrifty.train.room import Room
from thrifty.train.signals import Asked

Through = Callable[[Iterable[Batch]], Iterable[Batch]]


def evaluate_split(
    plan: Plan,
    model: nn.Module,
    store: Store,
    split: str,
    through: Through = lambda batches: batches,
    room: Room | None = None,
    state: State | None = None,
    world: World = ALONE,
    one_by_one: bool = False,
) -> Evaluation:
    """Measure a model on one whole split of the prepared data, at the plan's precision; its batches go ``through``.

    Batches become smaller where memory is short: in ``room``, which ``state`` notes, or one for this split alone. Each
    rank of a ``world`` measures a part of the batches; all get the figures of the whole. Every answer is kept too
    where they are asked for ``one_by_one``, in the order of `thrifty.data.sweep_order`.

    Raises:
        BudgetError: there is no memory for one sample.
    """
    if room is None:
        with Room(plan, model, lambda event: None) as own:
            return evaluate_split(plan, model, store, split, through, own, state, world, one_by_one)

    def measure(size: int, first: bool = False) -> Evaluation:
        batches = sweep(store, split, size, plan.batch.batching)
        return evaluate(
            model,
            through(itertools.islice(batches, 1) if first else world.share(batches)),
            plan.task,
            device=plan.device,
            precision=plan.precision,
            memory_format=plan.memory_format,
            text_bytes=store.dataset.text_bytes.get(split, 0),
            labels=store.dataset.labels,
            unit=store.dataset.table.deviation if store.dataset.table is not None else 1.0,
            add_up=world.add_up,
            inference=world.size == 1,
            one_by_one=one_by_one and not first,
        )

    for attempt in room.sweeps(measure, state):
        with attempt:
            found = measure(room.evaluation)
    return found


def validate(
    plan: Plan,
    model: nn.Module,
    store: Store,
    state: State,
    schedule: Schedule,
    checkpoints: Checkpoints,
    asked: Asked,
    room: Room,
    emit: Emit,
) -> None:
    """Measure the validation split after ``state.step`` steps and keep the weights if they are the best so far.

    Weights whose loss there is no number are never the best.

    Raises:
        LeftOff: a signal asked for the end; nothing has changed.
    """
    began = time.perf_counter()
    metrics = evaluate_split(plan, model, store, "validation", asked.through, room, state, asked.world).metrics
    metric, value = plan.stop.metric, metrics[plan.stop.metric]
    better = math.isfinite(metrics["loss"]) and (
        not state.best or (value > state.best[metric] if plan.stop.higher_is_better else value < state.best[metric])
    )
    state.evaluated_step = state.step
    state.since_best += 1
    if better:
        state.best, state.best_step, state.since_best = metrics, state.step, 0
        checkpoints.save_best(state, model)
    rate = schedule.rate(max(state.step - 1, 0))
    schedule.evaluated(value, plan.stop.higher_is_better)
    epoch = state.step / plan.optim.steps_per_epoch
    emit(Evaluated(state.step, epoch, metrics, better, rate, time.perf_counter() - began))
