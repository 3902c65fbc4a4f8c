"""Train by a plan in a process of its own that may hold little more memory than it begins with; tells its peak.

Usage: room_run.py PLAN STORE FOLDER OUT [KEY=VALUE...]; with ``above`` MiB that may be resident above what is at the
beginning (none: no limit), ``slow`` seconds of each step, ``each`` numbers a sample holds in each layer, and ``norm`` 1
for a batch norm among them.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from thrifty.data import Store
from thrifty.errors import ThriftyError
from thrifty.hardware.pages import give_back
from thrifty.ledger import resident_bytes
from thrifty.spec import Plan, Spent
from thrifty.spec.events import Evaluated, Event, Narrowed, StepDone
from thrifty.train import train

LAYERS, CLASSES, PIXELS = 8, 10, 64


class Layer(nn.Module):
    """Keeps one block of numbers for the backward pass, as large as what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x) * self.scale


class Wide(nn.Module):
    """Few weights and, for each sample, much to remember: in float64, so that what is learned can be compared."""

    def __init__(self, each: int, slow_s: float, norm: bool) -> None:
        super().__init__()
        self.first = nn.Linear(PIXELS, 16)
        self.norm = nn.BatchNorm1d(16) if norm else nn.Identity()
        self.layers = nn.Sequential(*[Layer() for _ in range(LAYERS)])
        self.last = nn.Linear(16, CLASSES)
        self.times, self.slow_s = each // 16, slow_s

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            time.sleep(self.slow_s)
        x = self.norm(self.first(x.flatten(1).double()))
        x = self.layers(x.unsqueeze(1).expand(-1, self.times, -1).contiguous())
        out: Tensor = self.last(x.mean(1))
        return out


def mark(field: str) -> float:
    """A line of the kernel's account of this process, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def main() -> None:
    plan = Plan.model_validate_json(Path(sys.argv[1]).read_bytes())
    options = {key: float(value) for key, _, value in (pair.partition("=") for pair in sys.argv[5:])}
    torch.manual_seed(1)
    model = Wide(int(options["each"]), options.get("slow", 0.0), bool(options.get("norm"))).double()
    if "above" in options:
        # what is loaded when the first step is taken is not what is tested here
        warm = nn.functional.cross_entropy(model(torch.rand(3, PIXELS)), torch.zeros(3, dtype=torch.long))
        warm.backward()
        torch.optim.AdamW(nn.Linear(1, 1).parameters(), fused=True)
        model.zero_grad()
        give_back()
        plan = plan.model_copy(update={"memory": resident_bytes() + options["above"] * 2**20})

    def emit(event: Event) -> None:
        match event:
            case Narrowed(step, stage, before, to, why):
                print("Narrowed", step, stage, before, to, why, flush=True)
            case StepDone(step) | Evaluated(step):
                print(type(event).__name__, step, flush=True)
            case _:
                print(type(event).__name__, getattr(event, "message", getattr(event, "reason", "")), flush=True)

    try:
        train(plan, model, Store(Path(sys.argv[2])), Path(sys.argv[3]), emit=emit, spent=Spent)
    except ThriftyError as error:
        print(error, file=sys.stderr)
        print("peak", mark("VmHWM"), "limit", plan.memory / 2**20, flush=True)
        sys.exit(error.exit_code)
    print("peak", mark("VmHWM"), "limit", plan.memory / 2**20, flush=True)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, sys.argv[4])


if __name__ == "__main__":
    main()
