"""From raw data to a trained model, and what it took: init, plan, run, tune, report and the ledger."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thrifty.api.ledger import RUNS, entry_of, open_ledger, silent
from thrifty.errors import JobError, unknown_name
from thrifty.files import write_atomic
from thrifty.runs import open_run
from thrifty.spec import Dataset, Declared, Device, Job, Plan, Probed, load_job, parse_budget, raw_data, with_devices
from thrifty.spec.events import Emit, StageStarted
from thrifty.spec.folders import cache_folder

if TYPE_CHECKING:
    from thrifty.data import Store
    from thrifty.pipeline import Outcome
    from thrifty.spec.proposal import Proposal
    from thrifty.tune import Tuned, Way


def init(data: Path, to: Path, task: str | None = None) -> str:
    """Look at raw data and write a starter job for it; returns what was seen, in one line.

    Args:
        data: a folder, a table or an archive.
        to: the job's file.
        task: ``mask`` for texts whose words are hidden; told from the data when left out.

    Raises:
        DataError: nothing is recognised in the folder.
        JobError: ``to`` exists already, or no such task can be asked for.
    """
    import yaml

    from thrifty.data import look

    if to.exists():
        raise JobError(f"'{to}' exists already", mend="Choose another name with --to, or remove it.")
    seen = look(data, task=task)
    notes = "".join(f"# {note}\n" for note in (seen.says, *(f"{key}: {reason}" for key, reason in seen.why.items())))
    write_atomic(to, notes + yaml.safe_dump(seen.job, sort_keys=False, allow_unicode=True), purpose="the job")
    return seen.says


def hardware(*, remeasure: bool = False) -> tuple[Device, ...]:
    """Return what this machine can do, measured once and kept."""
    from thrifty import hardware

    return hardware.devices(remeasure=remeasure)


def models() -> dict[str, str]:
    """Return the models by name, each with a line about it."""
    from thrifty.models import MODELS

    return {name: recipe.says for name, recipe in MODELS.items()}


def schema(to: Path | None = None) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a job file, by which editors complete it.

    Args:
        to: a file to write it to, as well.

    Raises:
        StorageError: the file cannot be written.

    >>> schema()["title"]
    'Job'
    """
    from thrifty.names import named_schema

    made = named_schema()
    if to is not None:
        write_atomic(to, json.dumps(made, indent=1, ensure_ascii=False) + "\n", purpose="the schema")
    return made


def plan(
    job: Path,
    *,
    on: str = "",
    allow: Sequence[str] = (),
    top: int = 4,
    probe: bool = False,
    devices: int | None = None,
    runs: Path = RUNS,
    emit: Emit = silent,
) -> Proposal:
    """Price the ways of doing a job without training, here or on any machine; prepares the data where there is some.

    Args:
        job: the job file.
        on: a device or cluster such as ``h100:8`` or ``a100-80g:8x128``, a file such as ``my-chip.yaml``, or ``any``
            for the whole catalogue; this machine when left out.
        allow: marked moves that may be taken, such as ``fp8``.
        top: rows of the table, beside the usual way.
        probe: run a few real steps of the best ways here, and report what the prediction missed.
        devices: of this machine that train together; what the job pins when left out.
        runs: folder of the ledger, whose residuals correct predictions on this machine.
        emit: is told of the preparation, and which stage is at work.

    Raises:
        ThriftyError: of the kind that fits.
    """
    from thrifty import planner
    from thrifty.hardware import catalogue_clusters, find_cluster

    wanted = with_devices(load_job(job), devices)
    if on and devices is not None:
        raise JobError(f"--devices is of this machine, and --on is '{on}'", mend=f"Say it there: {on}:{devices}.")
    if on and probe:
        raise JobError(f"--probe runs steps on this machine, not on '{on}'", mend="Leave out one of --probe and --on.")
    dataset, store = _data(wanted, emit)
    if on:
        emit(StageStarted("plan"))
    if on == "any":
        return planner.survey(wanted, dataset, catalogue_clusters(), allowed=allow)
    if on:
        return planner.cluster_plan(wanted, dataset, find_cluster(on), allowed=allow, top=top)
    return _plan_here(wanted, dataset, store, allow=allow, top=top, probe=probe, runs=runs, emit=emit)


def _data(job: Job, emit: Emit) -> tuple[Dataset, Store | None]:
    """Prepare a job's data; of declared data there is no store."""
    from thrifty.data import prepare
    from thrifty.planner import declared_dataset

    if isinstance(job.data, Declared):
        return declared_dataset(job.data), None
    emit(StageStarted("prepare"))
    store = prepare(raw_data(job), seed=job.train.seed, cache=cache_folder(), emit=emit)
    return store.dataset, store


