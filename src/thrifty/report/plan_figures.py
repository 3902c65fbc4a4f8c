"""The plots of a `Proposal`: time against memory and money, memory over a step, where time goes, what would help."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from thrifty.report.figures import BLUE, GREY, ORANGE, TEAL, Figure, bars, literal, log_axis, number, plot_layout
from thrifty.report.words import pair
from thrifty.spec.proposal import Machine, Offer, Proposal, Timeline
from thrifty.spec.units import format_bytes, format_seconds, format_usd

# from the bottom up, distinct for colour-blind eyes
PALETTE = (BLUE, TEAL, ORANGE, "#8a63c9", "#c2527a", "#6b8e23", "#a08040", GREY)
# ways that take so many times as long as the quickest would press all others into a corner
MOST_LONGER = 3.0
# and machines that cost so many times the cheapest
MOST_DEARER = 10.0
HOUR, GIB = 3600.0, float(1 << 30)


def proposal_figures(proposal: Proposal) -> list[Figure]:
    """Return the figures that a proposal has something for."""
    found = []
    if proposal.machines:
        found.append(_machines(proposal.machines))
    if len(proposal.front) > 1 and not proposal.machines:
        found.append(_front(proposal))
    if proposal.timeline is not None:
        found.append(timeline_figure(proposal.timeline))
    if proposal.memory_holds:
        found.append(
            bars(
                "memory-holds", "What holds the memory at its peak", _largest(proposal.memory_holds), format_bytes, TEAL
            )
        )
    if proposal.time_goes:
        found.append(bars("time-goes", "Where a step's time goes", _largest(proposal.time_goes), _percent, BLUE))
    if proposal.limited_by:
        gains = {f"2 x {row.number}": row.speedup - 1 for row in proposal.limited_by}
        found.append(bars("doublings", "How much faster with twice one number", gains, _percent, ORANGE))
    return found


def _front(proposal: Proposal) -> Figure:
    quickest = min(offer.cost.seconds.value for offer in proposal.front)
    near = [offer for offer in proposal.front if offer.cost.seconds.value <= MOST_LONGER * quickest]
    shown = [*near, *(offer for offer in proposal.offers if offer.mark == "usual")]
    scale, unit = _time_scale([offer.cost.seconds.value for offer in shown])
    memory = [offer.cost.peak_bytes.value / GIB for offer in shown]
    groups = [
        ("on the front", BLUE, "circle", 8, near),
        ("chosen", ORANGE, "diamond", 13, [o for o in proposal.offers if o.mark == "chosen"]),
        ("as most people run it", GREY, "square", 11, [o for o in proposal.offers if o.mark == "usual"]),
    ]
    data = [
        _points(name, color, symbol, size, offers, lambda o: o.cost.peak_bytes.value / GIB, scale)
        for name, color, symbol, size, offers in groups
        if offers
    ]
    layout = plot_layout(
        last=1,
        xaxis=_titled("memory of a device, GiB", memory),
        yaxis=_titled(f"time, {unit}", [o.cost.seconds.value / scale for o in shown]),
    )
    says = pair("Time against memory of {count} ways that no other beats; the chosen one marked.", count=len(near))
    keys = tuple((name, color, "mark") for name, color, _, _, offers in groups if offers)
    return Figure("front", "Time against memory", says, data, {**layout, "height": 340, "hovermode": "closest"}, keys)


def _machines(machines: Sequence[Machine]) -> Figure:
    priced = [row for row in machines if row.offer.cost.usd.value > 0]
    cheapest = min((row.offer.cost.usd.value for row in priced), default=0.0)
    priced = [row for row in priced if row.offer.cost.usd.value <= MOST_DEARER * cheapest]
    scale, unit = _time_scale([row.offer.cost.seconds.value for row in priced])
    groups = [
        ("no other is faster and cheaper", ORANGE, "diamond", 12, [row for row in priced if row.on_front]),
        ("the cheapest number of a device", BLUE, "circle", 8, [row for row in priced if not row.on_front]),
    ]
    data = [_machine_points(name, color, symbol, size, rows, scale) for name, color, symbol, size, rows in groups]
    money = [row.offer.cost.usd.value for row in priced]
    days = [row.offer.cost.seconds.value / scale for row in priced]
    layout = plot_layout(last=1, xaxis=_titled("money", money, format_usd), yaxis=_titled(f"time, {unit}", days))
    says = pair(
        "Time against money on {count} machines of the catalogue; those far dearer are left out.", count=len(priced)
    )
    keys = tuple((name, color, "mark") for name, color, _, _, rows in groups if rows)
    return Figure("machines", "Time against money", says, data, {**layout, "height": 420, "hovermode": "closest"}, keys)


def _machine_points(
    name: str, color: str, symbol: str, size: int, rows: Sequence[Machine], scale: float
) -> dict[str, Any]:
    """Points of machines; a device's name stands at its cheapest number alone, the rest is told on hovering."""
    named: set[str] = set()
    labels = []
    for row in rows:
        labels.append("" if row.device in named or color != ORANGE else literal(row.name))
        named.add(row.device)
    said = [
        literal(f"{row.name}: {format_seconds(row.offer.cost.seconds.value)}, {format_usd(row.offer.cost.usd.value)}")
        for row in rows
    ]
    return {
        "type": "scatter", "mode": "markers+text", "name": name, "text": labels, "textposition": "top right",
        "x": [number(row.offer.cost.usd.value) for row in rows],
        "y": [number(row.offer.cost.seconds.value / scale) for row in rows],
        "customdata": said, "hovertemplate": "%{customdata}<extra></extra>", "cliponaxis": False,
        "textfont": {"size": 11}, "marker": {"color": color, "size": size, "symbol": symbol},
    }  # fmt: skip


