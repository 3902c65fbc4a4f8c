"""Ask a run that trains to wait, to go on, to stop, or to spend less; it looks between its steps."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from thrifty.api.ledger import RUNS, entry_of, open_ledger
from thrifty.errors import DataError, JobError, unknown_name
from thrifty.runs import open_run
from thrifty.spec import Plan, parse_budget
from thrifty.spec.steering import ASKS, Steering, limits_text

_FIELDS = {"seconds": "time", "joules": "energy", "usd": "money"}


def steer(run: Path, ask: str = "", *, lower: str = "", runs: Path = RUNS) -> Steering:
    """Ask for something of a run that is under way; returns all that is asked of it now.

    Args:
        run: its folder.
        ask: ``pause``: save and wait; ``go`` on; ``stop``: keep the best weights, and finish as at the end of a budget.
            What was asked for stays when left out.
        lower: what the whole run may have spent when training ends, such as ``5min``, ``0.01kWh`` or ``0.10USD``.
        runs: folder of the ledger.

    Raises:
        DataError: there is no such run, or none that is under way.
        JobError: there is no such thing to ask for, or the budget is none, or not lower than the one there is.
        StorageError: the run's folder cannot be written.
    """
    if ask and ask not in ASKS:
        raise unknown_name("thing to ask of a run", ask, ASKS)
    folder = open_run(run)
    with closing(open_ledger(runs)) as ledger:
        status = entry_of(ledger, folder).status
    if status != "running":
        raise DataError(f"run '{run}' is not under way, but {status}", mend="Start it: thrifty run its job.")
    asked = folder.steering()
    if lower:
        budget = parse_budget(lower)
        wanted = Steering.model_validate(budget.model_dump(exclude_none=True))
        plan = folder.find("plan", Plan)
        for name, limit in wanted.limits.items():
            now = min(asked.limits.get(name, float("inf")), getattr(plan.stop, name) if plan else float("inf"))
            if limit >= now:
                as_it_is = limits_text({name: now})
                raise JobError(f"a budget of {wanted.says} is not lower: training ends at {as_it_is} as it is")
            asked = asked.model_copy(update={_FIELDS[name]: limit})
    if ask:
        asked = asked.model_copy(update={"ask": ask})
    folder.steer(asked)
    return asked
