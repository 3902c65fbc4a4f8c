"""What images that grow would save of a plan's time and energy, where a job does not say and they were declined."""

from __future__ import annotations

from thrifty.planner.growing import growth_offered, shown_to_learn
from thrifty.planner.local import Local
from thrifty.planner.search import Way
from thrifty.spec import Plan
from thrifty.spec.units import format_joules, format_seconds

# share of the time that is worth a word
WORTH_TELLING = 0.02


def might_grow(plan: Plan, local: Local, way: Way) -> str:
    """Say how much less time and energy it would take; an empty string where images cannot, or do, or it saves nothing.

    Args:
        plan: of the way.
        local: the job here.
        way: that was chosen.
    """
    learning = local.learning
    growth = growth_offered(local.job, learning.model, local.dataset, learning.optim)
    if learning.growth is not None or growth is None:
        return ""
    saved = 1 - local.growing(growth).price(way.settings).seconds / local.price(way.settings).seconds
    if saved < WORTH_TELLING:
        return ""
    share = f"{saved:.0%}".replace("%", " %")
    seconds, joules = (format_seconds(saved * plan.cost.seconds.value), format_joules(saved * plan.cost.joules.value))
    return (
        f"{share} less time, about {seconds} and {joules}, by images that grow, where you ask for them: train: "
        f"{{progressive: {growth.begin:g}}}; something else is learned: {shown_to_learn(learning.model.family)[1]}"
    )
