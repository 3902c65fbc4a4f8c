"""The verbs in Python: each takes and returns plain things, and is a short straight call into the rooms below.

>>> from thrifty import api
>>> api.models()["resnet8"]  # doctest: +ELLIPSIS
'...'
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from thrifty.errors import BundleError, DataError, JobError, MissingExtraError, ThriftyError, unknown_name
from thrifty.files import write_atomic
from thrifty.runs import RunFolder, open_run
from thrifty.spec import (
    Compression,
    Dataset,
    Declared,
    Device,
    Job,
    Objective,
    Plan,
    Probed,
    load_job,
    parse_budget,
    raw_data,
    with_devices,
)
from thrifty.spec.events import Emit, Event, StageStarted
from thrifty.spec.folders import cache_folder

if TYPE_CHECKING:
    from thrifty.data import Store
    from thrifty.ledger import Entry, Ledger
    from thrifty.pipeline import Outcome
    from thrifty.spec.proposal import Proposal
    from thrifty.tune import Tuned

RUNS = Path("runs")


def silent(event: Event) -> None:
    """An ``emit`` that tells nobody."""


def open_ledger(runs: Path = RUNS) -> Ledger:
    """Open the ledger: ``$THRIFTY_LEDGER`` (a file or a database URL), else ``ledger.sqlite`` in the runs folder."""
    from thrifty.ledger import Ledger  # its database takes a third of a second to load, which serving can do without

    return Ledger(os.environ.get("THRIFTY_LEDGER") or runs / "ledger.sqlite")


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


def tune(job: Path, *, budget: str, trials: int = 50, runs: Path = RUNS, emit: Emit = silent) -> Tuned:
    """Search for better hyper-parameters inside a budget such as ``10min``, ``0.02kWh`` or ``0.10USD``.

    Raises:
        JobError: the budget is none, or the job pins several devices.
        BudgetError: not one trial ended within it.
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
    with closing(open_ledger(runs)) as ledger:
        return tuning.tune(wanted, limit, key=run_key(wanted), trials=trials, runs=runs, ledger=ledger, emit=emit)


def compress(
    run: Path,
    *,
    max_drop: str = "0.5%",
    objective: str = "latency",
    batch: int = 1,
    requests: float = 1e6,
    budget: str = "10min",
    folder: Path | None = None,
    runs: Path = RUNS,
    emit: Emit = silent,
) -> Compression:
    """Make a bundle of a run's that answers for less and not worse; the guard's verdict and the bill are in it.

    Args:
        run: that is done.
        max_drop: of the job's metric: ``0.5%`` of the figure before, or ``0.004`` in its unit.
        objective: ``latency`` of a request, ``throughput``, ``size`` or ``energy``.
        batch: rows of a request.
        requests: that will be answered; a trial that could not pay back within as many is not run.
        budget: of the search, such as ``10min``, ``0.02kWh`` or ``0.10USD``.
        folder: of the new bundle; ``compressed`` in the run's when left out.
        runs: folder of the ledger.
        emit: is told what happens.

    Raises:
        JobError: an argument cannot be meant.
        DataError: there is no such run, its data has changed, or the ledger does not know it.
        BundleError: its bundle is damaged.
    """
    from thrifty.compress import Wish, compress_run, parse_drop
    from thrifty.pipeline import write_report

    allowed, limit, known = parse_drop(max_drop), parse_budget(budget), get_args(Objective)
    if objective not in known:
        raise unknown_name("objective", objective, known)
    if batch < 1 or not requests > 0:
        raise JobError(f"a batch of {batch} rows, {requests:g} requests", mend="Both are above 0.")
    if (run / "bundle.json").is_file():
        made_by = run_of(run)
        raise JobError(
            f"'{run}' is a bundle, and what is compressed is a run: its held-out rows judge",
            mend=f"Compress the run that made it: thrifty compress {made_by or 'RUN'}.",
        )
    place = open_run(run)
    place.result()
    wish = Wish(allowed, cast("Objective", objective), batch, requests, limit)
    with closing(open_ledger(runs)) as ledger:
        made = compress_run(place, wish, folder or place.folder / "compressed", ledger=ledger, emit=emit)
        write_report(place, _entry(ledger, place))
    return made


