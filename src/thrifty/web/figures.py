"""Plots that runs share: their curves over one another, how far predictions were off, and the trials of a study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from thrifty.report.figures import (
    BLUE,
    GREY,
    ORANGE,
    TEAL,
    Figure,
    literal,
    log_axis,
    number,
    plot_layout,
    smooth,
    thin,
)
from thrifty.report.plan_figures import PALETTE
from thrifty.report.rows import difference_text, metric_name, metric_text
from thrifty.report.words import Pair, joined, pair, same
from thrifty.spec.metrics import METRICS

# points of a group at most; the worst are among them
_MOST_POINTS = 400
_ROW_PIXELS = 46
_FELL_FAR = 20.0
# trials that have a tick each
_FEW = 12
# of measured over predicted
_NEAR_TICKS = (0.3, 0.5, 0.7, 0.85, 1, 1.2, 1.5, 2, 3)
_TICKS = (0.01, 0.03, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 100)

Curve = tuple[str, Sequence[float], Sequence[float]]


def over_one_another(
    place: str, title: str, runs: Sequence[Curve], *, share: bool = False, even: bool = False
) -> Figure:
    """Plot the same curve of several runs.

    Args:
        place: id of the figure.
        title: its heading.
        runs: of each its name, steps and values.
        share: values are parts of one.
        even: smooth them.
    """
    data, keys, last = [], [], 1.0
    values: list[float] = []
    said: list[str | Pair] = []
    for (name, xs, ys), color in zip(runs, PALETTE, strict=False):
        shown = smooth(ys, max(5.0, len(ys) / 60)) if even else list(ys)
        finite = [y for y in shown if math.isfinite(y)]
        values += finite
        thinned = thin(xs, shown)
        data.append(
            {
                "type": "scatter", "mode": "lines" if even else "lines+markers", "name": literal(name),
                "x": [number(x) for x in thinned[0]], "y": [number(y) for y in thinned[1]],
                "line": {"color": color, "width": 2}, "marker": {"color": color, "size": 5},
                "hovertemplate": "%{y:.4g}",
            }
        )  # fmt: skip
        keys.append((name, color, "line"))
        last = max([last, *xs])
        said.append(
            pair("{name} ends at {value}", name=same(name), value=f"{finite[-1]:.3g}")
            if finite
            else pair("{name} has none", name=same(name))
        )
    far = bool(values) and min(values) > 0 and max(values) > _FELL_FAR * min(values)
    yaxis = {"tickformat": ".0%"} if share else log_axis(min(values), max(values)) if far else {}
    layout = plot_layout(last=last, yaxis=yaxis)
    says = pair("{title} by step: {ends}.", title=title, ends=joined(said))
    return Figure(place, title, says, data, {**layout, "height": 280}, tuple(keys))


def misses(title: str, groups: Mapping[str, Sequence[tuple[str, float]]]) -> Figure:
    """Plot measured over due of many runs, a row for each group: a point a run, and the median.

    Args:
        title: heading of the figure.
        groups: by name, the worst first: of each run its name, and measured over due.
    """
    names = list(groups)
    points, medians = [], []
    for row, name in enumerate(names):
        worst_first = sorted(groups[name], key=lambda pair: -abs(math.log(pair[1])))
        every = max(1, len(worst_first) // _MOST_POINTS)
        shown = worst_first[: _MOST_POINTS // 4] + worst_first[_MOST_POINTS // 4 :: every]
        # spread a little, so that many alike are seen to be many
        points += [(ratio, row + 0.2 * math.sin(7.0 * at), run) for at, (run, ratio) in enumerate(shown)]
        ordered = sorted(ratio for _, ratio in groups[name])
        medians.append(ordered[len(ordered) // 2])
    ratios = [ratio for ratio, _, _ in points]
    low, high = min([*ratios, 0.8]), max([*ratios, 1.25])
    ends = [math.log10(low) - 0.05, math.log10(high) + 0.05]
    ticks = [tick for tick in (_NEAR_TICKS if high < 4 * low else _TICKS) if low * 0.9 <= tick <= high * 1.1]
    data: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "markers", "name": "a run", "x": [number(x) for x, _, _ in points],
            "y": [number(y) for _, y, _ in points],
            "text": [literal(f"{run}: {difference_text(x - 1)}") for x, _, run in points],
            "hovertemplate": "%{text}<extra></extra>", "marker": {"color": BLUE, "size": 7, "opacity": 0.55},
        },
        {
            "type": "scatter", "mode": "markers", "name": "median", "x": [number(each) for each in medians],
            "y": list(range(len(names))), "hovertemplate": "median: %{text}<extra></extra>",
            "text": [difference_text(each - 1) for each in medians],
            "marker": {"color": ORANGE, "size": 12, "symbol": "diamond"},
        },
    ]  # fmt: skip
    layout = plot_layout(
        last=1,
        xaxis={
            "type": "log", "range": ends, "tickvals": ticks, "ticktext": [f"×{tick:g}" for tick in ticks],
            "title": {"text": "measured over predicted", "standoff": 6, "font": {"size": 12}},
            "showgrid": True, "tickangle": 0,
        },
        yaxis={"visible": False, "range": [len(names) - 0.5, -0.75]},
    )  # fmt: skip
    # above its row a name takes nothing of a phone's width
    layout["annotations"] = [
        {
            "x": 0, "xref": "paper", "xanchor": "left", "y": row - 0.46, "text": literal(name[:60]), "showarrow": False,
            "font": {"size": 12, "color": GREY},
        }
        for row, name in enumerate(names)
    ]  # fmt: skip
    layout["shapes"] = [
        {"type": "line", "x0": 1, "x1": 1, "yref": "paper", "y0": 0, "y1": 1, "line": {"color": GREY, "width": 1.5}}
    ]
    said = joined([same(f"{name} {difference_text(each - 1)}") for name, each in zip(names, medians, strict=True)])
    says = pair("{title}; medians: {medians}.", title=title, medians=said)
    keys = (("a run", BLUE, "dot"), ("the median of a row", ORANGE, "mark"))
    height = _ROW_PIXELS * len(names) + 70
    return Figure("misses", title, says, data, {**layout, "height": height, "hovermode": "closest"}, keys)


def trials(place: str, metric: str, values: Sequence[tuple[int, float]], *, rises: bool) -> Figure:
    """Plot what each trial of a study reached, and the best until then.

    Args:
        place: id of the figure.
        metric: that they are judged by.
        values: number and figure of each trial that reached one.
        rises: more is better.
    """
    best: list[float] = []
    for _, value in values:
        best.append(value if not best else max(best[-1], value) if rises else min(best[-1], value))
    xs = [float(at + 1) for at, _ in values]
    share = metric in METRICS and METRICS[metric].share
    data = [
        {
            "type": "scatter", "mode": "markers", "name": "a trial", "x": xs, "y": [number(y) for _, y in values],
            "marker": {"color": TEAL, "size": 8}, "hovertemplate": "trial %{x}: %{y:.4g}<extra></extra>",
        },
        {
            "type": "scatter", "mode": "lines", "name": "the best until then", "x": xs, "y": [number(y) for y in best],
            "line": {"color": ORANGE, "width": 2, "shape": "hv"},
            "hovertemplate": "best until %{x}: %{y:.4g}<extra></extra>",
        },
    ]  # fmt: skip
    layout = plot_layout(
        last=max(xs, default=1.0),
        xaxis={
            "title": {"text": "trial", "standoff": 6, "font": {"size": 12}},
            "range": [0.5, max(xs, default=1.0) + 0.5],
            **({"dtick": 1} if len(xs) <= _FEW else {}),
        },
        yaxis={"tickformat": ".1%"} if share else {},
    )
    title = f"{metric_name(metric)[:1].upper()}{metric_name(metric)[1:]} of {len(values):,} trials"
    says: str | Pair = (
        pair("{title}; the best is {value}.", title=title, value=metric_text(metric, best[-1])) if best else title
    )
    keys = (("a trial", TEAL, "dot"), ("the best until then", ORANGE, "line"))
    return Figure(place, title, says, data, {**layout, "hovermode": "closest"}, keys)
