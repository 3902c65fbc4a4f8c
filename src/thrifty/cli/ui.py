"""Live pages over runs and their ledger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from thrifty.cli.app import RUNS, Json, Runs, app


@app.command()
def ui(
    host: Annotated[str, typer.Option(help="address to listen on; any but this one lets others look")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="to listen on; 0 for a free one")] = 8600,
    runs: Runs = RUNS,
    as_json: Json = False,
) -> None:
    """Show runs, plans, the ledger and served models in a browser, live; extra 'ui'."""
    from thrifty import web

    def ready(address: str) -> None:
        print(json.dumps({"url": address}) if as_json else f"open {address}", flush=True)

    web.run(host=host, port=port, runs=runs, folder=Path.cwd(), ready=ready)
