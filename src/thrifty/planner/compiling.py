"""Decide what is compiled: what a job asks for, else on a GPU what pays back over the steps there are."""

from __future__ import annotations

import thrifty.planner.rules as rules
from thrifty.cost.compiling import compile_gain, compile_seconds, with_compiler
from thrifty.models import FAMILIES
from thrifty.models.compiling import lacking
from thrifty.planner.compilable import BESIDE
from thrifty.planner.correction import scaled
from thrifty.planner.local import Local
from thrifty.planner.rules import Reasons
from thrifty.planner.search import Way
from thrifty.spec import Compile, Cost, Interval, Plan
from thrifty.spec.units import format_seconds

SHOWN = {"none": "nothing", "blocks": "each block", "whole": "the whole model"}


def with_compile(plan: Plan, local: Local, way: Way, why: Reasons) -> Plan:
    """Return the plan with what is compiled, its cost with what that takes and saves; ``why`` gets a line.

    Args:
        plan: of the way, without.
        local: the job here.
        way: that was chosen.
        why: takes the reason.
    """
    asked = local.job.plan.compile
    usual: Compile = "blocks" if local.repeats else "whole"
    compile = asked or usual
    gain, takes = _foreseen(plan, local, way, compile)
    pays, said = rules.compile_pays(gain, takes, plan.stop.steps)
    if asked is not None:
        why.say("compile", SHOWN[asked], "asked for in the job", "job")
    elif (hindrance := _hindrance(plan, local, usual)) or not pays:
        compile = "none"
        why.say("compile", SHOWN["none"], hindrance or said, "measured" if hindrance else "search")
    else:
        why.say("compile", SHOWN[compile], said, "search", rules.DOUBTS["compile"])
    if compile == "none":
        return plan
    cost = _compiled(plan.cost, gain, takes, plan.stop.steps)
    if local.device.kind == "cpu":
        cost = cost.model_copy(update={"peak_bytes": with_compiler(cost.peak_bytes)})
    return plan.model_copy(update={"compile": compile, "cost": cost})


def might_compile(plan: Plan, local: Local, way: Way) -> str:
    """Say that compiling may save time where the plan leaves it out by rule; an empty string where it would not."""
    how: Compile = "blocks" if local.repeats else "whole"
    if plan.compile != "none" or local.job.plan.compile or plan.checkpointing not in BESIDE[how]:
        return ""
    if lacking(local.device.kind):
        return ""
    gain, takes = _foreseen(plan, local, way, how)
    if not rules.compile_pays(gain, takes, plan.stop.steps)[0]:
        return ""
    return f"torch.compile might pay back here, by {format_seconds(gain.value)} a step: plan: {{compile: {how}}}"


def _foreseen(plan: Plan, local: Local, way: Way, compile: Compile) -> tuple[Interval, Interval]:
    """Seconds that compiling saves in each step, and those that it takes."""
    trace = local.typical(way.settings)
    gain = scaled(compile_gain(trace, local.device), plan.batch.accumulation)
    return gain, compile_seconds(trace, local.device.kind, blocks=local.blocks if compile == "blocks" else 1)


def _hindrance(plan: Plan, local: Local, compile: Compile) -> str:
    """Why a job that does not ask is not compiled, whatever it would save; an empty string for no reason."""
    if local.device.kind != "cuda":
        return rules.COMPILE_ON_CPU
    if plan.model.family not in FAMILIES or plan.adapt.kind != "none":
        return "it was tried on models of thrifty's own alone, without adapters: plan.compile asks for it"
    if plan.progressive < 1:
        return "images grow while it is trained, and for each side it would be compiled anew"
    if plan.gradient_release and compile == "whole":
        return "a model compiled whole would hand out all gradients at once, and they are to be released"
    if plan.checkpointing not in BESIDE[compile]:
        return f"it does not go with {plan.checkpointing} checkpointing"
    tool = lacking(local.device.kind)
    return f"it needs {tool}, which is not here" if tool else ""


def _compiled(cost: Cost, gain: Interval, takes: Interval, steps: int) -> Cost:
    """A cost with what compiling takes once and saves in each step; energy and money go with the time."""
    before = cost.seconds
    change = takes.value - steps * gain.value
    low = before.low + takes.low - steps * gain.high
    high = before.high + takes.high - steps * gain.low
    value = max(before.value + change, takes.value)
    seconds = before.model_copy(
        update={
            "low": min(max(low, takes.low), value),
            "value": value,
            "high": max(high, value),
            "method": f"{before.method}; {format_seconds(takes.value)} to compile ({takes.method}), and "
            f"{format_seconds(gain.value)} less a step ({gain.method})",
            "first": max(before.first + change, takes.value) if before.first else 0.0,
        }
    )
    share = value / before.value if before.value else 1.0
    going = {name: scaled(getattr(cost, name), share) for name in ("joules", "usd")}
    return cost.model_copy(update={"seconds": seconds, **going})
