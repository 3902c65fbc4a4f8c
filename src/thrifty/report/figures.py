"""The page's plots as plotly's own JSON: training curves, and where time and memory went."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from thrifty.ledger import Entry
from thrifty.optim import Schedule
from thrifty.report.happened import Mark
from thrifty.report.rows import metric_name, metric_text
from thrifty.report.words import Pair, joined, pair, same, sentences
from thrifty.spec import METRICS, OptimPlan, Plan
from thrifty.spec.events import Evaluated, StepDone
from thrifty.spec.units import format_bytes, format_seconds

MOST_POINTS = 2_000
# Distinct for colour-blind eyes, and at least 3:1 on white and on near-black, so one figure serves both themes.
BLUE, ORANGE, TEAL, GREY = "#3b7dd8", "#d9730d", "#12908a", "#808a94"
_CLEAR = "rgba(0,0,0,0)"
# what happened at a step is marked where it bears on the curve
MOST_MARKS = 40
MARK_COLORS = {
    "skipped": ORANGE, "rolled back": "#c2527a", "rate lowered": "#8a63c9", "fewer at once": "#6b8e23",
    "gone on": GREY, "compiled": BLUE,
}  # fmt: skip
_MARKED = {
    "loss": ("skipped", "rolled back", "gone on"),
    "learning-rate": ("rate lowered", "rolled back"),
    "throughput": ("fewer at once", "gone on", "compiled"),
}
_LOG_FROM = 20.0
MOST_DECADES = 8
# an axis of learning rates: plotly's own labels would be "500µ"
RATES = {"rangemode": "tozero", "tickformat": "~g"}
# an axis of shares; what lies all at one height would else be drawn between minus and plus one
SHARES = {"tickformat": ".0%", "minallowed": 0, "maxallowed": 1.02}
# of figures that are 1 at best
ONE_AT_BEST = {"maxallowed": 1.02}


class Figure(NamedTuple):
    """A plot: its place in the page, a heading, what it shows in words, plotly's data and layout, and its key.

    What it says is a text of the pages' table of words, or both languages. The key is a label, a colour and a look
    (``line``, ``pale``, ``dash``, ``mark``, ``at``) each, drawn by the page: plotly's own legend takes the width that a
    phone does not have.
    """

    id: str
    title: str
    says: str | Pair
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    key: tuple[tuple[str, str, str], ...] = ()


def thin(xs: Sequence[float], ys: Sequence[float], most: int = MOST_POINTS) -> tuple[list[float], list[float]]:
    """Keep the ends, and the least and the greatest of each stretch, so that no spike is lost; at most ``most`` points.

    >>> thin([0, 1, 2, 3, 4, 5, 6, 7], [0, 9, 1, 1, 1, 1, -9, 0], most=6)
    ([0, 1, 2, 4, 6, 7], [0, 9, 1, 1, -9, 0])
    """
    count = len(ys)
    if count <= most:
        return list(xs), list(ys)
    stretches = max(1, (most - 2) // 2)
    kept = {0, count - 1}
    for number in range(stretches):
        stretch = range(1 + number * (count - 2) // stretches, 1 + (number + 1) * (count - 2) // stretches)
        finite = [index for index in stretch if math.isfinite(ys[index])] or list(stretch)
        kept |= {min(finite, key=ys.__getitem__), max(finite, key=ys.__getitem__)}
    order = sorted(kept)
    return [xs[index] for index in order], [ys[index] for index in order]


def smooth(values: Sequence[float], span: float) -> list[float]:
    """Average each value with those before it, weighted by ``exp(-distance / span)``; what is no number is skipped.

    >>> smooth([2.0, 2.0, float("nan"), 2.0], 3.0)
    [2.0, 2.0, 2.0, 2.0]
    """
    keep = math.exp(-1 / span)
    mean, weight = 0.0, 0.0
    out = []
    for value in values:
        if math.isfinite(value):
            mean, weight = keep * mean + value, keep * weight + 1
        out.append(mean / weight if weight else math.nan)
    return out


def curves(
    plan: Plan, steps: Sequence[StepDone], evaluations: Sequence[Evaluated], marks: Sequence[Mark] = ()
) -> list[Figure]:
    """Plot what happened while training: loss, the validation metric, throughput; and the rate, as planned too.

    Steps at which something happened are marked by an upright line in the plots that it bears on.
    """
    figures = []
    if steps:
        figures.append(_loss(steps, {mark.step for mark in marks if mark.kind == "skipped"}))
    if evaluations:
        figures.append(_validation(plan, evaluations))
    figures.append(_learning_rate(plan.optim, steps))
    if steps:
        figures.append(_throughput(steps))
    return [marked(figure, marks) for figure in figures]


def marked(figure: Figure, marks: Sequence[Mark]) -> Figure:
    """Mark the steps at which something happened that bears on the figure: of each kind at most 40, ends included."""
    shapes, keys = [], []
    said: list[Pair] = []
    for kind in _MARKED.get(figure.id, ()):
        at = [mark.step for mark in marks if mark.kind == kind]
        if not at:
            continue
        keys.append((f"{kind}, {len(at):,} times" if len(at) > 1 else kind, MARK_COLORS[kind], "at"))
        said.append(
            pair("{kind} at step {step} and {count} more", kind=kind, step=f"{at[0]:,}", count=f"{len(at) - 1:,}")
            if len(at) > 1
            else pair("{kind} at step {step}", kind=kind, step=f"{at[0]:,}")
        )
        drawn = at if len(at) <= MOST_MARKS else [at[i * (len(at) - 1) // (MOST_MARKS - 1)] for i in range(MOST_MARKS)]
        line = {"color": MARK_COLORS[kind], "width": 1.5, "dash": "dot"}
        shapes += [
            {"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": line, "layer": "below"}
            for x in drawn
        ]
    if not shapes:
        return figure
    says = sentences([figure.says, pair("Marked: {what}.", what=joined(said))])
    return figure._replace(says=says, layout={**figure.layout, "shapes": shapes}, key=(*figure.key, *keys))


def stages(entry: Entry) -> list[Figure]:
    """Plot the seconds and the peak memory of each stage, in the order they ran, attempts together."""
    seconds: dict[str, float] = {}
    peaks: dict[str, float] = {}
    for each in entry.stages:
        seconds[each.stage] = seconds.get(each.stage, 0.0) + each.spent.wall_s
        peak = float(each.spent.device_peak_bytes or each.spent.peak_rss_bytes)
        peaks[each.stage] = max(peaks.get(each.stage, 0.0), peak)
    if not seconds:
        return []
    return [
        bars("stage-time", "Time by stage", seconds, format_seconds, BLUE),
        bars("stage-memory", "Peak memory by stage", peaks, format_bytes, TEAL),
    ]


def _loss(steps: Sequence[StepDone], skipped: Collection[int] = ()) -> Figure:
    # what was skipped taught nothing, and would dwarf what was learned
    xs = [float(each.step) for each in steps]
    raw = [math.nan if each.step in skipped else each.loss for each in steps]
    even = smooth(raw, max(5.0, len(raw) / 60))
    finite = [value for value in even if math.isfinite(value)]
    falls_far = bool(finite) and min(finite) > 0 and max(finite) > _LOG_FROM * min(finite)
    says = f"Training loss over {len(steps):,} steps, from {raw[0]:.3g} to {even[-1]:.3g} smoothed."
    data = [
        line_of(xs, raw, "each step", BLUE, opacity=0.4, width=1),
        line_of(xs, even, "smoothed", BLUE, width=2),
    ]
    layout = plot_layout(last=xs[-1], yaxis=log_axis(min(finite), max(finite)) if falls_far else {})
    return Figure("loss", "Training loss", says, data, layout, _two_keys(BLUE))


def _validation(plan: Plan, evaluations: Sequence[Evaluated]) -> Figure:
    name, target = plan.stop.metric, plan.stop.target
    xs = [float(each.step) for each in evaluations]
    ys = [each.metrics.get(name, math.nan) for each in evaluations]
    best = next((each for each in reversed(evaluations) if each.best), evaluations[-1])
    value = best.metrics.get(name, math.nan)
    shown = f"best: {metric_text(name, value)} at step {best.step:,}"
    data = [line_of(xs, ys, "validation", TEAL, mode="lines+markers")]
    key = [("each evaluation", TEAL, "line")]
    if math.isfinite(target):
        wanted = f"target {metric_text(name, target)}"
        data.append(line_of([0.0, xs[-1]], [target, target], wanted, GREY, dash="dash"))
        key.append((wanted, GREY, "dash"))
    mark = {"color": ORANGE, "size": 12, "symbol": "diamond"}
    data.append({**line_of([float(best.step)], [value], "best", ORANGE, mode="markers"), "marker": mark})
    key.append((shown, ORANGE, "mark"))
    says = pair(
        "Validation {metric} after {count} evaluations; {best}.",
        metric=metric_name(name),
        count=f"{len(evaluations):,}",
        best=shown,
    )
    layout = plot_layout(last=xs[-1], yaxis=_axis_of(name, ys))
    return Figure("validation", f"Validation {metric_name(name)}", says, data, layout, tuple(key))


def _axis_of(name: str, ys: Sequence[float]) -> dict[str, Any]:
    if name in METRICS and METRICS[name].share:
        return SHARES
    finite = [y for y in ys if math.isfinite(y)]
    # around what lies all at one height plotly draws an axis of tiny differences
    level = {"rangemode": "tozero"} if finite and min(finite) == max(finite) else {}
    return {**level, **(ONE_AT_BEST if name in METRICS and METRICS[name].rises else {})}


def _learning_rate(plan: OptimPlan, steps: Sequence[StepDone]) -> Figure:
    """The schedule as planned, and the rate of each step that was taken."""
    total = max(plan.total_steps, 1)
    schedule = Schedule(plan)
    planned = [*range(0, total - 1, math.ceil(total / MOST_POINTS)), total - 1]
    xs, rates = [float(step + 1) for step in planned], [schedule.rate(step) for step in planned]
    parts = [
        pair("Learning rate by step, planned over {count}: {schedule}", count=f"{total:,}", schedule=plan.schedule),
        *([pair("a warm-up of {count}", count=f"{plan.warmup_steps:,}")] if plan.warmup_steps else []),
        pair("highest {rate}", rate=f"{max(rates):.3g}"),
    ]
    data, key = [], []
    if steps:
        taken = [each.learning_rate for each in steps]
        data.append(line_of([float(each.step) for each in steps], taken, "of each step", ORANGE))
        key.append(("of each step", ORANGE, "line"))
        parts.append(pair("at the end of the run {rate}", rate=f"{taken[-1]:.3g}"))
    data.append(line_of(xs, rates, "as planned", GREY, dash="dash"))
    key.append((f"as planned: {plan.schedule}", GREY, "dash"))
    layout = plot_layout(last=max(xs[-1], float(steps[-1].step) if steps else 0.0), yaxis=RATES)
    says = pair("{said}.", said=joined(parts))
    return Figure("learning-rate", "Learning rate", says, data, layout, tuple(key))


def _throughput(steps: Sequence[StepDone]) -> Figure:
    xs, raw = [float(each.step) for each in steps], [each.samples_per_second for each in steps]
    even = smooth(raw, max(5.0, len(raw) / 60))
    says = f"Samples learned from in a second, by step: {even[-1]:.4g} smoothed at the end."
    data = [
        line_of(xs, raw, "each step", TEAL, opacity=0.4, width=1),
        line_of(xs, even, "smoothed", TEAL, width=2),
    ]
    layout = plot_layout(last=xs[-1], yaxis={"rangemode": "tozero"})
    return Figure("throughput", "Throughput, samples a second", says, data, layout, _two_keys(TEAL))


def bars(place: str, title: str, values: dict[str, float], text: Callable[[float], str], color: str) -> Figure:
    """Plot one bar for each value, the text beside it."""
    names, numbers = list(values), list(values.values())
    labels = [text(value) for value in numbers]
    said = [pair("{name} {value}", name=name, value=same(label)) for name, label in zip(names, labels, strict=True)]
    says = pair("{title}: {parts}.", title=title, parts=joined(said))
    bar = {
        "type": "bar", "orientation": "h", "x": [number(value) for value in numbers],
        "y": [literal(name[:28]) for name in names],
        "text": labels, "textposition": "outside", "cliponaxis": False, "marker": {"color": color},
        "hovertemplate": "%{y}: %{text}<extra></extra>", "name": title,
    }  # fmt: skip
    # room for the label beside the longest bar
    xaxis = {"range": [0, max(*numbers, 1e-9) * 1.28], "visible": False}
    yaxis = {"autorange": "reversed", "showgrid": False, "nticks": 0, "dtick": 1}
    layout = plot_layout(last=1, xaxis=xaxis, yaxis=yaxis)
    return Figure(place, title, says, [bar], {**layout, "height": 34 * len(names) + 24, "hovermode": "closest"})


def _two_keys(color: str) -> tuple[tuple[str, str, str], ...]:
    return (("each step", color, "pale"), ("smoothed", color, "line"))


def line_of(
    xs: Sequence[float], ys: Sequence[float], name: str, color: str, *,
    opacity: float = 1.0, width: float = 2, dash: str = "solid", mode: str = "lines",
) -> dict[str, Any]:  # fmt: skip
    """Return plotly's trace of a curve, thinned."""
    xs, ys = thin(xs, ys)
    return {
        "type": "scatter", "mode": mode, "name": literal(name), "x": [number(x) for x in xs],
        "y": [number(y) for y in ys], "opacity": opacity, "line": {"color": color, "width": width, "dash": dash},
        "marker": {"color": color, "size": 5}, "hovertemplate": "%{y:.4g}",
    }  # fmt: skip


