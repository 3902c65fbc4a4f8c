"""What a job pins of how to compute, held against what this machine's loop does with its model and data."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from thrifty.errors import JobError, MissingExtraError
from thrifty.planner.compilable import check_compile
from thrifty.planner.learning import Learning
from thrifty.planner.moves import askable
from thrifty.planner.offload import check_offload
from thrifty.planner.releasable import check_release
from thrifty.spec import BF16_HELD, KINDS, Batching, Dataset, Device, Job
from thrifty.spec.units import format_bytes


def check_pins(
    job: Job, learning: Learning, dataset: Dataset, device: Device, *, repeats: bool, batchings: Sequence[Batching]
) -> None:
    """Refuse pins that cannot be had together here.

    Args:
        job: for its pins.
        learning, dataset, device: what is planned, and where.
        repeats: the model has blocks that can be computed again.
        batchings: ways of batching texts that the model takes.

    Raises:
        JobError: with what would do; a `MissingExtraError` for what is not installed.
    """
    pinned = job.plan.precision
    if pinned not in (None, *askable("precision", device)):
        raise JobError(
            f"plan.precision is {pinned}, which this machine's loop does not run",
            mend=f"It runs: {', '.join(askable('precision', device))}.",
        )
    if pinned == "fp8" and importlib.util.find_spec("torchao") is None:
        raise MissingExtraError("plan.precision fp8", package="torchao", extra="fp8")
    if pinned in BF16_HELD and job.plan.rows == "used":
        raise JobError(
            f"plan.rows is used, and with precision {pinned} all rows are trained", mend="Leave out one of them."
        )
    batching = job.plan.batching
    if batching not in (None, "padded") and not KINDS[dataset.kind].varies:
        raise JobError(
            f"plan.batching is {batching}, and samples of data of kind '{dataset.kind}' are all of one size",
            mend="Leave it out.",
        )
    if KINDS[dataset.kind].varies and batching not in (None, *batchings):
        raise JobError(
            f"plan.batching is {batching}, and model '{learning.model.name}' takes no packed texts",
            mend=f"It takes: {', '.join(batchings)}.",
        )
    for name in ("tensor", "pipeline", "context", "virtual_stages"):
        if getattr(job.plan, name) not in (None, 1, 0):
            raise JobError(
                f"plan.{name} is {getattr(job.plan, name)}, and this machine is one device",
                mend="Leave it out, or plan on several: thrifty plan JOB --on h100:8.",
            )
    again = job.plan.checkpointing
    if again not in (None, "none") and not repeats:
        raise JobError(
            f"plan.checkpointing is '{again}', and model '{learning.model.name}' has no repeated blocks to "
            "compute again",
            mend="Leave it out: for this model there is only 'none'.",
        )
    if job.plan.loading == "beside" and device.kind == "cpu" and job.budget.memory is not None:
        raise JobError(
            f"plan.loading is beside, and budget.memory is {format_bytes(job.budget.memory)}: batches that are made "
            "while a step computes take memory that it is foreseen to have",
            mend="Leave one of them out.",
        )
    check_compile(job, device.kind, repeats=repeats)
    check_release(job, learning)
    check_offload(job, device)
