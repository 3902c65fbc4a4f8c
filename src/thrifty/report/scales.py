"""Plots of how large activations and gradients were before the first step, by depth."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from thrifty.report.figures import BLUE, GREY, ORANGE, TEAL, Figure, literal, log_axis, number, plot_layout
from thrifty.report.words import in_parts, pair
from thrifty.spec.events import Event, Initialised

# of kinds of layers that a model repeats; those beyond, and what comes once, are grey
COLORS = (BLUE, ORANGE, TEAL, "#8a63c9", "#c2527a", "#6b8e23")
LONGEST_NAME = 60


def scales(events: Sequence[Event]) -> list[Figure]:
    """Plot what the last `Initialised` of a run says: activations and gradients, by layer; nothing without one."""
    found = [event for event in events if isinstance(event, Initialised)]
    if not found or not found[-1].layers:
        return []
    seen = found[-1]
    return [
        _by_depth("activations", "Activations by depth", seen.layers, seen.activations),
        _by_depth("gradients", "Gradients by depth", seen.layers, seen.gradients),
    ]


def spread(values: Sequence[float]) -> str:
    """Say how far the sizes of layers lie apart.

    >>> spread([0.1, 1.0, 0.5]), spread([0.0, 2.0, 1.0])
    ('from 0.1 to 1', 'from 1 to 2, and 0 in 1')
    """
    sizes = [value for value in values if math.isfinite(value) and value > 0]
    zeros, broken = sum(value == 0 for value in values), sum(not math.isfinite(value) for value in values)
    parts = [f"from {min(sizes):.3g} to {max(sizes):.3g}"] if sizes else []
    parts += [f"and 0 in {zeros:,}"] if zeros else []
    parts += [f"and no numbers in {broken:,}"] if broken else []
    return ", ".join(parts).removeprefix("and ")


def _by_depth(place: str, title: str, names: Sequence[str], values: Sequence[float]) -> Figure:
    kinds = [re.sub(r"\d+", "*", name) for name in names]
    repeated = [kind for kind, count in Counter(kinds).most_common(len(COLORS)) if count > 1]
    colors = dict(zip((kind for kind in dict.fromkeys(kinds) if kind in repeated), COLORS, strict=False))
    points = [
        (at, name, kind, value) for at, (name, kind, value) in enumerate(zip(names, kinds, values, strict=True), 1)
    ]
    data = [_trace(kind, color, [each for each in points if each[2] == kind]) for kind, color in colors.items()]
    key = [(kind, color, "line") for kind, color in colors.items()]
    others = [each for each in points if each[2] not in colors]
    if others:
        data.append(_trace("others", GREY, others, mode="markers"))
        key.append(("others", GREY, "mark"))
    sizes = [value for value in values if math.isfinite(value) and value > 0]
    says = pair(
        "{title}: root mean square of {count} layers in order of computation, {spread}.",
        title=title,
        count=f"{len(names):,}",
        spread=in_parts(spread(values)),
    )
    layout = plot_layout(
        last=len(names),
        xaxis={
            **whole_ticks(len(names)),
            "range": [0, len(names) + 1],
            "title": {"text": "layer", "standoff": 6, "font": {"size": 12}},
        },
        yaxis=log_axis(min(sizes), max(sizes)) if sizes else {},
    )
    return Figure(place, title, says, data, {**layout, "hovermode": "closest"}, tuple(key))


def whole_ticks(count: int) -> dict[str, Any]:
    """Return ticks of an axis of so many that are counted: plotly would put halves between few."""
    return {"dtick": 1, "tick0": 0} if count < 8 else {}


def _trace(
    kind: str, color: str, points: Sequence[tuple[int, str, str, float]], *, mode: str = "lines+markers"
) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": mode, "name": literal(kind[:LONGEST_NAME]), "x": [at for at, *_ in points],
        # a logarithm has no place for zero
        "y": [number(value) if value > 0 else None for *_, value in points],
        "text": [literal(name[-LONGEST_NAME:]) for _, name, *_ in points],
        "line": {"color": color, "width": 1.5}, "marker": {"color": color, "size": 6},
        "hovertemplate": "%{text}: %{y:.3g}<extra></extra>",
    }  # fmt: skip
