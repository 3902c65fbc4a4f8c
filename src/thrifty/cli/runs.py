"""From raw data to a trained model, and what it took."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from thrifty.cli.app import RUNS, Devices, Json, Runs, app, console, live_view, print_json
from thrifty.errors import BudgetError, unknown_name
from thrifty.spec.tuning import Goal, Pruner, Sampler
from thrifty.spec.units import format_seconds


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
        print_json({"says": says, "job": str(to)})
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
        print_json([device.model_dump(mode="json") for device in devices])
    for device in [] if as_json else devices:
        console().print(hardware_table(device, comparison(device)))


def _show_catalogue(as_json: bool) -> None:
    from thrifty.hardware import catalogue_rows
    from thrifty.report import catalogue_table

    if as_json:
        print_json(list(catalogue_rows()))
    else:
        console().print(catalogue_table())


@app.command()
def models(as_json: Json = False) -> None:
    """List the models that a job can name."""
    from thrifty import api

    if as_json:
        print_json(api.models())
    named = {} if as_json else api.models()
    widest = max(map(len, named), default=0)
    for name, says in named.items():
        print(f"{name:<{widest}} {says}")


@app.command()
def schema(
    output: Annotated[Path | None, typer.Option(help="the file to write; else it is printed")] = None,
    as_json: Json = False,
) -> None:
    """Print the JSON Schema of job files, for editors."""
    from thrifty import api

    made = api.schema(output)
    if output is None or as_json:
        print_json(made if output is None else {"schema": str(output)})
    else:
        print(f"wrote {output}; first line of a job beside it: # yaml-language-server: $schema={output.name}")


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

    with live_view() as show:
        proposal = api.plan(job, on=on, allow=allow or (), top=top, probe=probe, devices=devices, runs=runs, emit=show)
    if html is not None:
        write_proposal(html, proposal)
    if as_json:
        print(proposal.model_dump_json(indent=1))
    else:
        console().print(proposal_view(proposal))
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

    with live_view() as show:
        outcome = api.run(job, devices=devices, strict=strict, runs=runs, emit=show)
    result = outcome.result
    if as_json:
        print_json(
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
    console().print(bill(outcome.entry, Aside(result.wasted_s, result.rank_bytes, result.loading_share)))
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
    trials: Annotated[int, typer.Option(help="configurations at most", min=1)] = 50,
    objective: Annotated[
        str | None, typer.Option(help="best, the best figure; or cheapest, the least cost to the target")
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="tpe, gp, random, grid; else tpe")] = None,
    pruner: Annotated[str | None, typer.Option(help="asha, hyperband, median, none; else asha")] = None,
    storage: Annotated[str | None, typer.Option(metavar="URL", help="a study others share: postgresql://…")] = None,
    workers: Annotated[int, typer.Option(help="processes that share the cores out", min=1)] = 1,
    engine: Annotated[str, typer.Option(help="starts the workers: local, or ray")] = "local",
    address: Annotated[str | None, typer.Option(help="of a Ray cluster; else one on this machine")] = None,
    runs: Runs = RUNS,
    as_json: Json = False,
) -> None:
    """Spend a budget on finding better settings; most are tried for a few epochs alone."""
    from thrifty import api
    from thrifty.report import tuning_view
    from thrifty.tune import Way

    for kind, name, known in (
        ("objective", objective, Goal), ("sampler", sampler, Sampler), ("pruner", pruner, Pruner),
        ("engine", engine, Literal["local", "ray"]),
    ):  # fmt: skip
        if name is not None and name not in get_args(known):
            raise unknown_name(kind, name, get_args(known))
    asked = {
        "goal": objective, "sampler": sampler, "pruner": pruner, "trials": trials, "storage": storage,
        "workers": workers, "engine": engine, "address": address,
    }  # fmt: skip
    with live_view() as show:
        tuned = api.tune(job, budget=budget, way=Way.model_validate(asked), runs=runs, emit=show)
    if as_json:
        print_json(tuned.model_dump(mode="json"))
        return
    console().print(tuning_view(tuned.metric, tuned.search.trials, tuned.search.best, tuned.spent))
    if tuned.target_seconds:
        print(f"the cheapest way to the target is priced {format_seconds(tuned.target_seconds)}")
    print(f"bundle    {tuned.bundle}   serve it: thrifty serve {tuned.bundle}")
    print(f"best job  {tuned.best_job}   run it: thrifty run {tuned.best_job}")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="a run folder")],
    language: Annotated[str, typer.Option(help="that the page opens in: en or zh")] = "en",
    beside: Annotated[Path | None, typer.Option(help="trainer_state.json of Hugging Face's trainer")] = None,
    runs: Runs = RUNS,
    as_json: Json = False,
) -> None:
    """Write a run's self-contained page."""
    from thrifty import api

    page = api.report(run, language=language, beside=beside, runs=runs)
    if as_json:
        print_json({"page": str(page)})
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
        print_json([entry.model_dump(mode="json") for entry in entries])
    else:
        console().print(ledger_table(entries))


@app.command("export-ledger")
def export_ledger(
    to: Annotated[str, typer.Option(help="csv or parquet")] = "csv",
    out: Annotated[Path | None, typer.Option(help="the file; else 'ledger' in the runs folder")] = None,
    runs: Runs = RUNS,
    as_json: Json = False,
) -> None:
    """Write the ledger as a table with units."""
    from thrifty import api

    path, count = api.export_ledger(to=to, out=out, runs=runs)
    if as_json:
        print_json({"path": str(path), "runs": count})
    else:
        print(path)
