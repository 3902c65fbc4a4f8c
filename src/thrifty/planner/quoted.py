"""What a sample of a job takes, here or elsewhere, without a plan of the run: for a row of jobs that differ by size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from thrifty.planner.correction import Seen
from thrifty.planner.explain import quote_of
from thrifty.planner.explore import explore
from thrifty.planner.learning import decide
from thrifty.planner.local import Local
from thrifty.planner.planner import prepared_for
from thrifty.planner.propose import cluster_plan
from thrifty.planner.rules import Reasons
from thrifty.planner.shapes import least_flops, shape_of
from thrifty.planner.steps import trace_of
from thrifty.spec import Cluster, Cost, Dataset, Device, Job


class Quoted(NamedTuple):
    """The best way of a job.

    Attributes:
        settings: of the way.
        cost: of the whole job.
        step_s: seconds of an optimizer step.
    """

    settings: dict[str, Any]
    cost: Cost
    step_s: float


def quote_here(job: Job, dataset: Dataset, device: Device, history: Sequence[Seen] = ()) -> Quoted:
    """Price a job on this machine by its trace alone: no operator is asked about, and no memory dry-run.

    Raises:
        JobError: as `thrifty.planner.plan`.
        BudgetError: not even one sample at a time fits.
    """
    learning, share = prepared_for(job, dataset, device, Reasons([]))
    found = explore(Local(job, learning, dataset, share, history, whole=device))
    assert found.choice is not None
    quote = quote_of(found.choice)
    return Quoted(dict(found.choice.settings), quote.cost, quote.step_seconds)


def quote_on(job: Job, dataset: Dataset, cluster: Cluster) -> Quoted | None:
    """Price a job on other devices; None where it does not fit them.

    Raises:
        JobError: as `thrifty.planner.cluster_plan`.
    """
    chosen = cluster_plan(job, dataset, cluster, top=1, what_if=False).chosen
    return Quoted(dict(chosen.settings), chosen.cost, chosen.step_seconds) if chosen else None


def sample_flops(job: Job, dataset: Dataset) -> float:
    """Count the FLOPs of learning from one sample once, forward and backward.

    Raises:
        JobError: as `thrifty.planner.plan`.
    """
    learning = decide(job, dataset, Reasons([]))
    shape = shape_of(learning.model)
    if shape is not None:
        return least_flops(shape, 1, again=False)
    # of two, for a norm over a batch wants more than one
    trace = trace_of(learning, dataset, 2, precision="fp32")
    return (trace.forward_flops + trace.backward_flops) / 2
