"""The command line: one subcommand a verb; results to stdout, progress to stderr, exit 0 only on success."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from thrifty.errors import BudgetError, ThriftyError, unknown_name

if TYPE_CHECKING:
    from rich.console import Console

    from thrifty.report.live import LiveView

app = typer.Typer(
    help="Deep learning for the least compute: plan, train and serve, with the bill shown at every stage.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="print the result as JSON")]
Devices = Annotated[
    int | None, typer.Option(help="devices of this machine that train together; else what the job pins, or one", min=1)
]
Runs = Annotated[Path, typer.Option("--runs", help="folder of all runs")]
RUNS = Path("runs")


def main() -> None:
    """Run the command line; an error a user can mend is one line on stderr and an exit code of its own."""
    try:
        app()
    except ThriftyError as error:
        print(f"thrifty: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)


@app.command()
def init(
    data: Annotated[Path, typer.Argument(help="a folder of raw data, or a table of texts")],
    to: Annotated[Path, typer.Option(help="the job file to write")] = Path("job.yaml"),
    task: Annotated[str | None, typer.Option(help="mask, to learn hidden words of texts; else told from it")] = None,
    as_json: Json = False,
) -> None:
    """Look at the data, write a starter job."""
    from thrifty import api

    says = api.init(data, to, task)
    if as_json:
        _print_json({"says": says, "job": str(to)})
    else:
        print(f"{says}\nwrote {to}; edit anything, then: thrifty plan {to}")


@app.command()
def hardware(
    measure: Annotated[bool, typer.Option("--measure", help="measure again")] = False,
    everything: Annotated[bool, typer.Option("--all", help="the catalogue of devices that need not be here")] = False,
    as_json: Json = False,
) -> None:
    """Show what this machine can do, measured beside its datasheet."""
    from thrifty import api

    if everything:
        _show_catalogue(as_json)
        return
    from thrifty.hardware import comparison
    from thrifty.report import hardware_table

    devices = api.hardware(remeasure=measure)
    if as_json:
        _print_json([device.model_dump(mode="json") for device in devices])
    for device in [] if as_json else devices:
        _console().print(hardware_table(device, comparison(device)))


def _show_catalogue(as_json: bool) -> None:
    from thrifty.hardware import catalogue_rows
    from thrifty.report import catalogue_table

    if as_json:
        _print_json(list(catalogue_rows()))
    else:
        _console().print(catalogue_table())


@app.command()
def models(as_json: Json = False) -> None:
    """List the models that a job can name."""
    from thrifty import api

    if as_json:
        _print_json(api.models())
    named = {} if as_json else api.models()
    widest = max(map(len, named), default=0)
    for name, says in named.items():
        print(f"{name:<{widest}} {says}")


@app.command()
def plan(
    job: Annotated[Path, typer.Argument(help="a job file")],
    on: Annotated[str, typer.Option(help="h100:8, a100-80g:8x128, my-chip.yaml, or any; else this machine")] = "",
    allow: Annotated[list[str] | None, typer.Option(help="a move that may change what is learned")] = None,
    top: Annotated[int, typer.Option(help="rows at most", min=1)] = 4,
    probe: Annotated[bool, typer.Option("--probe", help="run a few real steps of the best ways")] = False,
    html: Annotated[Path | None, typer.Option(help="write a page too")] = None,
    devices: Devices = None,
    runs: Runs = RUNS,
    as_json: Json = False,
) -> None:
    """Say what each way of doing a job will cost, the cheapest first, and why; trains nothing."""
    from thrifty import api
    from thrifty.report import proposal_view, write_proposal
    from thrifty.spec import Declared, load_job

    with _live(as_json) as show:
        proposal = api.plan(job, on=on, allow=allow or (), top=top, probe=probe, devices=devices, runs=runs, emit=show)
    if html is not None:
        write_proposal(html, proposal)
    if as_json:
        print(proposal.model_dump_json(indent=1))
    else:
        _console().print(proposal_view(proposal))
        if html is not None:
            print(f"page  {html}")
        if proposal.fits and proposal.plan is not None and not isinstance(load_job(job).data, Declared):
            print(f"run it: thrifty run {job}")
    if not proposal.fits:
        raise BudgetError(f"nothing fits {proposal.where}", mend=f"Smallest change: {proposal.would_fit[0]}.")


@app.command()
def run(
    job: Annotated[Path, typer.Argument(help="a job file")],
    devices: Devices = None,
    strict: Annotated[bool, typer.Option("--strict", help="fail where anything of the data is not used")] = False,
    runs: Runs = RUNS,
    as_json: Json = False,
) -> None:
    """Prepare, build, initialise, train, validate, bundle; with the bill."""
    from thrifty import api
    from thrifty.report.held_out import held_out_line
    from thrifty.report.rows import Aside
    from thrifty.report.tables import bill

    with _live(as_json) as show:
        outcome = api.run(job, devices=devices, strict=strict, runs=runs, emit=show)
    result = outcome.result
    if as_json:
        _print_json(
            {
                "folder": str(outcome.folder),
                "fresh": outcome.fresh,
                "result": result.model_dump(mode="json"),
                "bill": outcome.entry.model_dump(mode="json"),
            }
        )
        return
    if not outcome.fresh:
        print(f"{outcome.folder} is done already: same job, same data, same code; prepared nothing, trained nothing")
    _console().print(bill(outcome.entry, Aside(result.wasted_s, result.rank_bytes, result.loading_share)))
    print(f"\nresult  {held_out_line(result.test)}")
    if result.completion:
        print(f"prompt, and after ▸ what the model wrote:\n{result.prompt}▸{result.completion}")
    print(f"page    {outcome.folder / 'report.html'}")
    print(f"bundle  {outcome.folder / 'bundle'}   serve it: thrifty serve {outcome.folder}")
    print(f"have it answer for less: thrifty compress {outcome.folder}")


@app.command()
def tune(
    job: Annotated[Path, typer.Argument(help="a job file")],
    budget: Annotated[str, typer.Option(help="what the search may take, such as 10min, 0.02kWh, 0.10USD")],
    trials: Annotated[int, typer.Option(help="trials at most")] = 50,
    runs: Runs = RUNS,
    as_json: Json = False,
) -> None:
    """Spend a budget on finding better hyper-parameters."""
    from thrifty import api
    from thrifty.report import tuning_table

    with _live(as_json) as show:
        tuned = api.tune(job, budget=budget, trials=trials, runs=runs, emit=show)
    if as_json:
        _print_json(tuned.model_dump(mode="json"))
        return
    _console().print(tuning_table(tuned.metric, tuned.search.trials, tuned.search.best))
    print(f"best job  {tuned.best_job}   run it: thrifty run {tuned.best_job}")


@app.command()
def compress(
    run: Annotated[Path, typer.Argument(help="a run folder")],
    max_drop: Annotated[str, typer.Option(help="of the metric: 0.5% of the figure before, or 0.004")] = "0.5%",
    objective: Annotated[str, typer.Option(help="latency, throughput, size or energy")] = "latency",
    batch: Annotated[int, typer.Option(help="rows of a request", min=1)] = 1,
    requests: Annotated[float, typer.Option(help="that will be answered, within which the search pays back")] = 1e6,
    budget: Annotated[str, typer.Option(help="what the search may take, such as 10min, 0.02kWh, 0.10USD")] = "10min",
    out: Annotated[Path | None, typer.Option(help="the bundle; 'compressed' in the run's folder if left out")] = None,
    runs: Runs = RUNS,
    as_json: Json = False,
) -> None:
    """Make the bundle smaller and faster within a drop that the guard allows; with the pay-back."""
    from thrifty import api
    from thrifty.report import compression_view

    with _live(as_json) as show:
        made = api.compress(
            run, max_drop=max_drop, objective=objective, batch=batch, requests=requests, budget=budget, folder=out,
            runs=runs, emit=show,
        )  # fmt: skip
    place = out or run / "compressed"
    if as_json:
        _print_json({"bundle": str(place), **made.model_dump(mode="json")})
    else:
        _console().print(compression_view(made))
        print(f"bundle  {place}   serve it: thrifty serve {place}")
        if formats := api.formats(place):
            print(f"a file for another runtime: thrifty export {place} --to {formats[0]}")
    if not made.held:
        judged = made.test if made.test is not None and made.test.held == "over" else made.validation
        more = f"Hold out {judged.rows_needed:,} rows" if judged.rows_needed else "Allow more"
        raise BudgetError(
            f"a drop within {made.max_drop} is not proven: {judged.metric} fell by {judged.drop:.2g}, and by up to "
            f"{judged.high:.2g}",
            mend=f"{more}, or look at the trials. What was found is kept in '{place}'.",
        )


@app.command()
def predict(
    bundle: Annotated[Path, typer.Argument(help="a bundle, or the run that made it")],
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="a file of an image or a sound, a text, a prompt, or a row as JSON")
    ],
    as_json: Json = False,
) -> None:
    """Answer one raw input."""
    from thrifty import api

    answer = api.predict(bundle, source)
    if as_json:
        _print_json(answer)
    elif said := next((key for key in ("completion", "filled", "transcript", "value") if key in answer), None):
        print(answer[said])
    elif "labels" in answer:
        print(", ".join(f"{label}  {answer['probabilities'][label]:.4f}" for label in answer["labels"]) or "no label")
    else:
        print(f"{answer['label']}  {answer['probability']:.4f}")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="a run, or a bundle")],
    to: Annotated[
        str,
        typer.Option(help="formats, with commas: onnx, torch, aoti, openvino, litert, savedmodel, hf, bundle, kserve"),
    ] = "onnx",
    folder: Annotated[Path | None, typer.Option(help="where to; the run's export folder when left out")] = None,
    engine: Annotated[str, typer.Option(help="of --to bundle, computes it: openvino, onnx, aoti, torch")] = "openvino",
    precision: Annotated[str | None, typer.Option(help="of --to bundle: fp32, bf16")] = None,
    image: Annotated[str | None, typer.Option(help="of --to kserve: the server's image")] = None,
    storage_uri: Annotated[str | None, typer.Option(help="of --to kserve: where the bundle will lie")] = None,
    as_json: Json = False,
) -> None:
    """Write a bundle in another format, or for another engine, checked against torch."""
    from thrifty import api

    reports: dict[str, dict[str, Any]] = {}

    def done(name: str, report: dict[str, Any]) -> None:
        reports[name] = report
        if not as_json:
            _show_export(name, report)

    names = [name.strip() for name in to.split(",")]
    others = [name for name in names if name not in ("bundle", "kserve")]

    def place(name: str) -> Path | None:
        return folder / name if folder and len(names) > 1 else folder

    try:
        if others:
            api.export(run, to=",".join(others), folder=folder if len(others) > 1 else place(others[0]), done=done)
        if "bundle" in names:
            done("bundle", api.export_bundle(run, engine=engine, precision=precision, folder=place("bundle")))
        if "kserve" in names:
            done("kserve", api.export_kserve(run, image=image, storage_uri=storage_uri, folder=place("kserve")))
    finally:
        if as_json and reports:
            _print_json(reports)


def _show_export(name: str, report: dict[str, Any]) -> None:
    from thrifty.export.targets import READ_BY

    path, like = report["path"], report.get("compared_with", "torch")
    if name == "kserve":
        print(
            f"kserve  {path}  image {report['image']}, {report['cores']} cores, "
            f"{report['memory_bytes'] / 2**20:.0f} MiB; its first lines say what to do"
        )
        return
    print(f"{name}  {path}  largest difference from {like} {report['max_difference']:.2g}")
    for route, reason in report.get("fell_back", {}).items():
        print(f"  by {report['route']}, for {route} failed: {reason}")
    if name in READ_BY:
        print(f"  read it: {READ_BY[name].format(path=path, folder=Path(path).parent)}")
    if refused := report.get("decoder", {}).get("refused"):
        print(f"  no decoder that keeps keys and values: {refused}")
    if name == "bundle":
        print(f"  computed by {report['engine']} in {report['precision']}; serve it: thrifty serve {path}")


@app.command()
def serve(
    bundles: Annotated[list[Path] | None, typer.Argument(help="bundles, or the runs that made them")] = None,
    host: Annotated[str, typer.Option(metavar="NAME", help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", help="to listen on; 0 for a free one")] = 8501,
    label: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="of a version: stable=3, or MODEL:stable=3")
    ] = None,
    repository: Annotated[
        Path | None, typer.Option(metavar="DIR", help="of bundles that clients may load and unload")
    ] = None,
    grpc_port: Annotated[
        int | None, typer.Option(metavar="PORT", help="for gRPC, extra 'grpc'", min=1, max=65535)
    ] = None,
    watch: Annotated[
        Path | None, typer.Option(metavar="DIR", help="of NAME/VERSION/: the latest of each is served")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="keys, one a line; also: $THRIFTY_API_KEYS")
    ] = None,
    log_format: Annotated[str | None, typer.Option(metavar="FORM", help="log every request: text or json")] = None,
    deadline: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="what would come later is refused at once")
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="show on the terminal what each model does")] = False,
    otel: Annotated[str | None, typer.Option(metavar="URL", help="of a collector of traces, extra 'otel'")] = None,
    otel_share: Annotated[float, typer.Option(metavar="SHARE", help="of requests traced unasked", min=0, max=1)] = 0.1,
    engine: Annotated[str | None, typer.Option(metavar="ray", help="replicas under Ray Serve, extra 'ray'")] = None,
    replicas: Annotated[
        int | None, typer.Option(metavar="COUNT", help="with --engine ray, each on cores of its own", min=1)
    ] = None,
    ray_address: Annotated[str | None, typer.Option(metavar="HOST", help="of a Ray cluster to join, or auto")] = None,
) -> None:
    """Serve bundles by TensorFlow Serving's, OIP's and OpenAI's protocols."""
    from thrifty import api

    def ready(host: str, port: int) -> None:
        print(
            f"serving on http://{host}:{port}" + (f" and gRPC on {host}:{grpc_port}" if grpc_port else ""), flush=True
        )
        if bundles:
            print(f"ask it: {api.asking(bundles[0], f'http://{host}:{port}')}", flush=True)

    if log_format not in (None, "text", "json"):
        raise unknown_name("log format", str(log_format), ["text", "json"])
    api.serve(
        bundles or [],
        host=host,
        port=port,
        labels=label or [],
        repository=repository,
        grpc_port=grpc_port,
        watch=watch,
        api_key_file=api_key_file,
        log_format=cast('Literal["text", "json"] | None', log_format),
        deadline_seconds=deadline,
        live=live,
        otel=otel,
        otel_share=otel_share,
        engine=engine,
        replicas=replicas,
        ray_address=ray_address,
        ready=ready,
    )


@app.command()
def report(run: Annotated[Path, typer.Argument(help="a run folder")], runs: Runs = RUNS, as_json: Json = False) -> None:
    """Write a run's self-contained page."""
    from thrifty import api

    page = api.report(run, runs=runs)
    if as_json:
        _print_json({"page": str(page)})
    else:
        print(page)


@app.command()
def ledger(
    runs: Runs = RUNS,
    limit: Annotated[int, typer.Option(help="lines at most", min=1)] = 50,
    as_json: Json = False,
) -> None:
    """List every run, predicted beside measured, worst prediction first."""
    from thrifty import api
    from thrifty.report import ledger_table

    entries = api.entries(runs=runs, limit=limit)
    if as_json:
        _print_json([entry.model_dump(mode="json") for entry in entries])
    else:
        _console().print(ledger_table(entries))


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr)


@contextmanager
def _live(as_json: bool) -> Iterator[LiveView]:
    from thrifty.report.live import LiveView

    with LiveView(_console(stderr=True)) as view:
        yield view