def report(run: Path, *, runs: Path = RUNS) -> Path:
    """Write the page of a run anew and return its path; of one that is under way or broke off, as far as it came.

    Raises:
        DataError: there is no such run, or the ledger does not know it.
        BundleError: it has no plan yet.
    """
    from thrifty.pipeline import write_report

    folder = open_run(run)
    with closing(open_ledger(runs)) as ledger:
        return write_report(folder, _entry(ledger, folder))


def bill(run: Path, *, runs: Path = RUNS) -> Entry:
    """Return a run's line of the ledger."""
    with closing(open_ledger(runs)) as ledger:
        return _entry(ledger, open_run(run))


def _entry(ledger: Ledger, folder: RunFolder) -> Entry:
    entry = ledger.entry(folder.folder)
    if entry is None:
        raise DataError(f"the ledger has no line for run '{folder.folder}'", mend="Was it made with another ledger?")
    return entry


def entries(*, runs: Path = RUNS, limit: int = 50) -> list[Entry]:
    """Return the ledger, the worst prediction first."""
    with closing(open_ledger(runs)) as ledger:
        return ledger.entries(limit=limit)


def bundle_folder(path: Path) -> Path:
    """Return the bundle meant by a path: a bundle itself, or the run that made it.

    Raises:
        DataError: there is neither.
    """
    for folder in (path, path / "bundle"):
        if (folder / "bundle.json").is_file():
            return folder
    if path.is_dir() and (path / "key").is_file():
        raise DataError(f"run '{path}' has no bundle yet", mend="Finish it: thrifty run its job.")
    if (path / "parity.json").is_file():
        raise DataError(
            f"'{path}' holds files for other runtimes, not a bundle",
            mend=f"Take what they were made of, or write a bundle: thrifty export {run_of(path) or 'RUN'} --to bundle.",
        )
    return open_run(path).bundle


def run_of(path: Path) -> Path | None:
    """Return the run in whose folder a bundle or an export lies, None where there is none."""
    return next((each for each in path.parents if (each / "key").is_file()), None)


def predict(bundle: Path, source: str) -> dict[str, Any]:
    """Answer one raw input: the path of an image file, a text to classify, a prompt for a language model, a row of
    a table as JSON.

    Raises:
        BundleError: the bundle is damaged.
        DataError: the input cannot be read.
    """
    from thrifty.export.bundle import load_bundle

    loaded = load_bundle(bundle_folder(bundle))
    if loaded.form.takes != "bytes":
        return loaded.predict(source)
    path = Path(source)
    if not path.is_file():
        raise DataError(f"there is no file '{path}'", mend=f"The model takes {loaded.form.says}.")
    return loaded.predict(path.read_bytes())


Report = dict[str, Any]


