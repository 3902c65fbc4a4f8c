"""Whether images that grow (``train.progressive: 0.5``) learn as much in as many epochs, and what they save.

    python -m benchmarks.progressive [--quick] [--seeds N] [--resume]

ResNet-8 on 3,000 pictures of CIFAR-10, as `benchmarks.precision` has it, each seed with images of one side and with
ones that grow: the same weights and order of the data, the same number of epochs. Accuracy is of the last step on the
validation split; time is the processor's, with one validation and writing the weights. The verdict is that of
`benchmarks.precision`: growing is proven when the accuracy that it loses lies within what another seed would lose.
`thrifty.planner.growing` holds what came of it.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import replace

from benchmarks.figures import conclude, spread
from benchmarks.kept import Kept
from benchmarks.precision import COURSES, last_figures, plan_of, verdict
from benchmarks.race import Race, asked_of, told
from thrifty import hardware
from thrifty.spec import Plan

SIDES = {"whole": 1.0, "growing": 0.5}


def main() -> int:
    """Train, print the figures, and write the report."""
    asked = asked_of(__doc__, seeds=5)
    asked.seeds = max(asked.seeds, 2)
    device = hardware.here(kind="cpu")
    # validations beside the last would cost what is to be measured
    course = replace(COURSES["resnet"], training={**COURSES["resnet"].training, "evaluations": 1})
    plan, store = plan_of(course, device, quick=asked.quick)
    kept = Kept.of(f"progressive{'_quick' * asked.quick}", resume=asked.resume)
    samples: dict[str, list[float]] = {}
    for seed in range(asked.seeds):
        for how, begin in SIDES.items():
            each = plan.model_copy(update={"progressive": begin, "seed": seed})

            def trained(each: Plan = each) -> dict[str, float]:
                began = time.process_time()
                return {**last_figures(each, store), "cpu_s": time.process_time() - began}

            figures = kept(f"{how}-{seed}", dict[str, float], trained)
            for figure in ("accuracy", "cpu_s"):
                samples.setdefault(f"progressive_{how}_{figure}", []).append(figures[figure])
            told(f"{how}, seed {seed}: accuracy {figures['accuracy']:.4f}, {figures['cpu_s']:.0f} s of processor")
    whole, growing = (samples[f"progressive_{how}_accuracy"] for how in SIDES)
    found = verdict(whole, growing, higher_is_better=True)
    saved = 1 - statistics.fmean(samples["progressive_growing_cpu_s"]) / statistics.fmean(
        samples["progressive_whole_cpu_s"]
    )
    samples["progressive_saved_share"], samples["progressive_proven"] = [saved], [float(found.proven)]
    rows = [
        f"| {how} | {spread(samples[f'progressive_{how}_accuracy'])} | {spread(samples[f'progressive_{how}_cpu_s'])} |"
        for how in SIDES
    ]
    says = "\n".join(
        [
            __doc__ or "",
            f"{plan.stop.steps:,} steps of {plan.batch.size} images, {asked.seeds} seeds.",
            "",
            "| images | accuracy | processor, s |",
            "|---|---:|---:|",
            *rows,
            "",
            f"Growing saves {saved:.0%} of the processor's time and loses {found.worse:+.4f} of accuracy, at 95 % up "
            f"to {found.bound:+.4f}, of a margin of {found.margin:.4f}: {'proven' if found.proven else 'not proven'}.",
        ]
    )
    return conclude("progressive", device, says, samples, Race({}, []), quick=asked.quick)


if __name__ == "__main__":
    sys.exit(main())
