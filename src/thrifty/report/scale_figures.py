"""The plots of `thrifty scale`: losses by data and size with the curve, what a budget buys by size, rates by width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from thrifty.report.figures import BLUE, ORANGE, TEAL, Figure, literal, log_axis, number, plot_layout
from thrifty.report.words import pair, same
from thrifty.spec.scaling import Scaled, Size, SmallRun
from thrifty.spec.units import format_count

# of sizes, from small to large
SHADES = (BLUE, TEAL, "#8a63c9", "#c2527a", "#6b8e23", "#a08040")
_LINE_POINTS = 40
_BAND = "rgba(59,125,216,0.18)"


def scale_figures(scaled: Scaled) -> list[Figure]:
    """Return the figures of an answer: what each size would reach first."""
    return [_valley(scaled), _curves(scaled), *_rates(scaled)]


def _valley(scaled: Scaled) -> Figure:
    offers, best = scaled.offers, scaled.offers[scaled.best]
    xs = [float(offer.size.parameters) for offer in offers]
    lows, highs = ([getattr(offer.loss, end) for offer in offers] for end in ("low", "high"))
    hover = [
        literal(f"{offer.size.model}: loss {offer.loss.value:.3f} on {format_count(offer.data)} {scaled.unit}")
        for offer in offers
    ]
    band = {
        "type": "scatter", "mode": "lines", "x": [*map(number, xs), *map(number, reversed(xs))],
        "y": [*map(number, highs), *map(number, reversed(lows))], "fill": "toself", "fillcolor": _BAND,
        "line": {"width": 0}, "hoverinfo": "skip", "name": "nine in ten",
    }  # fmt: skip
    line = _scatter(xs, [offer.loss.value for offer in offers], "by size", BLUE, "lines+markers", hover)
    mark = _scatter([float(best.size.parameters)], [best.loss.value], "to buy", ORANGE, "markers", [literal("to buy")])
    mark["marker"] = {"color": ORANGE, "size": 13, "symbol": "diamond"}
    data = [band, line, mark] if scaled.determined else [band, line]
    layout = plot_layout(last=1, xaxis=_log("parameters", xs), yaxis=_plain("loss", [*lows, *highs]))
    keys = [("what is left of the budget, by size", BLUE, "line"), ("nine times in ten", BLUE, "pale")]
    if scaled.determined:
        keys.append((f"to buy: {best.size.model}", ORANGE, "mark"))
    said = (
        pair("best at {model}", model=same(best.size.model))
        if scaled.determined
        else pair("which is best is not determined")
    )
    says = pair(
        "Predicted loss by size for what is left of {budget}; {best}.", budget=same(scaled.budget.says), best=said
    )
    return Figure(
        "valley", "What the budget would reach, by size", says, data, {**layout, "height": 340, "hovermode": "closest"},
        tuple(keys),
    )  # fmt: skip


def _curves(scaled: Scaled) -> Figure:
    runs = [run for run in scaled.runs if run.use == "curve" and math.isfinite(run.loss)]
    sizes = {run.size.parameters: run.size for run in runs}
    shown: list[Size] = [sizes[each] for each in sorted(sizes)]
    best = scaled.offers[scaled.best]
    first, last = min(run.data for run in runs), max(*(run.data for run in runs), best.data)
    xs = [first * (last / first) ** (at / (_LINE_POINTS - 1)) for at in range(_LINE_POINTS)]
    law, unique = scaled.curve.law, scaled.curve.unique
    data: list[dict[str, Any]] = []
    keys: list[tuple[str, str, str]] = []
    ys = [run.loss for run in runs]
    for size, color in zip([*shown, best.size], [*SHADES[: len(shown)], ORANGE], strict=True):
        said = [law.loss(size.parameters, x, unique) for x in xs]
        ys += said
        name = f"{format_count(size.parameters)} parameters"
        data.append(_scatter(xs, said, name, color, "lines", [literal(name)] * len(xs)))
        keys.append((name + (", to buy" if size is best.size else ""), color, "line"))
        own = [run for run in runs if run.size == size]
        hover = [literal(f"{run.size.model}, {run.steps:,} steps: {run.loss:.4g}") for run in own]
        data.append(_scatter([run.data for run in own], [run.loss for run in own], name, color, "markers", hover))
    layout = plot_layout(last=1, xaxis=_log(f"{scaled.unit} learned from", xs), yaxis=_plain("loss", ys))
    says = pair(
        "Losses of {count} small runs, and the curve that was fitted to them, by data and size.", count=len(runs)
    )
    return Figure(
        "curves", "The small runs, and the curve", says, data, {**layout, "height": 340, "hovermode": "closest"},
        tuple(keys),
    )  # fmt: skip


def _rates(scaled: Scaled) -> list[Figure]:
    sizes = {run.size.width: run.size for run in scaled.runs}
    ends = [sizes[min(sizes)], sizes[max(sizes)]]
    least = min(run.steps for run in scaled.runs)
    groups: list[tuple[Size, list[SmallRun]]] = [
        (size, sorted((r for r in scaled.runs if r.size == size and r.steps == least), key=lambda r: r.learning_rate))
        for size in ends
    ]
    groups = [(size, [run for run in runs if math.isfinite(run.loss)]) for size, runs in groups]
    if any(len(runs) < 2 for _, runs in groups):
        return []
    data, keys = [], []
    for (size, runs), color in zip(groups, (BLUE, TEAL), strict=True):
        name = f"width {size.width}"
        # how much worse than the best, so that both fit one axis
        best = min(run.loss for run in runs)
        hover = [literal(f"{name}, rate {run.learning_rate:g}: {run.loss:.4g}") for run in runs]
        rates = [run.learning_rate for run in runs]
        data.append(_scatter(rates, [run.loss / best - 1 for run in runs], name, color, "lines+markers", hover))
        keys.append((name, color, "line"))
    rates = [run.learning_rate for _, runs in groups for run in runs]
    layout = plot_layout(
        last=1, xaxis=_log("learning rate", rates, text="{:.2g}"),
        yaxis={"tickformat": ".1%", "rangemode": "tozero", "title": _title("loss above the best")},
    )  # fmt: skip
    says = pair("Loss by learning rate at two widths: {how}.", how=scaled.carried.says)
    return [
        Figure(
            "rates", "Learning rates at two widths", says, data, {**layout, "height": 280, "hovermode": "closest"},
            tuple(keys),
        )
    ]  # fmt: skip


def _scatter(
    xs: Sequence[float], ys: Sequence[float], name: str, color: str, mode: str, hover: Sequence[str]
) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": mode, "name": literal(name), "x": [number(x) for x in xs],
        "y": [number(y) for y in ys], "text": list(hover), "hovertemplate": "%{text}<extra></extra>",
        "line": {"color": color, "width": 2}, "marker": {"color": color, "size": 7},
    }  # fmt: skip


def _title(text: str) -> dict[str, Any]:
    return {"text": text, "standoff": 6, "font": {"size": 12}}


def _log(title: str, values: Sequence[float], text: str = "") -> dict[str, Any]:
    low, high = min(values), max(values)
    axis = log_axis(low, high)
    room = 0.05 * math.log10(high / low) or 0.1
    labels = [text.format(tick) if text else format_count(tick) for tick in axis["tickvals"]]
    ends = [math.log10(low) - room, math.log10(high) + room]
    return {**axis, "ticktext": labels, "range": ends, "showgrid": True, "title": _title(title)}


def _plain(title: str, values: Sequence[float]) -> dict[str, Any]:
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite), max(finite)
    room = 0.06 * (high - low or high)
    return {"range": [low - room, high + room], "title": _title(title)}
