"""Decide whether batches are made beside the steps, and what of memory that takes."""

from __future__ import annotations

from thrifty.cost import Trace
from thrifty.data import STEPS_AHEAD
from thrifty.planner.rules import Reasons
from thrifty.planner.rules import loading as rule
from thrifty.spec import Device, Job, Plan
from thrifty.spec.plan import Loading
from thrifty.spec.units import format_bytes

SHOWN = {"between": "between steps", "beside": f"beside the steps, {STEPS_AHEAD} ahead"}


def loading_of(job: Job, device: Device) -> Loading:
    """Say how the batches of a job are made: as it asks, else by rule."""
    return job.plan.loading or rule(job, device)[0]


def say_loading(plan: Plan, job: Job, device: Device, trace: Trace, why: Reasons) -> None:
    """Give the reason of how a plan's batches are made, unless it has one.

    Args:
        plan: the fitted one.
        job, device: what it is for.
        trace: of its largest micro-batch.
        why: takes the line.
    """
    if any(line.field == "loading" for line in why.lines):
        return
    asked = job.plan.loading
    said = "asked for in the job" if asked else rule(job, device)[1]
    held = ahead_bytes(plan, trace)
    holds = f"; what waits takes up to {format_bytes(held)} of the processor's memory" if held else ""
    why.say("loading", SHOWN[plan.loading], said + holds, "job" if asked else "rule")


def ahead_bytes(plan: Plan, trace: Trace) -> int:
    """Bytes of the processor's memory that batches made ahead take at most: those that wait, and what one is made of.

    Args:
        plan: for how they are made.
        trace: of its largest micro-batch.
    """
    if plan.loading == "between":
        return 0
    return (STEPS_AHEAD + 1) * plan.batch.accumulation * trace.input_bytes