def plot_layout(
    *, last: float, xaxis: dict[str, Any] | None = None, yaxis: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return plotly's layout of a figure on the page; ``last`` is the end of an axis of steps."""
    axis = {
        "zeroline": False,
        "automargin": True,
        "gridcolor": GREY,
        "ticks": "",
        "ticklabelstandoff": 6,
        "exponentformat": "none",
        "separatethousands": True,
    }
    steps = {
        "range": [0, last * 1.02],
        "showgrid": False,
        "title": {"text": "step", "standoff": 6, "font": {"size": 12}},
    }
    return {
        "height": 230, "margin": {"l": 8, "r": 12, "t": 10, "b": 8}, "paper_bgcolor": _CLEAR,
        "plot_bgcolor": _CLEAR, "font": {"size": 12}, "hovermode": "x unified", "dragmode": False,
        "hoverlabel": {"bgcolor": "#20262b", "bordercolor": "#20262b", "font": {"color": "#f4f6f7", "size": 12}},
        "showlegend": False, "xaxis": {**axis, **steps, **(xaxis or {})},
        "yaxis": {**axis, "nticks": 6, **(yaxis or {})},
    }  # fmt: skip


def set_axis(layout: dict[str, Any], last: float, ys: Sequence[float]) -> dict[str, Any]:
    """Return a layout whose axes hold another curve too, which ends at step ``last``."""
    xaxis, yaxis = layout["xaxis"], layout["yaxis"]
    xaxis = {**xaxis, "range": [0, max(xaxis["range"][1], last * 1.02)]}
    if yaxis.get("type") == "log":
        known = [*yaxis["tickvals"], *(y for y in ys if y > 0)]
        yaxis = {**yaxis, **log_axis(min(known), max(known))}
    return {**layout, "xaxis": xaxis, "yaxis": yaxis}


def log_axis(low: float, high: float) -> dict[str, Any]:
    """Return an axis of decades whose labels are whole numbers; bounds above zero."""
    # plotly's own labels of a logarithmic axis leave out the zeros: "5, 0.1, 2"
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    powers = range(first, last + 1, max(1, (last - first) // MOST_DECADES + 1 if last - first > MOST_DECADES else 1))
    digits = (1, 2, 5) if len(powers) <= 4 else (1,)
    ticks = [digit * 10.0**power for power in powers for digit in digits]
    # of fewer than two that show, no scale can be read
    if sum(low <= tick <= high for tick in ticks) < 2:
        ticks = [float(f"{low:.2g}"), float(f"{high:.2g}")] if f"{low:.2g}" != f"{high:.2g}" else [float(f"{low:.2g}")]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:.3g}".replace("e-0", "e-") for tick in ticks]}


def number(value: float) -> float | None:
    """Return a value as a page needs it; None for what is no number."""
    # five digits are more than a screen shows; JSON has no word for what is not a number
    return float(f"{value:.5g}") if math.isfinite(value) else None


def literal(text: str) -> str:
    """Write text so that plotly shows it as it is: plotly reads a few HTML tags and entities in labels.

    >>> literal("<b>a & b</b>")
    '&lt;b&gt;a &amp; b&lt;/b&gt;'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
