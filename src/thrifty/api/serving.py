"""From a trained model to one that answers: compress, predict, export and serve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, cast, get_args

from thrifty.api.ledger import RUNS, entry_of, open_ledger, silent
from thrifty.errors import BundleError, DataError, JobError, MissingExtraError, ThriftyError, unknown_name
from thrifty.runs import open_run
from thrifty.spec import Compression, Objective, parse_budget
from thrifty.spec.events import Emit

Report = dict[str, Any]


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
        objective: ``latency`` of a request, ``throughput``, ``tokens`` a second that a language model writes, ``size``
            or ``energy``.
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
        write_report(place, entry_of(ledger, place))
    return made


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


def predict(bundle: Path, source: str, *, device: str = "cpu") -> dict[str, Any]:
    """Answer one raw input: the path of an image file, a text to classify, a prompt for a language model, a row of
    a table as JSON; computed by the processor, or with ``device`` cuda by a GPU.

    Raises:
        BundleError: the bundle is damaged.
        DataError: the input cannot be read.
        JobError: the device cannot be had, or not for this bundle.
    """
    from thrifty.export.bundle import load_bundle

    loaded = load_bundle(bundle_folder(bundle), device=device)
    if loaded.form.takes != "bytes":
        return loaded.predict(source)
    path = Path(source)
    if not path.is_file():
        raise DataError(f"there is no file '{path}'", mend=f"The model takes {loaded.form.says}.")
    return loaded.predict(path.read_bytes())


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
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    log_format: Literal["text", "json"] | None = None,
    deadline_seconds: float | None = None,
    live: bool = False,
    otel: str | None = None,
    otel_share: float = 0.1,
    device: str = "cpu",
    engine: str | None = None,
    replicas: int | None = None,
    ray_address: str | None = None,
    ready: Callable[[str, int], None] = lambda host, port: None,
) -> None:
    """Serve bundles until the process is told to end.

    Args:
        bundles: or the runs that made them.
        host, port, labels, repository, grpc_port, watch, api_key_file, log_format: as of `thrifty.serve.run`.
        tls_cert, tls_key, live, otel, otel_share, device, ready: as of it, too.
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
        others: dict[str, object] = {"--repository": repository, "--grpc-port": grpc_port, "--watch": watch}
        others |= {"--tls-cert": tls_cert, "--tls-key": tls_key}
        others |= {"--otel": otel, "--live": live or None, "--device": None if device == "cpu" else device}
        if given := [option for option, value in others.items() if value is not None]:
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
        tls_cert=tls_cert,
        tls_key=tls_key,
        log_format=log_format,
        live=live,
        otel=otel,
        otel_share=otel_share,
        device=device,
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