def _plan_here(
    job: Job,
    dataset: Dataset,
    store: Store | None,
    *,
    allow: Sequence[str],
    top: int,
    probe: bool,
    runs: Path,
    emit: Emit,
) -> Proposal:
    from thrifty import hardware, planner
    from thrifty.pipeline import run_key

    if probe and store is None:
        raw_data(job)
    emit(StageStarted("hardware"))
    device = hardware.here(kind=job.plan.device)
    emit(StageStarted("plan"))
    with closing(open_ledger(runs)) as ledger, tempfile.TemporaryDirectory(prefix="thrifty-probe-") as scratch:
        return planner.propose_here(
            job,
            dataset,
            device,
            key=run_key(job) if store else "declared",
            history=planner.seen(ledger.entries(limit=planner.HISTORY, worst_first=False), device.name),
            probe=_prober(store, Path(scratch)) if probe and store else None,
            allowed=allow,
            top=top,
        )


def _prober(store: Store, scratch: Path) -> Callable[[Plan], Probed]:
    from thrifty.train import probe_steps

    return lambda draft: probe_steps(draft, store, scratch)


def run(
    job: Path, *, devices: int | None = None, strict: bool = False, runs: Path = RUNS, emit: Emit = silent
) -> Outcome:
    """Carry a job the whole way, from raw files to a bundle with its bill; goes on where an attempt ended.

    Args:
        job: the job file.
        devices: that train together; what the job pins when left out.
        strict: data of which anything is not used is an error.
        runs: folder of all runs.
        emit: is told what happens.

    Raises:
        ThriftyError: of the kind that fits.
    """
    from thrifty import pipeline

    wanted = with_devices(load_job(job), devices)
    with closing(open_ledger(runs)) as ledger:
        text = job.read_text(encoding="utf-8")
        return pipeline.run(wanted, text, runs=runs, ledger=ledger, emit=emit, strict=strict)


def tune(
    job: Path, *, budget: str, way: Way | None = None, trials: int | None = None, runs: Path = RUNS, emit: Emit = silent
) -> Tuned:
    """Search for better settings inside a budget such as ``10min``, ``0.02kWh`` or ``0.10USD``.

    Args:
        job: the job file.
        budget: of the whole search.
        way: how to search, `thrifty.tune.Way`; as the job's section ``tune`` says when left out.
        trials: configurations at most, in the place of the way's.
        runs: folder of all runs.
        emit: is told what happens.

    Raises:
        JobError: the budget is none, the job pins several devices, or what may be tried cannot be meant.
        BudgetError: it holds not the least part of one trial.
        StorageError: the study's database cannot be had.
    """
    from thrifty import tune as tuning
    from thrifty.pipeline import run_key

    wanted = load_job(job)
    if wanted.plan.data not in (None, 1):
        raise JobError(
            f"plan.data is {wanted.plan.data}, and each trial runs on one device",
            mend="Leave it out of the job, and give it to the run that follows: thrifty run JOB --devices 2.",
        )
    limit = parse_budget(budget)
    how = way or tuning.Way()
    how = how if trials is None else how.model_copy(update={"trials": trials})
    with closing(open_ledger(runs)) as ledger:
        return tuning.tune(wanted, limit, how, key=run_key(wanted), runs=runs, ledger=ledger, emit=emit)


def report(run: Path, *, language: str = "en", beside: Path | None = None, runs: Path = RUNS) -> Path:
    """Write the page of a run anew and return its path; of one that is under way or broke off, as far as it came.

    Args:
        run: its folder.
        language: that the page opens in, ``en`` or ``zh``; it holds both.
        beside: a ``trainer_state.json`` of Hugging Face's trainer, whose curves are drawn beside the run's from now on.
        runs: folder of the ledger.

    Raises:
        DataError: there is no such run, the ledger does not know it, or ``beside`` is no such file.
        JobError: no such language.
    """
    from thrifty.pipeline import write_report
    from thrifty.report import LANGUAGES, read_trainer_state

    chosen = next((each for each in LANGUAGES if each == language), None)
    if chosen is None:
        raise unknown_name("language", language, LANGUAGES)
    folder = open_run(run)
    if beside is not None:
        folder.keep("beside", read_trainer_state(beside))
    with closing(open_ledger(runs)) as ledger:
        return write_report(folder, entry_of(ledger, folder), chosen)
