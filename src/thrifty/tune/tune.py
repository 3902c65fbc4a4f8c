"""Tune a job: many short real runs over learning rate, schedule and batch, inside a stated budget."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from thrifty import hardware, models, planner
from thrifty.data import Store, prepare
from thrifty.errors import SignalledError, ThriftyError
from thrifty.files import hold, write_atomic
from thrifty.hardware.pages import keep_pages, keeping
from thrifty.ledger import Ledger, Meter, Stage
from thrifty.models.init import initialise
from thrifty.names import check_names
from thrifty.spec import Budget, Device, Job, Plan, Spent, raw_data
from thrifty.spec.events import Emit, Evaluated, Event, Progress, StageDone, StageStarted, StepDone
from thrifty.spec.folders import cache_folder
from thrifty.spec.plain import Plain
from thrifty.spec.tuning import Settings
from thrifty.train import probe_steps, train
from thrifty.tune.search import Choice, Report, Search, search

SCHEDULES_TRIED = ("cosine", "linear", "step", "exponential", "fixed")
RATE_SPAN = 10.0
BATCH_FACTORS = (0.5, 1, 2, 4)


class Tuned(Plain):
    """What a search found: the trials, the figure they are judged by, the bill, and the job to run next."""

    job: str
    metric: str
    higher_is_better: bool
    search: Search
    spent: Spent
    best_job: str


def tune(job: Job, budget: Budget, *, key: str, trials: int, runs: Path, ledger: Ledger, emit: Emit) -> Tuned:
    """Search for better hyper-parameters by the validation split; the test split is never looked at.

    Args:
        job: its plan is the first trial.
        budget: of the whole search.
        key: content key of job, data and code: a search that was cut off goes on with its own trials alone.
        trials: at most.
        runs: the search lives in ``<runs>/<name>-tune``.
        ledger: gets the search as a run of its own.
        emit: is told what happens.

    Raises:
        BudgetError: not one trial ended within the budget.
    """
    check_names(job)
    folder = runs / f"{job.name}-tune"
    with hold(folder, "search"):
        device = hardware.here(kind=job.plan.device)
        meter = Meter(device)
        run_id = ledger.begin(
            name=f"{job.name}-tune",
            key=key,
            folder=folder,
            job=job.model_dump_json(),
            device=device,
            code="",
            pid=os.getpid(),
        )
        emit(StageStarted("tune"))
        try:
            with meter.stage() as stage:
                store = prepare(raw_data(job), seed=job.train.seed, cache=cache_folder(), emit=emit)
                trial = _Trial(_untargeted(job), store, device, folder / "trial", emit, budget, stage)
                draft = trial.plan({})
                # trials are compared by their validations in turn, so each makes as many
                looks = math.ceil(draft.stop.steps / draft.evaluate_every)
                trial.job = _with(trial.job, {"evaluations": looks})
                found = search(
                    _space(draft, store.dataset.counts["train"]),
                    trial.attempt,
                    database=folder / "study.sqlite",
                    name=key,
                    higher_is_better=draft.stop.higher_is_better,
                    trials=trials,
                    seconds_left=trial.seconds_left,
                    seed=job.train.seed,
                )
        except ThriftyError as error:
            status: Literal["stopped", "failed"] = "stopped" if isinstance(error, SignalledError) else "failed"
            ledger.finish(run_id, status=status, metrics={}, reason=str(error))
            raise
        finally:
            entry = ledger.entry(folder)
            assert entry is not None
            ledger.stage(run_id, entry.attempts, "tune", stage.spent())
        best = found.trials[found.best]
        ledger.finish(run_id, status="done", metrics={draft.stop.metric: best.value}, reason=found.reason)
        spent = stage.spent()
        emit(StageDone("tune", found.reason, spent))
        path = folder / "best.yaml"
        write_atomic(path, _job_text(_with(job, best.settings)), purpose="the best job")
    return Tuned(
        job=job.name,
        metric=draft.stop.metric,
        higher_is_better=draft.stop.higher_is_better,
        search=found,
        spent=spent,
        best_job=str(path),
    )


@dataclass
class _Trial:
    """Runs one trial for real; it is stopped when the budget of the whole search is spent."""

    job: Job
    store: Store
    device: Device
    folder: Path
    emit: Emit
    budget: Budget
    stage: Stage
    number: int = 0

    def plan(self, settings: Settings) -> Plan:
        job = _with(self.job, settings)
        limited = any(v is not None for v in (job.budget.time, job.budget.energy, job.budget.money))
        plan = planner.plan(
            job,
            self.store.dataset,
            self.device,
            key=f"trial-{self.number}",
            spent=Spent(),
            probe=(lambda draft: probe_steps(draft, self.store, self.folder.parent)) if limited else None,
        )
        budget = self.budget
        stop = {
            "seconds": budget.time or math.inf,
            "joules": budget.energy or math.inf,
            "usd": budget.money or math.inf,
        }
        return plan.model_copy(update={"stop": plan.stop.model_copy(update=stop)})

    def attempt(self, settings: Settings, report: Report) -> float:
        self.number += 1
        plan = self.plan(settings)
        validations = 0

        def emit(event: Event) -> None:
            nonlocal validations
            if isinstance(event, StepDone):
                self.emit(Progress(f"trial {self.number}", event.step, event.steps, "steps"))
            if isinstance(event, Evaluated):
                validations += 1
                report(validations, event.metrics[plan.stop.metric])

        shutil.rmtree(self.folder, ignore_errors=True)
        keep_pages(keeping(plan.device, plan.checkpointing))
        model = models.build(plan.model, seed=plan.seed)
        initialise(model, plan.init, plan.seed, plan.model)
        try:
            trained = train(plan, model, self.store, self.folder, emit=emit, spent=self.stage.spent)
        except SignalledError as error:
            kept = f"the trials before trial {self.number} are kept"
            raise SignalledError(kept, signal=error.signal, number=error.number) from None
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
        return trained.metrics[plan.stop.metric]

    def seconds_left(self) -> float:
        """Of the tightest of the budgets, at this device's full power and price."""
        spent, budget = self.stage.spent(), self.budget
        left = [
            (budget.time or math.inf) - spent.wall_s,
            ((budget.energy or math.inf) - spent.joules) / self.device.watts(1.0),
            ((budget.money or math.inf) - spent.usd) / max(self.device.usd_per_hour.value, 1e-9) * 3600,
        ]
        return min(left)


def _space(plan: Plan, samples: int) -> dict[str, Choice]:
    """Learning rate around the plan's, schedules, and batches around the plan's; full batches stay full."""
    rate = plan.optim.learning_rate
    space = {"learning_rate": Choice(first=rate, low=rate / RATE_SPAN, high=rate * RATE_SPAN)}
    space["schedule"] = Choice(
        first=plan.optim.schedule, values=tuple({plan.optim.schedule: 0, **dict.fromkeys(SCHEDULES_TRIED)})
    )
    if plan.batch.size < samples:
        sizes = sorted({min(max(int(plan.batch.size * factor), 1), samples) for factor in BATCH_FACTORS})
        space["batch"] = Choice(first=plan.batch.size, values=tuple(sizes))
    return space


def _untargeted(job: Job) -> Job:
    return job.model_copy(update={"target": None})


def _with(job: Job, settings: Settings) -> Job:
    return job.model_copy(update={"train": job.train.model_copy(update=settings)})


def _job_text(job: Job) -> str:
    return yaml.safe_dump(job.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True)
