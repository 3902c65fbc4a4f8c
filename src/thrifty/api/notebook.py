"""Notebooks: a cell that ends in a plan, a run, a search or a compression shows it; `show` does where nothing asks.

What the verbs return stays plain: IPython is told by the types' names how to write them, and only where it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from thrifty.errors import JobError

if TYPE_CHECKING:
    from thrifty.pipeline import Outcome
    from thrifty.tune import Tuned


def _proposal(found: Any) -> str:
    from thrifty.report.cell import proposal_cell

    return proposal_cell(found)


def _outcome(found: Outcome) -> str:
    from thrifty.report.cell import run_cell
    from thrifty.report.rows import Aside

    result = found.result
    aside = Aside(result.wasted_s, result.rank_bytes, result.loading_share)
    return run_cell(found.entry, aside, metrics=result.test, page=found.folder / "report.html")


def _entry(found: Any) -> str:
    from thrifty.report.cell import run_cell

    return run_cell(found)


def _tuned(found: Tuned) -> str:
    from thrifty.report.cell import tuning_cell

    return tuning_cell(found.metric, found.search.trials, found.search.best, found.best_job)


def _compression(found: Any) -> str:
    from thrifty.report.cell import compression_cell

    return compression_cell(found)


def _scaled(found: Any) -> str:
    from thrifty.report.cell import scale_cell

    return scale_cell(found)


# by module and name, so that nothing is loaded for it
CELLS: dict[tuple[str, str], Callable[[Any], str]] = {
    ("thrifty.spec.proposal", "Proposal"): _proposal,
    ("thrifty.pipeline", "Outcome"): _outcome,
    ("thrifty.ledger.entry", "Entry"): _entry,
    ("thrifty.tune.tune", "Tuned"): _tuned,
    ("thrifty.spec.compression", "Compression"): _compression,
    ("thrifty.spec.scaling", "Scaled"): _scaled,
}


class Shown:
    """Something that a notebook shows as HTML, whichever notebook it is.

    Args:
        found: a plan, a run, a search, a compression, or a line of the ledger.
    """

    def __init__(self, found: Any) -> None:
        self.found = found

    def _repr_html_(self) -> str:
        return html_of(self.found)

    def __repr__(self) -> str:
        return repr(self.found)


def show(found: Any) -> Shown:
    """Wrap what a verb returned for a notebook that does not run IPython, or for a cell that does not end in it.

    Raises:
        JobError: it is nothing that can be shown.
    """
    if _cell_of(type(found)) is None:
        known = ", ".join(name for _, name in CELLS)
        raise JobError(f"a {type(found).__name__} cannot be shown", mend=f"What can: {known}.")
    return Shown(found)


def html_of(found: Any) -> str:
    """Return the fragment of HTML that a notebook shows."""
    cell = _cell_of(type(found))
    assert cell is not None
    return cell(found)


def _cell_of(kind: type) -> Callable[[Any], str] | None:
    return next((cell for each in kind.__mro__ if (cell := CELLS.get((each.__module__, each.__name__)))), None)


def register() -> bool:
    """Tell a running IPython how to show what the verbs return; does nothing, and returns False, where none runs."""
    running = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if running is None:
        return False
    formatter = running.display_formatter.formatters["text/html"]
    for (module, name), cell in CELLS.items():
        formatter.for_type_by_name(module, name, cell)
    return True
