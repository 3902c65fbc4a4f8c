"""The app: options that subcommands share, and how results and progress are shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from thrifty.report.live import LiveView

app = typer.Typer(
    help="Deep learning for the least compute, with the bill shown at every stage.",
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


def print_json(value: Any) -> None:
    """Print a result for machines."""
    print(json.dumps(value, indent=1, ensure_ascii=False))


def console(*, stderr: bool = False) -> Console:
    """Return a console for people."""
    from rich.console import Console

    return Console(stderr=stderr)


@contextmanager
def live_view() -> Iterator[LiveView]:
    """Show what happens, on stderr."""
    from thrifty.report.live import LiveView

    with LiveView(console(stderr=True)) as view:
        yield view
