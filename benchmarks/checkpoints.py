"""What a checkpoint every 20 steps costs a run, over one without: as a share of its time.

    python -m benchmarks.checkpoints [--quick] [--rounds N] [--resume]

The job of `benchmarks.bert_step`: 22.6 M parameters with AdamW, so some 270 MB a checkpoint, and every step alike. A
job cannot ask for a number of steps between checkpoints, so the least time between two is set to that of 20 steps, as a
first run measures them; how many were really taken is reported.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence

from benchmarks.bert_step import job
from benchmarks.figures import WARM_UP, conclude, notes, seconds, table
from benchmarks.kept import Kept
from benchmarks.race import Entrant, Race, asked_of, ours, race
from thrifty import hardware

EVERY = 20
STEPS, QUICK_STEPS = 120, 60
CALIBRATION_STEPS = 20
NEVER_S = 1e9


def entrants(steps: int, step_s: float) -> Callable[[int], Sequence[Entrant]]:
    """Who runs in a round: the same job, without and with checkpoints."""
    # half a step less: the loop looks after a step, and the clock must have passed the time by then
    apart_s = (EVERY - 0.5) * step_s
    return lambda _: [
        ours("without", job(), stop_after=WARM_UP + steps, checkpoint_seconds=NEVER_S),
        ours("with", job(), stop_after=WARM_UP + steps, checkpoint_seconds=apart_s),
    ]


def figures(found: Race) -> dict[str, list[float]]:
    """The figures of the issue: means over all steps, for a checkpoint falls on one in twenty."""
    step_s = {name: [statistics.fmean(seconds(run).values()) for run in found.of(name)] for name in ("without", "with")}
    samples = {
        f"checkpoints_step_ms_{name}": [1e3 * each for each in values] for name, values in step_s.items() if values
    }
    taken = [run.first("done")["checkpoints"] for run in found.of("with")]
    if taken:
        samples["checkpoints_taken"] = [float(each) for each in taken]
    pairs = list(zip(step_s["with"], step_s["without"], strict=False))
    if pairs:
        samples["checkpoint_slowdown"] = [with_s / without_s - 1 for with_s, without_s in pairs]
    return samples


def main() -> int:
    """Race, print the figures, and write the report; returns 1 when a run failed."""
    asked = asked_of(__doc__, rounds=7)
    device = hardware.here(kind="cpu")  # measured alone, before it is asked for
    kept = Kept.of(f"checkpoints{'_quick' * asked.quick}", resume=asked.resume)
    steps = QUICK_STEPS if asked.quick else STEPS
    calibration = ours("calibration", job(), stop_after=WARM_UP + CALIBRATION_STEPS, checkpoint_seconds=NEVER_S)
    first = race(lambda _: [calibration], 1, kept)
    if first.failed:
        sys.exit(f"checkpoints: {first.failed[0].failed}")
    step_s = statistics.median(seconds(first.of("calibration")[0]).values())
    found = race(entrants(steps, step_s), asked.rounds, kept)
    says = (
        f"{__doc__}\nMeans over {steps} steps after {WARM_UP}, in turn, in fresh processes; the shares are of the runs "
        f"of one round.\n\n{table(found, ['without', 'with'])}\n\n{notes(found)}"
    )
    return conclude("checkpoints", device, says, figures(found), found, quick=asked.quick)


if __name__ == "__main__":
    sys.exit(main())