def timeline_figure(line: Timeline) -> Figure:
    """Plot memory over a step, what holds it stacked."""
    data = []
    most = max((sum(sizes) for sizes in zip(*line.held.values(), strict=True)), default=0.0)
    size, unit = (GIB, "GiB") if most >= GIB / 4 else (float(1 << 20), "MiB")
    for (holder, held), color in zip(line.held.items(), PALETTE * 2, strict=False):
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "stackgroup": "memory",
                "name": literal(holder),
                "x": [number(at) for at in line.at],
                "y": [number(bytes_ / size) for bytes_ in held],
                "line": {"color": color, "width": 0},
                "fillcolor": color,
                "hovertemplate": "%{y:.3g} " + unit,
            }
        )
    layout = plot_layout(
        last=max(line.at, default=1.0),
        xaxis={"title": {"text": line.axis, "standoff": 6, "font": {"size": 12}}},
        yaxis={"rangemode": "tozero", "title": {"text": unit, "standoff": 6, "font": {"size": 12}}},
    )
    keys = tuple((holder, color, "line") for holder, color in zip(line.held, PALETTE * 2, strict=False))
    return Figure("timeline", "Memory over a step", line.says, data, {**layout, "height": 300}, keys)


def _points(
    name: str, color: str, symbol: str, size: int, offers: Sequence[Offer], x: Callable[[Offer], float], scale: float
) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "markers", "name": name, "x": [number(x(offer)) for offer in offers],
        "y": [number(offer.cost.seconds.value / scale) for offer in offers],
        "text": [literal(offer.says) for offer in offers], "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": color, "size": size, "symbol": symbol},
    }  # fmt: skip


def _titled(
    title: str,
    values: Sequence[float],
    text: Callable[[float], str] = lambda value: f"{value:,.0f}" if value >= 1 else f"{value:.3g}",
) -> dict[str, Any]:
    """An axis with a title; logarithmic when the values span more than fivefold; with room on both ends."""
    low, high = min(values, default=1.0), max(values, default=1.0)
    named = {"title": {"text": title, "standoff": 6, "font": {"size": 12}}, "showgrid": True}
    if low > 0 and high > 5 * low:
        axis = log_axis(low, high)
        room = 0.06 * math.log10(high / low)
        ends = [math.log10(low) - room, math.log10(high) + 2 * room]
        return {**axis, **named, "ticktext": [text(tick) for tick in axis["tickvals"]], "range": ends}
    room = 0.08 * (high - low or high or 1.0)
    ticks = {"tickprefix": "$"} if text is format_usd else {}
    return {**named, **ticks, "range": [max(0.0, low - room), high + room]}


def _time_scale(seconds: Sequence[float]) -> tuple[float, str]:
    longest = max(seconds, default=1.0)
    for size, unit in ((24 * HOUR, "days"), (HOUR, "hours"), (60.0, "minutes")):
        if longest >= 2 * size:
            return size, unit
    return 1.0, "seconds"


def _largest(parts: dict[str, float], most: int = 8) -> dict[str, float]:
    return dict(sorted(parts.items(), key=lambda pair: -pair[1])[:most])


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.1f} %"
