"""What a step takes with its batches made between steps, and beside them by a thread, in one process in turn.

    python -m benchmarks.ahead [--quick] [--rounds N]

CIFAR-10 in steps of 128 images, and spoken digits in steps of 32, changed at random as named; once with a step on all
cores, once with one left free, and once with a step that only waits 10 ms, as for a GPU. Each round times some steps of
one way, then of the other; the order changes from round to round. A figure is of the quickest round of a way.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from benchmarks import real_data
from benchmarks.race import asked_of, cores, told
from benchmarks.record import record
from thrifty import hardware, optim
from thrifty.api import silent
from thrifty.data import STEPS_AHEAD, Ahead, Batch, Batches, Store, look, prepare
from thrifty.hardware.pages import keep_pages, keeping
from thrifty.models import build
from thrifty.models.init import initialise
from thrifty.planner import plan
from thrifty.spec import Device, Plan, Spent, parse_job, raw_data
from thrifty.spec.folders import cache_folder
from thrifty.train.savings import with_savings
from thrifty.train.step import take_step

FLIPS = {"flip": True, "crop": 4}
IMAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "convnet_flips": ("convnet-fast", FLIPS),
    "convnet_randaugment": ("convnet-fast", {**FLIPS, "randaugment": {"changes": 2, "magnitude": 9}, "mixup": 0.2}),
    "mlp_randaugment": ("mlp-small", {**FLIPS, "randaugment": {"changes": 2, "magnitude": 9}, "mixup": 0.2}),
}
SOUNDS = {"speech_stretched": ("speech-mini", {"stretch": 0.2, "warp": 0.1, "blank_bands": 8, "blank_frames": 10})}
HALF_SECONDS, QUICK_SECONDS, WAIT_SECONDS, REST_SECONDS = 0.6, 0.2, 0.01, 0.05


class Case(NamedTuple):
    """A way to take steps, and where their batches come from."""

    name: str
    plan: Plan
    store: Store
    waits: bool


def sections() -> dict[str, dict[str, Any]]:
    """The jobs."""
    images = {"kind": "image", "path": str(real_data.cifar())}
    sounds = {**look(real_data.shared("fsdd")).job["data"]}
    return {
        name: {"name": name.replace("_", "-"), "data": data, "model": model, "train": {"epochs": 1, "augment": augment}}
        for data, table in ((images, IMAGES), (sounds, SOUNDS))
        for name, (model, augment) in table.items()
    }


def cases(device: Device) -> list[Case]:
    """Every job, planned, with each number of threads."""
    found = []
    for name, section in sections().items():
        job = parse_job(section)
        store = prepare(raw_data(job), seed=0, cache=cache_folder(), emit=silent)
        drawn = plan(job, store.dataset, device, key=name, spent=Spent())
        for threads in dict.fromkeys((cores(), max(1, cores() - 1))):
            found.append(Case(f"{name}_{threads}_threads", drawn.model_copy(update={"threads": threads}), store, False))
        found.append(Case(f"{name}_waiting", drawn, store, True))
    return found


def stepper(case: Case) -> Callable[[list[Batch]], None]:
    """Return what takes a step of a new model, or only waits."""
    if case.waits:
        return lambda parts: time.sleep(WAIT_SECONDS)
    model = build(case.plan.model)
    initialise(model, case.plan.init, case.plan.seed, case.plan.model)
    with_savings(model, case.plan).train()
    optimizer = optim.build(model, case.plan.optim, case.plan.precision, case.plan.seed)

    def take(parts: list[Batch]) -> None:
        take_step(case.plan, model, optimizer, parts, 1e-4)

    return take


def measure(case: Case, rounds: int, half_s: float) -> dict[str, list[float]]:
    """Milliseconds of a step by each way, of each round, and the processor's, and those in which it waited."""
    torch.set_num_threads(case.plan.threads)
    take = stepper(case)
    samples: dict[str, list[float]] = {}
    size = case.plan.batch
    for at in range(rounds + 1):
        for how in ("between", "beside") if at % 2 else ("beside", "between"):
            made = Batches(case.store, batch=size.size, micro=size.micro, seed=0, augment=case.plan.augment)
            with Ahead(made, STEPS_AHEAD if how == "beside" else 0, lambda step: step + 1) as batches:
                take(batches.step(0))
                time.sleep(REST_SECONDS)
                began, used, waited, step = time.perf_counter(), time.process_time(), 0.0, 0
                while time.perf_counter() - began < half_s:
                    step += 1
                    asked = time.perf_counter()
                    parts = batches.step(step)
                    waited += time.perf_counter() - asked
                    take(parts)
                took, used = time.perf_counter() - began, time.process_time() - used
            for what, seconds in (("step", took), ("processor", used), ("waited", waited)):
                if at:
                    samples.setdefault(f"{case.name}_{how}_{what}_ms", []).append(1e3 * seconds / step)
    return samples


def main() -> int:
    """Measure, print the figures, and write the report."""
    asked = asked_of(__doc__, rounds=4)
    device = hardware.here(kind="cpu")
    told("planning")
    planned = cases(device)
    keep_pages(keeping("cpu", "none"))
    samples: dict[str, list[float]] = {}
    rows = ["| case | between, ms a step | beside | waited between | waited beside | processor between | beside |"]
    rows += ["|---|---:|---:|---:|---:|---:|---:|"]
    for case in planned:
        told(case.name)
        found = measure(case, asked.rounds, QUICK_SECONDS if asked.quick else HALF_SECONDS)
        samples |= found
        best = {what: f"{min(values):.3f}" for what, values in found.items()}
        cells = (
            best[f"{case.name}_{how}_{what}_ms"]
            for what in ("step", "waited", "processor")
            for how in ("between", "beside")
        )
        rows.append(f"| {case.name} | {' | '.join(cells)} |")
    told(str(record(f"ahead{'_quick' * asked.quick}", device, "\n".join([__doc__ or "", *rows]), samples)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
