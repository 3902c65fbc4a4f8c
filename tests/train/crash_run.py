"""Train by a plan in a process of its own, for tests that kill, signal or starve it; a line is printed for each event.

Usage: crash_run.py PLAN STORE FOLDER OUT [KEY=VALUE...]; with ``slow`` seconds of each step, ``ballast`` numbers more
to be saved, and files that cannot grow ``full_from`` one step ``full_until`` another.
"""

from __future__ import annotations

import math
import random
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from thrifty.data import Store
from thrifty.errors import ThriftyError
from thrifty.models import build
from thrifty.models.init import initialise
from thrifty.spec import Plan, Spent
from thrifty.spec.events import Event, StepDone
from thrifty.train import train

HARD = resource.getrlimit(resource.RLIMIT_FSIZE)[1]


class Noisy(nn.Module):
    """A user's model that draws from every generator there is, and holds more numbers than it needs."""

    def __init__(self, inner: nn.Module, ballast: int, slow_s: float) -> None:
        super().__init__()
        self.inner, self.slow_s = inner, slow_s
        self.ballast = nn.Parameter(torch.zeros(max(ballast, 1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            x = nn.functional.dropout(x, 0.1) * (1 + 0.1 * float(np.random.rand()) + 0.1 * random.random())
            time.sleep(self.slow_s)
        out: torch.Tensor = self.inner(x) + 0.01 * self.ballast.mean()
        return out


def main() -> None:
    plan = Plan.model_validate_json(Path(sys.argv[1]).read_bytes())
    options = {key: float(value) for key, _, value in (pair.partition("=") for pair in sys.argv[5:])}
    inner = build(plan.model)
    initialise(inner, plan.init, plan.seed)
    model = Noisy(inner, int(options.get("ballast", 0)), options.get("slow", 0.0))

    def emit(event: Event) -> None:
        print(type(event).__name__, getattr(event, "step", ""), flush=True)
        if isinstance(event, StepDone):
            full = options.get("full_from", math.inf) <= event.step < options.get("full_until", math.inf)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000 if full else HARD, HARD))

    try:
        train(plan, model, Store(Path(sys.argv[2])), Path(sys.argv[3]), emit=emit, spent=Spent)
    except ThriftyError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, sys.argv[4])


if __name__ == "__main__":
    main()
