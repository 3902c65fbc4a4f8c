"""What a step of an empty model takes in our loop over a bare PyTorch loop that does the same, in microseconds.

    python -m benchmarks.overhead [--quick] [--rounds N] [--resume]

The model has two weights and images of 8 x 8 pixels, 32 a step. Ours is a whole ``thrifty.api.run``: its loop checks
the loss, the budget and the target, and writes an event of every step. The bare loop is `benchmarks.bare`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import real_data
from benchmarks.figures import conclude, medians_s, notes, spread, table
from benchmarks.kept import Kept
from benchmarks.peers.task import Task
from benchmarks.race import Entrant, Race, asked_of, cores, ours, race
from thrifty import hardware
from thrifty.api import silent
from thrifty.data import Store, prepare
from thrifty.spec import parse_job, raw_data
from thrifty.spec.folders import cache_folder

BATCH, RATE = 32, 1e-3
STEPS, QUICK_STEPS, WARM_UP = 6_000, 2_000, 200


def job(steps: int) -> dict[str, Any]:
    """The job of our runs: validated once, at its end."""
    return {
        "name": "overhead",
        "data": {"kind": "image", "path": str(real_data.dots().resolve())},
        "model": "benchmarks.nets:empty",
        "train": {
            "steps": steps,
            "evaluations": 1,
            "batch": BATCH,
            "optimizer": "adamw",
            "learning_rate": RATE,
            "clip": 0,
        },
        # as the bare loop
        "plan": {"precision": "fp32", "micro_batch": BATCH},
    }


def entrants(store: Store, steps: int) -> Callable[[int], Sequence[Entrant]]:
    """Who runs in a round."""
    task = Task("image", str(store.folder), BATCH, steps=steps, rate=RATE, threads=cores())
    bare = Entrant("bare", (sys.executable, "-W", "ignore", "-m", "benchmarks.bare", task.json))
    return lambda _: [ours("ours", job(steps)), bare]


def figures(found: Race) -> dict[str, list[float]]:
    """The figures of the issue, and what they are computed from: medians of the steps of a run, in microseconds."""
    step_us = {name: [1e6 * each for each in medians_s(found.of(name), warm_up=WARM_UP)] for name in ("ours", "bare")}
    samples = {f"step_us_{name}": values for name, values in step_us.items() if values}
    if len(samples) == 2:
        pairs = zip(step_us["ours"], step_us["bare"], strict=False)
        samples["step_overhead_us"] = [mine - bare for mine, bare in pairs]
    return samples


def main() -> int:
    """Race, print the figures, and write the report; returns 1 when a run failed."""
    asked = asked_of(__doc__, rounds=7)
    device = hardware.here(kind="cpu")  # measured alone, before it is asked for
    steps = QUICK_STEPS if asked.quick else STEPS
    wanted = parse_job(job(steps))
    store = prepare(raw_data(wanted), seed=wanted.train.seed, cache=cache_folder(), emit=silent)
    kept = Kept.of(f"overhead{'_quick' * asked.quick}", resume=asked.resume)
    found = race(entrants(store, steps), 3 if asked.quick else asked.rounds, kept)
    samples = figures(found)
    says = (
        f"{__doc__}\nMedians over the steps of a run, so that the validation and checkpoints between steps do not "
        f"count; then over the rounds. Ours {spread(samples.get('step_us_ours', []))} µs, bare "
        f"{spread(samples.get('step_us_bare', []))} µs.\n\n{table(found, ['ours', 'bare'])}\n\n{notes(found)}"
    )
    return conclude("overhead", device, says, samples, found, quick=asked.quick)


if __name__ == "__main__":
    sys.exit(main())
