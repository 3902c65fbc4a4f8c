"""Ask a run that trains, or a search, to wait, to go on, to stop, or to spend less; it looks between its steps."""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path

from thrifty.api.ledger import RUNS, entry_of, open_ledger
from thrifty.errors import DataError, JobError, unknown_name
from thrifty.runs import RunFolder, open_run
from thrifty.spec import Budget, Plan, parse_budget
from thrifty.spec.steering import ASKS, Steering, limits_text

_FIELDS = {"seconds": "time", "joules": "energy", "usd": "money"}


def steer(run: Path, ask: str = "", *, lower: str = "", runs: Path = RUNS) -> Steering:
    """Ask for something of a run or a search that is under way; returns all that is asked of it now.

    Args:
        run: its folder; that of a search for settings is ``<runs>/<name>-tune``.
        ask: ``pause``: save and wait; ``go`` on; ``stop``: keep the best weights, and finish as at the end of a budget.
            What was asked for stays when left out.
        lower: what the whole run or search may have spent when it ends, such as ``5min``, ``0.01kWh`` or ``0.10USD``.
        runs: folder of the ledger.

    Raises:
        DataError: there is no such run, or none that is under way.
        JobError: there is no such thing to ask for, or the budget is none, or not lower than the one there is.
        StorageError: the run's folder cannot be written.
    """
    if ask and ask not in ASKS:
        raise unknown_name("thing to ask of a run", ask, ASKS)
    folder = RunFolder(run)
    if not folder.searches:
        folder = open_run(run)
    with closing(open_ledger(runs)) as ledger:
        status = entry_of(ledger, folder).status
    if status != "running":
        what, verb = ("search", "tune") if folder.searches else ("run", "run")
        raise DataError(f"{what} '{run}' is not under way, but {status}", mend=f"Start it: thrifty {verb} its job.")
    asked = folder.steering()
    if lower:
        budget = parse_budget(lower)
        wanted = Steering.model_validate(budget.model_dump(exclude_none=True))
        given = _given(folder)
        for name, limit in wanted.limits.items():
            now = min(asked.limits.get(name, math.inf), given.get(name, math.inf))
            if limit >= now:
                as_it_is = limits_text({name: now})
                what = "the search" if folder.searches else "training"
                raise JobError(f"a budget of {wanted.says} is not lower: {what} ends at {as_it_is} as it is")
            asked = asked.model_copy(update={_FIELDS[name]: limit})
    if ask:
        asked = asked.model_copy(update={"ask": ask})
    folder.steer(asked)
    return asked


def _given(folder: RunFolder) -> dict[str, float]:
    """The limits that a run's plan or a search has, by the names that a plan has for them."""
    if folder.searches:
        budget = folder.find("search", Budget) or Budget()
        return Steering.model_validate(budget.model_dump(exclude_none=True, exclude={"memory"})).limits
    plan = folder.find("plan", Plan)
    return {name: getattr(plan.stop, name) for name in _FIELDS} if plan is not None else {}
