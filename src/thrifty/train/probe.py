"""A few real steps, timed and thrown away: what a plan's step takes on this machine, and keeping its weights."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from thrifty import optim
from thrifty.data import STEPS_AHEAD, Ahead, Batch, Batches, Store
from thrifty.data.images.growth import growth_of
from thrifty.errors import BudgetError, JobError, ThriftyError
from thrifty.hardware.pages import keep_pages, keeping
from thrifty.models import build
from thrifty.models.init import initialise
from thrifty.models.recompute import recomputing
from thrifty.optim.release import releasing
from thrifty.optim.rows import use_rows
from thrifty.spec import Plan, Probed
from thrifty.train.checkpoint import Checkpoints, State
from thrifty.train.guard import Guard
from thrifty.train.room import Room
from thrifty.train.savings import with_savings
from thrifty.train.step import rehearse_step, take_step

WARM_UP_STEPS = 2
LEAST_STEPS = 5
# quick steps are timed for this long, or their first ones, before caches and clocks have settled, would decide
LEAST_SECONDS = 0.5
# characters of an error that are told
_SAID = 300


def probe_steps(plan: Plan, store: Store, folder: Path, *, seconds: float = 10.0) -> Probed:
    """Time a few optimizer steps of a model built for it, after two that warm up, and one checkpoint.

    Torch's random state is left as it was.

    Args:
        plan: what to try.
        store: prepared data.
        folder: a scratch checkpoint is written in it, and removed: the disk that the run will use.
        seconds: about the most that this takes; one step is timed at least, in smaller parts where memory is short.

    Raises:
        BudgetError: there is not the memory for it.
        JobError: real steps fail, as the trace did not show.
    """
    try:
        return _timed(plan, store, folder, seconds)
    except ThriftyError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:_SAID] or type(error).__name__
        what = f"the probe of {plan.precision} with {plan.batch.micro:,} samples at once failed: {said}"
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in said:
            raise BudgetError(what, mend="Pin fewer at once, by plan.micro_batch in the job.") from error
        raise JobError(
            what, mend="Real steps fail where traced ones do not: mend the model or the data, or pin another plan."
        ) from error


def _timed(plan: Plan, store: Store, folder: Path, seconds: float) -> Probed:
    keep_pages(keeping(plan.device, plan.checkpointing))
    torch.set_num_threads(plan.threads)
    generator_state = torch.get_rng_state()
    model = build(plan.model, plan.device)
    initialise(model, plan.init, plan.seed, plan.model)
    # compiling is priced beside what is measured here
    recomputing(with_savings(model, plan), plan.checkpointing).train()
    optimizer = optim.build(model, plan.optim, plan.precision, plan.seed, offload=plan.offload)
    used = use_rows(model, optimizer, store.dataset.vocabulary) if plan.rows == "used" else []
    growth = growth_of(plan, store.dataset)
    made = Batches(
        store,
        split="train",
        batch=plan.batch.size,
        micro=plan.batch.micro,
        seed=plan.seed,
        batching=plan.batch.batching,
        ranks=plan.devices,
        augment=plan.augment,
        label_smoothing=plan.label_smoothing,
        side_at=(lambda step: growth.mean_side) if growth is not None else None,
    )
    steps = made.typical_steps()
    following = dict(zip(steps, steps[1:] + steps[:1], strict=True)).get
    times: list[float] = []
    guard, state = Guard(plan.guard, model, {}), State()

    def rehearse(parts: list[Batch]) -> None:
        rehearse_step(plan, model, optimizer, parts, used, release)

    with (
        releasing(optimizer, plan.gradient_release) as release,
        Room(plan, model, lambda event: None) as room,
        Ahead(made, STEPS_AHEAD if plan.loading == "beside" and not room.watches else 0, following) as batches,
    ):
        room.take_up(state, batches, optimizer, lambda: None)
        started = time.perf_counter()
        index = 0
        while not times or not _enough(times, time.perf_counter() - started, seconds):
            state.step = steps[index % len(steps)]
            guard.begin()
            began = time.perf_counter()
            for attempt in room.attempts(state, batches, optimizer, guard, rehearse):
                with attempt:
                    take_step(plan, model, optimizer, batches.step(state.step), 0.0, used, release=release)
            if index >= WARM_UP_STEPS or began - started > seconds / 2:
                times.append(time.perf_counter() - began)
            index += 1
    with tempfile.TemporaryDirectory(prefix=".probe-", dir=folder) as scratch:
        save_s = _save_seconds(plan, Path(scratch), model, optimizer)
    torch.set_rng_state(generator_state)
    return Probed(step_s=tuple(times), save_s=save_s)


def _save_seconds(plan: Plan, folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    """Seconds that training loses to one checkpoint with new best weights: it waits, then shares its processors."""
    beside, state = plan.saving == "beside", State(step=1, best_step=1)
    with Checkpoints(folder, key="probe", beside=beside) as checkpoints:
        began = time.perf_counter()
        checkpoints.save_best(state, model)
        checkpoints.save(state, model, optimizer)
        held_s = time.perf_counter() - began
    for _ in checkpoints.news():
        pass
    return held_s + (checkpoints.writer_cpu_seconds / plan.threads if beside else 0.0)


def _enough(times: list[float], spent_s: float, most_s: float) -> bool:
    return spent_s > most_s or (len(times) >= LEAST_STEPS and sum(times) >= LEAST_SECONDS)
