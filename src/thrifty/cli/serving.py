"""From a trained model to one that answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from thrifty.cli.app import RUNS, Json, Runs, app, console, live_view, print_json
from thrifty.errors import BudgetError, unknown_name

Device = Annotated[
    str, typer.Option(metavar="cpu|cuda", help="that computes; cuda bundles of torch alone", show_default=False)
]


@app.command()
def compress(
    run: Annotated[Path, typer.Argument(help="a run folder")],
    max_drop: Annotated[str, typer.Option(help="of the metric: 0.5% of the figure before, or 0.004")] = "0.5%",
    objective: Annotated[
        str, typer.Option(help="latency, throughput, tokens (a second, of writing), size or energy")
    ] = "latency",
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

    with live_view() as show:
        made = api.compress(
            run, max_drop=max_drop, objective=objective, batch=batch, requests=requests, budget=budget, folder=out,
            runs=runs, emit=show,
        )  # fmt: skip
    place = out or run / "compressed"
    if as_json:
        print_json({"bundle": str(place), **made.model_dump(mode="json")})
    else:
        console().print(compression_view(made))
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
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Answer one raw input."""
    from thrifty import api

    answer = api.predict(bundle, source, device=device)
    if as_json:
        print_json(answer)
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
    precision: Annotated[
        str | None, typer.Option(help="of --to bundle: fp32, bf16; int8 by torch of models that write")
    ] = None,
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
            print_json(reports)


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
    # told of above the options, which fill the screen
    bundles: Annotated[list[Path] | None, typer.Argument(hidden=True)] = None,
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
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="certificate in PEM: HTTPS, gRPC too")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="its private key, in PEM")] = None,
    log_format: Annotated[str | None, typer.Option(metavar="FORM", help="log every request: text or json")] = None,
    deadline: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="what would come later is refused at once")
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="show on the terminal what each model does")] = False,
    otel: Annotated[str | None, typer.Option(metavar="URL", help="of a collector of traces, extra 'otel'")] = None,
    otel_share: Annotated[float, typer.Option(metavar="SHARE", help="of requests traced unasked", min=0, max=1)] = 0.1,
    device: Device = "cpu",
    engine: Annotated[str | None, typer.Option(metavar="ray", help="replicas under Ray Serve, extra 'ray'")] = None,
    replicas: Annotated[
        int | None, typer.Option(metavar="COUNT", help="with --engine ray, each on cores of its own", min=1)
    ] = None,
    ray_address: Annotated[str | None, typer.Option(metavar="HOST", help="of a Ray cluster to join, or auto")] = None,
    as_json: Annotated[bool, typer.Option("--json", hidden=True)] = False,
) -> None:
    """Serve bundles or runs by TensorFlow Serving's, OIP's and OpenAI's protocols."""
    from thrifty import api

    def ready(host: str, port: int) -> None:
        url = f"{'http' if tls_cert is None else 'https'}://{host}:{port}"
        if as_json:
            grpc = f"{host}:{grpc_port}" if grpc_port else None
            asks = [api.asking(each, url) for each in bundles or []]
            print(json.dumps({"url": url, "grpc": grpc, "ask": asks}), flush=True)
            return
        print(f"serving on {url}" + (f" and gRPC on {host}:{grpc_port}" if grpc_port else ""), flush=True)
        if bundles:
            print(f"ask it: {api.asking(bundles[0], url)}", flush=True)

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
        tls_cert=tls_cert,
        tls_key=tls_key,
        log_format=cast('Literal["text", "json"] | None', log_format),
        deadline_seconds=deadline,
        live=live,
        otel=otel,
        otel_share=otel_share,
        device=device,
        engine=engine,
        replicas=replicas,
        ray_address=ray_address,
        ready=ready,
    )
