"""One rank of a world that trains plans one after the other, for the tests: ``torchrun ... ranks_run.py CASES``.

CASES is a JSON list of mappings with ``plan``, ``store``, ``folder``; ``double``, to compute in float64; ``signal``: a
step, after which the last rank is told to end. What became of each is written to ``rank-<n>.json`` in its folder, or
in one of it that ``says`` names. Or with ``norms``, a file that tells how far batch norm over two ranks is from one's.
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
from norms_run import norms_apart
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

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
    model = in_double(model) if case.get("double") else model
    said: dict[str, Any] = {}
    try:
        spent = Spent(wall_s=float(world.rank == 0 and case.get("spent", 0)))
        trained = train(plan, model, Store(Path(case["store"])), folder, emit=emit, spent=lambda: spent, world=world)
        said["trained"] = {**asdict(trained), "wasted_seconds": 0, "loading_share": 0}
        said["norms over ranks"] = sum("forward" in vars(each) for each in model.modules() if is_norm(each))
        said["buffers"] = [each.double().sum().item() for each in model.buffers()]
    except ThriftyError as error:
        said["error"] = error.what
    kinds = [type(event).__name__ for event in events]
    steps = [event for event in events if isinstance(event, StepDone)]
    said |= {"steps": [each.step for each in steps], "losses": [each.loss for each in steps]}
    said |= {"norms": [each.gradient_norm for each in steps], "events": kinds}
    told = folder / case.get("says", "")
    told.mkdir(exist_ok=True)
    (told / f"rank-{world.rank}.json").write_text(json.dumps(said))


def in_double(model: nn.Module) -> nn.Module:
    """Have a model compute in float64, whatever it is given."""
    model.register_forward_pre_hook(lambda _, args: (args[0].double(), *args[1:]))
    return model.double()


def is_norm(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm)


def main(cases: str) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    with joined("cpu") as world:
        for case in json.loads(Path(cases).read_text()):
            if "norms" in case:
                apart = norms_apart(world)
                Path(case["norms"]).write_text(json.dumps(apart))
            else:
                run(case, world)
    # a thread of gloo may still let go of tensors, which aborts a Python that is on its way out; real ranks end so too
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
