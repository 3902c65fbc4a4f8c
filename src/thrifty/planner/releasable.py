"""What gradient release goes with: nothing that needs all gradients of a step before the first weight changes."""

from __future__ import annotations

import math

from thrifty.errors import JobError
from thrifty.planner.learning import Learning
from thrifty.spec import Job

# why a precision does not go with it
PRECISIONS = {
    "fp16": "the loss of fp16 is scaled: whether a step was scaled too high is known when its weights have changed",
    "fp8": "it was not tried with products in fp8",
    "bf16_stochastic": "roundings of bf16_stochastic would be drawn in the order of the backward pass: other ones",
}


def check_release(job: Job, learning: Learning) -> None:
    """Refuse gradient release beside what would have to be learned otherwise with it.

    Raises:
        JobError: with what would do.
    """
    if not job.plan.gradient_release:
        return
    for says, mend in _hindrances(job, learning):
        raise JobError(f"plan.gradient_release is true, and {says}", mend=mend)


def releases(job: Job, learning: Learning, precision: str) -> bool:
    """Whether a job could release its gradients, were they not clipped."""
    whole = job.plan.micro_batch is None or job.plan.micro_batch >= learning.size
    return whole and (job.plan.data or 1) == 1 and precision not in PRECISIONS and job.plan.compile != "whole"


def _hindrances(job: Job, learning: Learning) -> list[tuple[str, str]]:
    """What stands against it, and what would do; the first is told."""
    pins, clip = job.plan, learning.optim.clip
    found: list[tuple[str, str]] = []
    out = "leave plan.gradient_release out"
    if math.isfinite(clip):
        asked = (
            f"train.clip is {clip:g}" if job.train.clip is not None else f"gradients are clipped at {clip:g} by rule"
        )
        found.append(
            (
                f"{asked}: the norm of all of them is known when the first weights have changed",
                f"Set train.clip: 0, which trains without clipping, or {out}.",
            )
        )
    if pins.micro_batch is not None and pins.micro_batch < learning.size:
        found.append(
            (
                f"plan.micro_batch is {pins.micro_batch:,} of a batch of {learning.size:,}: gradients of all of it "
                "make a step",
                f"Leave plan.micro_batch out, lower train.batch (which changes what is learned), or {out}.",
            )
        )
    if (pins.data or 1) > 1:
        found.append(
            (f"plan.data is {pins.data}: gradients of all devices are summed first", f"Take one device, or {out}.")
        )
    if pins.precision in PRECISIONS:
        found.append((PRECISIONS[pins.precision], f"Set plan.precision to bf16 or bf16_compensated, or {out}."))
    if pins.compile == "whole":
        found.append(
            (
                "plan.compile is 'whole': a model compiled whole hands out all gradients at once, and nothing is saved",
                f"Set plan.compile to blocks, or {out}.",
            )
        )
    return found
