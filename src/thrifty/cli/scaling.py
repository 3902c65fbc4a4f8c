"""Which model a budget should buy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thrifty.cli.app import RUNS, Json, Runs, app, console, live_view


@app.command()
def scale(
    job: Annotated[Path, typer.Argument(help="a job file; its model names the family")],
    budget: Annotated[str, typer.Option(help="what may be spent in all, such as 1e18flop, 10h, 2kWh, 50USD")],
    fit: Annotated[str, typer.Option(help="the most for small runs; else a quarter of it and an hour")] = "",
    on: Annotated[str, typer.Option(help="h100:8 or another of the catalogue; else this machine")] = "",
    runs: Runs = RUNS,
    as_json: Json = False,
) -> None:
    """Say which model size, data and batch a budget should buy, from small runs."""
    from thrifty import api
    from thrifty.report.scale_tables import scale_view

    with live_view() as show:
        scaled = api.scale(job, budget=budget, fit=fit, on=on, runs=runs, emit=show)
    if as_json:
        # the laws that intervals are of lie in the file beside the page
        print(scaled.model_dump_json(indent=1, exclude={"curve": {"draws"}}))
        return
    console().print(scale_view(scaled))
    print(f"page      {scaled.page}")
    if scaled.determined:
        print(f"best job  {scaled.best_job}   run it: thrifty run {scaled.best_job}")
