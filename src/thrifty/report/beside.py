"""Another trainer's curves on a run's pictures, dashed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from thrifty.report.figures import GREY, Figure, line_of, plot_layout, set_axis
from thrifty.report.words import Pair, pair, same, sentences
from thrifty.spec import Plan
from thrifty.spec.beside import Beside, Points
from thrifty.spec.events import Evaluated
from thrifty.spec.units import format_seconds

COLOR = "#c2527a"


def with_beside(figures: Sequence[Figure], found: Beside, plan: Plan, evaluations: Sequence[Evaluated]) -> list[Figure]:
    """Draw another training's loss, rate and validation on the pictures that a run has, and its loss on one of its own.

    Args:
        figures: of the run's training.
        found: the other training.
        plan: of the run, whose metric is watched.
        evaluations: of the run.
    """
    drawn = {
        "loss": found.loss,
        "learning-rate": found.learning_rate,
        "validation": found.validation.get(plan.stop.metric, ()),
    }
    shown = [_added(each, drawn[each.id], found.name) if drawn.get(each.id) else each for each in figures]
    own = tuple((float(each.step), each.metrics["loss"]) for each in evaluations if "loss" in each.metrics)
    theirs = found.validation.get("loss", ())
    if plan.stop.metric != "loss" and own and theirs:
        shown.append(_added(_losses(own), theirs, found.name))
    return shown


def beside_text(found: Beside) -> Pair:
    """Say whose curves are dashed, and what that training took."""
    more = [pair(" of {batch} samples on each device", batch=f"{found.batch:,}")] if found.batch else []
    more += [pair(" in {time}", time=format_seconds(found.seconds))] if found.seconds else []
    return pair(
        "Dashed, beside it: {name}, by {source}: {steps} steps{more}. Steps are each trainer's own.",
        name=found.name, source=found.source, steps=f"{found.steps:,}",
        more=Pair("".join(each.en for each in more), "".join(each.zh for each in more)),
    )  # fmt: skip


def _added(figure: Figure, points: Points, name: str) -> Figure:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    trace = line_of(xs, ys, f"beside it: {name}", COLOR, dash="dash")
    beside = pair(
        "Beside it, {name}: from {first} to {last}.", name=same(name), first=f"{ys[0]:.4g}", last=f"{ys[-1]:.4g}"
    )
    says = sentences([figure.says, beside])
    key = (*figure.key, (f"beside it: {name}", COLOR, "dash"))
    return figure._replace(says=says, data=[*figure.data, trace], layout=set_axis(figure.layout, xs[-1], ys), key=key)


def _losses(points: Points) -> Figure:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    data: list[dict[str, Any]] = [line_of(xs, ys, "validation", GREY, mode="lines+markers")]
    says = pair("Validation loss, from {first} to {last}.", first=f"{ys[0]:.4g}", last=f"{ys[-1]:.4g}")
    key = (("each evaluation", GREY, "line"),)
    return Figure("validation-loss", "Validation loss", says, data, plot_layout(last=xs[-1]), key)
