"""Tune a job: many configurations, most of them for a few epochs, inside a stated budget; read `tune` from the top."""

from __future__ import annotations

import hashlib
import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from thrifty import hardware, planner
from thrifty.data import Store, prepare
from thrifty.errors import BudgetError, JobError
from thrifty.files import hold, write_atomic
from thrifty.hardware.pages import give_back
from thrifty.ledger import Ledger
from thrifty.names import check_names
from thrifty.planner import Probe
from thrifty.runs import RunFolder
from thrifty.spec import Budget, Device, Job, Plan, Probed, Spent, raw_data
from thrifty.spec.events import Emit, Event, Paused, StageDone, StageStarted, Tried, WentOn
from thrifty.spec.folders import cache_folder
from thrifty.spec.plain import Plain
from thrifty.spec.tuning import Goal, Pruner, Sampler, Trial, Tune
from thrifty.train import probe_steps
from thrifty.tune.best import BUNDLE, JOB, write_job
from thrifty.tune.bill import Bill
from thrifty.tune.ladder import ladder
from thrifty.tune.pricing import Pricer
from thrifty.tune.proposals import check_sampler
from thrifty.tune.ray import check_ray, ray_workers
from thrifty.tune.record import Record
from thrifty.tune.search import Worker
from thrifty.tune.space import check_space, space_of, with_settings
from thrifty.tune.steering import Wheel
from thrifty.tune.storage import Study, read_url
from thrifty.tune.task import Aim, Task
from thrifty.tune.told import trial_of
from thrifty.tune.workers import Crew, Processes, follow, gpus_for, share_for

STUDY = "study.sqlite"


class Way(Plain):
    """How to search.

    Attributes:
        sampler, pruner, goal: as in the job's section ``tune``, where None is said; else ``tpe``, ``asha``, ``best``.
        trials: configurations at most.
        storage: URL of a study that others take part in; a file in the search's folder when left out.
        workers: processes that share this machine, or that Ray places.
        engine: ``local``, or ``ray``.
        address: of Ray's cluster; one on this machine when left out.
    """

    sampler: Sampler | None = None
    pruner: Pruner | None = None
    goal: Goal | None = None
    trials: int = 50
    storage: str | None = None
    workers: int = 1
    engine: Literal["local", "ray"] = "local"
    address: str | None = None


class Search(Plain):
    """How a search went; ``best`` is the number of the best trial."""

    trials: tuple[Trial, ...]
    best: int
    reason: str


class Tuned(Plain):
    """What a search found.

    Attributes:
        job: its name.
        goal: what was sought.
        metric, higher_is_better: the figure that trials are judged by.
        search: the trials.
        spent: the bill, earlier attempts included.
        best_job: file of the job to run next.
        bundle: folder of the best trial's bundle.
        target_seconds: for the goal ``cheapest``: what reaching the target is priced; else 0.
    """

    job: str
    goal: Goal
    metric: str
    higher_is_better: bool
    search: Search
    spent: Spent
    best_job: str
    bundle: str
    target_seconds: float = 0.0


def tune(job: Job, budget: Budget, way: Way, *, key: str, runs: Path, ledger: Ledger, emit: Emit) -> Tuned:
    """Search for better settings by the validation split; nothing goes by the test split.

    Args:
        job: its plan is the first trial.
        budget: of the whole search, earlier attempts at it included.
        way: how to search.
        key: content key of job, data and code: a search that was cut off goes on with its own trials alone.
        runs: the search lives in ``<runs>/<name>-tune``.
        ledger: gets the search as a run of its own.
        emit: is told what happens.

    Raises:
        BudgetError: not the least part of a trial fits the budget.
        JobError: the space holds what cannot be meant, or the goal needs a target.
        StorageError: the study's database cannot be had.
        SignalledError: a signal asked for the end; what was found is kept.
    """
    check_names(job)
    _check(job, way)
    folder = (runs / f"{job.name}-tune").absolute()
    with hold(folder, "search"):
        device = hardware.here(kind=job.plan.device)
        _check_cores(way, device)
        gpus = gpus_for(device, way.workers) if way.engine == "local" else ()
        bill = Bill(ledger, job, key, folder, device, boards=max(1, len(gpus)))
        place = RunFolder(folder)
        place.begin_search(budget)
        emit = _kept(place, bill, emit)
        emit(StageStarted("tune"))
        with bill.open():
            store = prepare(raw_data(job), seed=job.train.seed, cache=cache_folder(), emit=emit)
            task, pricer = _task(job, budget, way, key, store, device, gpus, folder, bill.earlier.wall_s)
            study = Study(task.url, task.key, rises=task.aim.rises, emit=emit)
            try:
                reason = _carried_out(task, way, study, store, pricer, bill, emit)
                records = study.records()
            finally:
                study.close()
                place.end_search()
                give_back()  # the caller's process may live on
            best = _best_of(records, task.aim, reason)
            write_job(folder / JOB, with_settings(task.job, best.settings, store.dataset))
        bill.close({task.aim.metric: task.aim.figure(best)}, reason)
        spent = bill.spent()
        emit(StageDone("tune", reason, spent))
    seconds = task.aim.seconds_to_target(best) if task.aim.goal == "cheapest" else 0.0
    return Tuned(
        job=job.name,
        goal=task.aim.goal,
        metric=task.aim.metric,
        higher_is_better=task.aim.rises,
        search=Search(
            trials=tuple(trial_of(each, task.aim) for each in records),
            best=best.number,
            reason=reason,
        ),
        spent=spent,
        best_job=str(folder / JOB),
        bundle=str(folder / BUNDLE),
        target_seconds=seconds,
    )


