"""One rank of a world that trains plans one after the other, for the tests: ``torchrun ... ranks_run.py CASES``.

CASES is a JSON list of mappings with ``plan``, ``store``, ``folder``, and ``signal``: a step, after which the last rank
is told to end. What became of each is written to ``rank-<n>.json`` in its folder, or in one of it that ``says`` names.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from thrifty.data import Store
from thrifty.errors import ThriftyError
from thrifty.models import build
from thrifty.models.init import initialise
from thrifty.spec import Plan, Spent
from thrifty.spec.events import Event, StepDone
from thrifty.train import train
from thrifty.train.ranks import World, joined


def run(case: dict[str, Any], world: World) -> None:
    plan, folder = Plan.model_validate(case["plan"]), Path(case["folder"])
    events: list[Event] = []

    def emit(event: Event) -> None:
        events.append(event)
        if isinstance(event, StepDone) and event.step == case.get("signal") and world.rank == world.size - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    model = build(plan.model)
    initialise(model, plan.init, plan.seed + world.rank)  # rank 0's weights are everyone's
    said: dict[str, Any] = {}
    try:
        spent = Spent(wall_s=float(world.rank == 0 and case.get("spent", 0)))
        trained = train(plan, model, Store(Path(case["store"])), folder, emit=emit, spent=lambda: spent, world=world)
        said["trained"] = {**asdict(trained), "wasted_seconds": 0}
    except ThriftyError as error:
        said["error"] = error.what
    kinds = [type(event).__name__ for event in events]
    steps = [event for event in events if isinstance(event, StepDone)]
    said |= {"steps": [each.step for each in steps], "losses": [each.loss for each in steps]}
    said |= {"norms": [each.gradient_norm for each in steps], "events": kinds}
    told = folder / case.get("says", "")
    told.mkdir(exist_ok=True)
    (told / f"rank-{world.rank}.json").write_text(json.dumps(said))


def main(cases: str) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    with joined("cpu") as world:
        for case in json.loads(Path(cases).read_text()):
            run(case, world)


if __name__ == "__main__":
    main(sys.argv[1])
