"""The curve of a served bundle: time of a batch by its rows, and the rows a second that it gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from thrifty.report.figures import BLUE, TEAL, Figure, literal, number, plot_layout
from thrifty.report.words import Pair, joined, pair
from thrifty.spec.answering import Answering

COLORS = (BLUE, TEAL, "#8a63c9", "#c2527a")


def answering_figures(found: Sequence[Answering]) -> list[Figure]:
    """Plot what servers measured, a line for each number of cores; the first four."""
    shown = [each for each in found if each.seconds][: len(COLORS)]
    if not shown:
        return []
    return [
        _figure("answering", "Time of a batch by its rows", "milliseconds", shown, lambda rows, s: 1e3 * s),
        _figure(
            "answering-rate", "Rows a second by the rows of a batch", "rows a second", shown, lambda rows, s: rows / s
        ),
    ]


def cores_text(found: Sequence[Answering]) -> str:
    """Print on how many cores the curves were measured.

    >>> cores_text([Answering(seconds={1: 0.1}, cores=1), Answering(seconds={1: 0.1}, cores=2)])
    '1 and 2'
    """
    cores = list(dict.fromkeys(str(each.cores) for each in found[: len(COLORS)]))
    return " and ".join([*([", ".join(cores[:-1])] if cores[1:] else []), *cores[-1:]])


def _figure(
    place: str, title: str, unit: str, shown: Sequence[Answering], value: Callable[[int, float], float]
) -> Figure:
    data, key = [], []
    said: list[Pair] = []
    for each, color in zip(shown, COLORS, strict=False):
        rows = sorted(each.seconds)
        ys = [value(count, each.seconds[count]) for count in rows]
        name = f"{each.cores} cores"
        data.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": literal(name), "x": rows,
                "y": [number(y) for y in ys], "line": {"color": color, "width": 2},
                "marker": {"color": color, "size": 6}, "hovertemplate": "%{x}: %{y:.4g}",
            }
        )  # fmt: skip
        key.append((name, color, "line"))
        said.append(
            pair(
                "{name}: {first} for {few} to {last} for {many}",
                name=name, first=f"{ys[0]:.3g}", few=f"{rows[0]:,}", last=f"{ys[-1]:.3g}", many=f"{rows[-1]:,}",
            )
        )  # fmt: skip
    most = max(max(each.seconds) for each in shown)
    axis = {"range": [0, most * 1.05], "title": {"text": "rows of a batch", "standoff": 6, "font": {"size": 12}}}
    layout = plot_layout(
        last=most,
        xaxis=axis,
        yaxis={"rangemode": "tozero", "title": {"text": unit, "standoff": 6, "font": {"size": 12}}},
    )
    says = pair("{title}, {unit}: {said}.", title=title, unit=unit, said=joined(said))
    return Figure(place, title, says, data, {**layout, "hovermode": "closest"}, tuple(key) if len(shown) > 1 else ())
