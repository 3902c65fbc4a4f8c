"""What gradient release would save of a plan's memory, where a job does not say."""

from __future__ import annotations

import math

from thrifty.planner.explain import MEMORY_TOLD
from thrifty.planner.local import Local
from thrifty.planner.releasable import releases
from thrifty.planner.search import Way
from thrifty.spec import Plan
from thrifty.spec.units import format_bytes

# share of the peak from which gradients are worth a trace
WORTH_TRACING = 0.04


def might_release(plan: Plan, local: Local, way: Way) -> str:
    """Say how much less memory it would take; an empty string where it is asked about already, or gains nothing.

    Args:
        plan: of the way.
        local: the job here.
        way: that was chosen.
    """
    if local.job.plan.gradient_release is not None or plan.batch.accumulation > 1:
        return ""
    trace, before = local.trace(way.settings), local.peak(way.settings).value
    if trace.gradient_bytes < WORTH_TRACING * before or not releases(local.job, local.learning, plan.precision):
        return ""
    after = local.releasing(True).peak(way.settings).value
    if after > (1 - MEMORY_TOLD) * before:
        return ""
    clip = local.learning.optim.clip
    unclipped = f", with train: {{clip: 0}}: gradients are clipped at {clip:g} now" if math.isfinite(clip) else ""
    share = f"{1 - after / before:.0%}".replace("%", " %")
    return (
        f"{share} less memory, about {format_bytes(before - after)}, where you pin it: plan: {{gradient_release: true}}"
        f"{unclipped}"
    )