def _check(job: Job, way: Way) -> None:
    goal = way.goal or job.tune.goal or "best"
    if goal == "cheapest" and job.target is None:
        raise JobError("the goal is cheapest, and the job has no target to reach", mend="Give it one: target.")
    if way.workers < 1:
        raise JobError(f"{way.workers} workers try nothing", mend="Ask for one or more.")
    if way.trials < 1:
        raise JobError(f"{way.trials} trials find nothing", mend="Ask for one or more.")
    check_sampler(way.sampler or job.tune.sampler or "tpe")
    if way.storage is not None:
        read_url(way.storage)
    if way.engine == "ray":
        check_ray()
    check_space(job)


def _check_cores(way: Way, device: Device) -> None:
    if way.engine == "local" and device.kind == "cpu" and way.workers > device.cores:
        raise JobError(
            f"{way.workers} workers do not fit on {device.cores} cores",
            mend="Each has a core of its own: ask for fewer.",
        )


def _task(
    job: Job,
    budget: Budget,
    way: Way,
    key: str,
    store: Store,
    device: Device,
    gpus: tuple[str, ...],
    folder: Path,
    earlier_s: float,
) -> tuple[Task, Pricer]:
    """Say what is searched, and how; with what plans and prices it here."""
    goal: Goal = way.goal or job.tune.goal or "best"
    share = share_for(device, way.workers, max(1, len(gpus)))

    def probe(draft: Plan) -> Probed:
        return probe_steps(draft, store, folder)

    job = affordable(job, store, share, probe, folder, key)
    pricer = Pricer(job, store, share, probe=probe, targeted=goal == "cheapest")
    draft = pricer.plan({})
    space = space_of(job, draft, store.dataset)
    shares = ladder(draft.stop.steps, draft.optim.steps_per_epoch).shares
    metric = draft.stop.metric
    target = float(getattr(job.target, metric)) if goal == "cheapest" else math.nan
    said = json.dumps([key, {name: each.model_dump(mode="json") for name, each in space.items()}, goal, shares])
    task = Task(
        job=job.model_copy(update={"tune": Tune()}),
        key=hashlib.sha256(said.encode()).hexdigest()[:20],
        aim=Aim(goal=goal, metric=metric, rises=draft.stop.higher_is_better, target=target),
        space=space,
        shares=shares,
        sampler=way.sampler or job.tune.sampler or "tpe",
        pruner=way.pruner or job.tune.pruner or "asha",
        trials=way.trials,
        budget=budget,
        began_at=time.time(),
        earlier_s=earlier_s,
        url=way.storage or str(folder / STUDY),
        store=store.folder,
        folder=folder,
        device=share,
        workers=way.workers,
        gpus=gpus,
        seed=job.train.seed,
        path=tuple(sys.path),
        plans=pricer.plans,
    )
    return task, pricer


def affordable(job: Job, store: Store, device: Device, probe: Probe, folder: Path, key: str) -> Job:
    """Return a job as long as its own budget holds: what a run of it would be cut to is what is tuned.

    How long that is was measured when the search began, and stays when it is gone on with.
    """
    if all(limit is None for limit in (job.budget.time, job.budget.energy, job.budget.money)):
        return job
    path = folder / "length.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if known.get("key") != key:
        plan = planner.plan(job, store.dataset, device, key="trial", spent=Spent(), probe=probe)
        known = {"key": key, "steps": plan.stop.steps, "per_epoch": plan.optim.steps_per_epoch}
        write_atomic(path, json.dumps(known), purpose="the length of a trial")
    epochs = known["steps"] // known["per_epoch"]
    length = {"epochs": epochs, "steps": None} if epochs else {"epochs": None, "steps": known["steps"]}
    return job.model_copy(update={"train": job.train.model_copy(update=length)})


def _kept(place: RunFolder, bill: Bill, emit: Emit) -> Emit:
    """Keep what happens in the search's folder; its bill stands still while it waits."""
    writer = place.writer()

    def tell(event: Event) -> None:
        if isinstance(event, Paused):
            bill.rest()
        elif isinstance(event, WentOn):
            bill.go_on()
        writer(event)
        emit(event)

    return tell


def _carried_out(task: Task, way: Way, study: Study, store: Store, pricer: Pricer, bill: Bill, emit: Emit) -> str:
    """Have the workers work; returns why they stopped. The bill goes with them."""
    steer = RunFolder(task.folder).steering
    if way.workers == 1 and way.engine == "local":

        def tell(event: Event) -> None:
            emit(event)
            if isinstance(event, Tried):
                bill.note()

        return Worker(task, study, store, pricer, spent=bill.spent, emit=tell, steer=steer).work()
    wheel = Wheel(steer, task.budget, emit)

    def look() -> None:
        wheel.look()
        bill.note()

    with ExitStack() as stack:
        if way.engine == "ray":
            crew: Crew = stack.enter_context(ray_workers(task, way.address))
        else:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="thrifty-tune-"))
            crew = stack.enter_context(Processes(task, Path(scratch)).ended())
        return follow(crew, study, task.aim, emit=emit, look=look)


def _best_of(records: Sequence[Record], aim: Aim, reason: str) -> Record:
    known = [each for each in records if not math.isnan(aim.goodness(each))]
    if not known:
        raise BudgetError(f"no trial came to a validation: {reason}", mend="Raise --budget, or lower train.epochs.")
    return max(known, key=lambda each: (aim.goodness(each), -each.number))
