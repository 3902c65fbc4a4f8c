"""What a budget should buy: small runs of a job's family, a curve through their losses, and the size to take."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from thrifty.api.ledger import RUNS, open_ledger, silent
from thrifty.spec import Device, Job, load_job
from thrifty.spec.events import Emit
from thrifty.spec.scaling import Scaled, parse_purse

if TYPE_CHECKING:
    from thrifty.planner import Seen
    from thrifty.scale import Ran


def scale(job: Path, *, budget: str, fit: str = "", on: str = "", runs: Path = RUNS, emit: Emit = silent) -> Scaled:
    """Say which model size, how much data and which batch a budget should buy.

    Small runs of the job's family are made here, priced before they start; those made before are not made again.

    Args:
        job: the job file; its model names the family.
        budget: such as ``1e18flop``, ``10h``, ``2kWh`` or ``50USD``.
        fit: the most that the small runs may take, such as ``20min``; a quarter of the budget and an hour if not given.
        on: a device or cluster of the catalogue, such as ``h100:8``, that the budget is spent on; this machine if not
            given.
        runs: folder of all runs; the answer lies in ``<runs>/<name>-scale``.
        emit: is told what happens.

    Raises:
        JobError: the budget is none, or the family cannot be had at other sizes.
        DataError: there is too little data, or a small run ended at no number.
        BudgetError: the budget is smaller than the small runs that tell a curve.
    """
    from thrifty import pipeline, planner, scale
    from thrifty.scale.scale import SMALL

    wanted, purse = load_job(job), parse_purse(budget)
    limit = parse_purse(fit) if fit else None
    place = runs / f"{wanted.name}-scale" / SMALL
    with closing(open_ledger(runs)) as ledger:

        def run(small: Job, emit: Emit) -> Ran:
            text = small.model_dump_json(indent=1, exclude_defaults=True)
            done = pipeline.run(small, text, runs=place, ledger=ledger, emit=emit)
            return scale.Ran(done.result.validation["loss"], done.entry.total, str(done.folder), done.fresh)

        def history(device: Device) -> list[Seen]:
            return planner.seen(ledger.entries(limit=planner.HISTORY, worst_first=False), device.name)

        return scale.scale(
            wanted,
            purse,
            key=pipeline.run_key(wanted),
            run=run,
            runs=runs,
            emit=emit,
            limit=limit,
            on=on,
            history=history,
        )