def export(
    run: Path, *, to: str, folder: Path | None = None, done: Callable[[str, Report], None] = lambda name, report: None
) -> dict[str, Report]:
    """Write a bundle in other formats and check each against torch; returns the parity reports by format.

    Args:
        run: a run, or a bundle; one that another engine than torch computes goes to that engine's own format alone.
        to: formats, with commas: ``onnx``, ``torch``, ``aoti``, ``openvino``, ``litert``, ``savedmodel``, ``hf``.
        folder: where to, with a folder for each format where there are several; beside the run's other exports when
            left out.
        done: is told of each format that was written.

    Raises:
        JobError: a format is not known, or the bundle has no way there.
        BundleError: an exported model does not give torch's answers; of several formats once all others are written.
        MissingExtraError: the packages of a format are not installed.
    """
    from thrifty.export.check import read_info
    from thrifty.export.targets import OF_ENGINE, TARGETS

    names = [name.strip() for name in to.split(",")]
    for name in names:
        if name not in TARGETS:
            raise unknown_name("export format", name, [*TARGETS, "bundle", "kserve"])
    bundle = bundle_folder(run)
    engine = read_info(bundle).engine
    if odd := [name for name in names if name not in OF_ENGINE[engine]]:
        known = " and ".join(OF_ENGINE[engine]) or "no other format"
        raise JobError(
            f"'{bundle}' is computed by '{engine}' and holds no torch model: it goes to {known}, not to {odd[0]}",
            mend=f"Export the model as it was trained: thrifty export {run_of(bundle) or 'RUN'} --to {','.join(odd)}.",
        )
    from thrifty.export.bundle import load_bundle
    from thrifty.export.targets.served import Source

    source = Source(load_bundle(bundle))
    reports: dict[str, Report] = {}
    failed: dict[str, ThriftyError] = {}
    for name in names:
        place = (folder / name if len(names) > 1 else folder) if folder else _exports_of(bundle) / name
        try:
            report = TARGETS[name](source, place)
        except (BundleError, JobError, MissingExtraError) as error:
            if len(names) == 1:
                raise
            failed[name] = error
            continue
        reports[name] = {"path": str(place / report["file"]), **report}
        done(name, reports[name])
    if failed:
        raise BundleError(f"not written: {'; '.join(f'{name}: {error.what}' for name, error in failed.items())}")
    return reports


def _exports_of(bundle: Path) -> Path:
    """Return the folder of what a bundle is exported to; that of a run's own is the run's."""
    place = bundle.parent / "export"
    return place if bundle.name == "bundle" else place / bundle.name


def formats(bundle: Path) -> tuple[str, ...]:
    """Return the formats that a bundle can be written in: that which computes it says which.

    Raises:
        DataError: there is no bundle.
        BundleError: it is damaged.
    """
    from thrifty.export.check import read_info
    from thrifty.export.targets import OF_ENGINE

    return OF_ENGINE[read_info(bundle_folder(bundle)).engine]


def export_bundle(
    run: Path, *, engine: str = "openvino", precision: str | None = None, folder: Path | None = None
) -> dict[str, Any]:
    """Write a bundle that another engine computes, compared with what it is made of; served and asked like any.

    Args:
        run: a run, or a bundle that torch computes.
        engine: ``openvino``, ``onnx``, ``aoti`` or ``torch``.
        precision: one of the engine's; its first when left out.
        folder: where to; beside the run's other exports when left out.

    Returns:
        ``path``, ``engine``, ``precision``, ``bytes``, and the largest relative difference of logits.

    Raises:
        JobError: there is no such engine or precision, or the bundle holds no torch model.
        BundleError: it answers otherwise than the bundle that it is made of.
        MissingExtraError: the package of the engine is not installed.
    """
    from thrifty.export.bundle import load_bundle, rewrite_bundle
    from thrifty.export.check import read_info

    place = bundle_folder(run)
    if (computed_by := read_info(place).engine) != "torch":
        raise JobError(
            f"'{place}' is computed by '{computed_by}' and holds no torch model to make another of",
            mend=f"Take it as it was trained: thrifty export {run_of(place) or 'RUN'} --to bundle --engine {engine}.",
        )
    source = load_bundle(place)
    named = f"bundle-{engine}-{precision}" if precision else f"bundle-{engine}"
    target = folder or _exports_of(place) / named
    info, apart = rewrite_bundle(target, source, engine=engine, precision=precision)
    return {
        "path": str(target),
        "engine": info.engine,
        "precision": info.precision,
        "bytes": sum((target / name).stat().st_size for name in info.files),
        "max_difference": apart,
    }


