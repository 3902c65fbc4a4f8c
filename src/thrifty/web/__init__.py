"""Web: `thrifty ui`, live pages over the runs of a folder and their ledger; they look, and steer what runs.

Everything that stands on a page was said by somebody else: it is escaped, and no page has a script of its own in it.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from thrifty.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["run"]


def run(*, host: str, port: int, runs: Path, folder: Path, ready: Callable[[str], None]) -> None:
    """Show pages until told to stop.

    Args:
        host: address to listen on; what is no loopback lets in who reaches this machine.
        port: to listen on; 0 for a free one.
        runs: folder of all runs.
        folder: under which job files may be planned.
        ready: is told the address to open, with what lets its holder act.

    Raises:
        MissingExtraError: starlette is not installed.
        StorageError: the ledger cannot be opened, or is a newer thrifty's.
        JobError: the address cannot be had.
    """
    if find_spec("starlette") is None:
        raise MissingExtraError("thrifty ui", package="starlette", extra="ui")
    from thrifty.web.server import serve

    serve(host=host, port=port, runs=runs, folder=folder, ready=ready)