def export_kserve(
    run: Path, *, image: str | None = None, storage_uri: str | None = None, folder: Path | None = None
) -> dict[str, Any]:
    """Write what serves a bundle by KServe on Kubernetes: a manifest and a Dockerfile; what it takes is measured here.

    Args:
        run: a run, or a bundle of any engine.
        image: of the server, with its registry; ``thrifty:VERSION`` when left out.
        storage_uri: where the bundle's folder will lie, such as ``s3://bucket/pets``; a claim when left out.
        folder: where to; beside the run's other exports when left out.

    Returns:
        ``path`` of the manifest, ``image``, ``storage_uri``, ``memory_bytes``, ``cores``, and ``secret`` of API keys.

    Raises:
        JobError: a storage URI that is none, or a system that does not tell what a process holds.
        BundleError: the bundle is damaged, or does not answer.
    """
    from thrifty.serve.kserve import write_kserve

    bundle = bundle_folder(run)
    return write_kserve(bundle, folder or _exports_of(bundle) / "kserve", image=image, storage_uri=storage_uri)


def serve(
    bundles: list[Path],
    *,
    host: str,
    port: int,
    labels: Sequence[str] = (),
    repository: Path | None = None,
    grpc_port: int | None = None,
    watch: Path | None = None,
    api_key_file: Path | None = None,
    log_format: Literal["text", "json"] | None = None,
    deadline_seconds: float | None = None,
    live: bool = False,
    otel: str | None = None,
    otel_share: float = 0.1,
    engine: str | None = None,
    replicas: int | None = None,
    ray_address: str | None = None,
    ready: Callable[[str, int], None] = lambda host, port: None,
) -> None:
    """Serve bundles until the process is told to end.

    Args:
        bundles: or the runs that made them.
        host, port, labels, repository, grpc_port, watch, api_key_file, log_format: as of `thrifty.serve.run`.
        live, otel, otel_share, ready: as of it, too.
        deadline_seconds: that an answer may take.
        engine: ``ray`` for replicas under Ray Serve; None for one server.
        replicas: one when left out.
        ray_address: of a Ray cluster to join.

    Raises:
        BundleError: a bundle is damaged.
        JobError: options do not go together, or the address cannot be had.
    """
    from thrifty import serve as server

    limits = None if deadline_seconds is None else server.Limits(deadline_seconds=deadline_seconds)
    if engine not in (None, "ray"):
        raise unknown_name("engine of serving", engine, ["ray"])
    if engine is None and (replicas is not None or ray_address is not None):
        raise JobError("replicas and an address of Ray are of --engine ray", mend="Add it, or leave them out.")
    if engine == "ray":
        others = {"--repository": repository, "--grpc-port": grpc_port, "--watch": watch, "--otel": otel}
        if given := [option for option, value in {**others, "--live": live or None}.items() if value is not None]:
            raise JobError(
                f"{' and '.join(given)} cannot be had with --engine ray",
                mend="Each replica would do it for itself alone; leave it out.",
            )
        server.run_replicas(
            [bundle_folder(path) for path in bundles],
            replicas=1 if replicas is None else replicas,
            address=ray_address,
            host=host,
            port=port,
            limits=limits,
            labels=labels,
            api_key_file=api_key_file,
            log_format=log_format,
            ready=ready,
        )
        return
    server.run(
        [bundle_folder(path) for path in bundles],
        host=host,
        port=port,
        limits=limits,
        labels=labels,
        repository=repository,
        grpc_port=grpc_port,
        watch=watch,
        api_key_file=api_key_file,
        log_format=log_format,
        live=live,
        otel=otel,
        otel_share=otel_share,
        ready=ready,
    )


def asking(bundle: Path, url: str) -> str:
    """Return a command of a shell that asks a served bundle.

    Raises:
        DataError: there is no bundle.
        BundleError: it is damaged.
    """
    from thrifty.export.check import read_info
    from thrifty.serve.example import command

    return command(read_info(bundle_folder(bundle)), url)


def models() -> dict[str, str]:
    """Return the models by name, each with a line about it."""
    from thrifty.models import MODELS

    return {name: recipe.says for name, recipe in MODELS.items()}
