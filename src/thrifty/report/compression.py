"""A compression for readers: what was tried beside the front, the guard's verdict, and when the search is paid back."""

from __future__ import annotations

import math
from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.text import Text

from thrifty.report.figures import BLUE, GREY, ORANGE, Figure, literal, number, plot_layout
from thrifty.report.rows import format_bytes, metric_name, metric_text
from thrifty.report.tables import Columns
from thrifty.report.words import pair
from thrifty.spec import Compression, Measured, Objective, Tried, Verdict
from thrifty.spec.units import format_joules, format_seconds, format_usd

# of each objective: what it is called, its value, and how that is written
SHOWN: dict[Objective, tuple[str, Callable[[Measured], float], Callable[[float], str]]] = {
    "latency": ("time of a request", lambda found: found.latency_s.value, format_seconds),
    "throughput": ("rows a second", lambda found: found.rows_per_s.value, lambda value: f"{value:,.0f}"),
    "tokens": (
        "tokens a second",
        lambda found: found.tokens_per_s.value if found.tokens_per_s else 0.0,
        lambda value: f"{value:,.0f}",
    ),
    "size": ("size", lambda found: float(found.bytes), format_bytes),
    "energy": ("energy of a row", lambda found: found.joules_a_row.value, format_joules),
}
# of what an axis counts
UNITS: dict[Objective, str] = {"latency": ", s", "throughput": "", "tokens": "", "size": ", bytes", "energy": ", J"}
HELD = {"within": "within", "over": "too much", "unproven": "cannot be told"}
MARKS = {"chosen": "▸", "reference": "·", "held": "✓", "over": "✗", "unproven": "?", "failed": "!"}


def verdict_text(found: Verdict) -> str:
    """Say a verdict in one line."""
    name, share = metric_name(found.metric), f"{found.confidence:.0%}"
    figures = f"{metric_text(found.metric, found.reference)} before, {metric_text(found.metric, found.candidate)} after"
    if not found.seen:
        drop = "no drop that noise would not explain"
    else:
        drop = f"a {'drop' if found.drop > 0 else 'rise'} of {abs(found.drop):.2g}"
    more = f"; {found.rows_needed:,} rows like these would prove it" if found.rows_needed else ""
    return (
        f"{name} on {found.rows:,} {found.split} rows: {figures}: {drop}; at most {found.high + 0.0:.2g} in {share} of "
        f"cases, allowed {found.allowed:.2g}: {HELD[found.held]}{more} ({found.method})"
    )


def payback_text(made: Compression) -> str:
    """Say in one line what the search cost and when that is paid back."""
    paid = made.payback
    of = "" if paid.rows == 1 else f" of {paid.rows} rows"
    cost = f"the search took {format_seconds(paid.seconds)}, {format_joules(paid.joules)}, {format_usd(paid.usd)}"
    if math.isinf(paid.requests):
        return f"{cost}; it saves no time of a request{of}"
    saved = (
        f"{format_seconds(paid.saved_seconds)}, {format_joules(max(0.0, paid.saved_joules))}, "
        f"{format_usd(paid.saved_usd)}"
    )
    energy = "" if math.isinf(paid.requests_by_joules) else f", its energy after {paid.requests_by_joules:,.0f}"
    return f"{cost}; a thousand requests{of} save {saved}: its time is paid back after {paid.requests:,.0f}{energy}"


def trial_rows(made: Compression) -> list[list[str]]:
    """A row a trial: mark, moves, objective, drop, its bounds, seconds predicted and taken, what its last move did."""
    _, value, text = SHOWN[made.objective]
    return [
        [
            MARKS[each.status],
            " + ".join(each.moves) or "as trained",
            text(value(each.measured)) if each.measured else "",
            f"{each.verdict.drop:+.2g}" if each.verdict and each.moves else "",
            f"{each.verdict.low:+.2g} to {each.verdict.high:+.2g}" if each.verdict and each.moves else "",
            format_seconds(each.predicted_s) if each.moves else "",
            format_seconds(each.took_s),
            each.reason or "".join(each.says[-1:]),
        ]
        for each in made.trials
    ]


def compression_view(made: Compression) -> RenderableType:
    """Show on a terminal what was tried, what was chosen, the verdicts and the pay-back."""
    name, value, text = SHOWN[made.objective]
    headers = ["", "moves", f">{name}", ">drop", ">between", ">predicted", ">took", "~what it did"]
    before, after = value(made.before), value(made.after)
    times = after / before if made.objective in {"throughput", "tokens"} else before / after
    parts: list[RenderableType] = [
        Text(f"trials, for {made.objective} at a batch of {made.batch}", style="bold"),
        Columns(headers, trial_rows(made)),
    ]
    if made.left_out:
        parts += ["", Text("not tried", style="bold"), Columns(["moves", "~why"], map(list, made.left_out.items()))]
    parts += [
        "",
        Text(f"chosen  {' + '.join(made.moves) or 'as trained'}: {name} {text(before)} to {text(after)}, {times:.2f}×"),
        Text(f"guard   {verdict_text(made.validation)}"),
        *([Text(f"test    {verdict_text(made.test)}")] if made.test else []),
        Text(f"bill    {payback_text(made)}"),
        Text(f"ended   {made.ended}"),
    ]
    return Group(*parts)


def compression_figures(made: Compression) -> list[Figure]:
    """Plot drop against objective: every trial, with the front of those that no other beats."""
    name, value, text = SHOWN[made.objective]
    placed = [
        (value(each.measured), each.verdict.drop, each)
        for each in made.trials
        if each.verdict is not None and each.measured is not None
    ]
    placed.sort(key=lambda each: each[0])

    def points(
        some: list[tuple[float, float, Tried]], label: str, color: str, mode: str, size: int
    ) -> dict[str, object]:
        return {
            "type": "scatter", "mode": mode, "name": label,
            "x": [number(x) for x, _, _ in some], "y": [number(y) for _, y, _ in some],
            "text": [literal(" + ".join(each.moves) or "as trained") for _, _, each in some],
            "marker": {"color": color, "size": size}, "line": {"color": color, "width": 1.5, "dash": "dot"},
            "hovertemplate": "%{text}: %{x:.4g}, drop %{y:.3g}<extra></extra>",
        }  # fmt: skip

    front = [each for each in placed if each[2].front]
    chosen = [each for each in placed if each[2].moves == made.moves]
    data = [
        points([each for each in placed if not each[2].front], "tried", GREY, "markers", 8),
        points(front, "front", BLUE, "lines+markers", 9),
        points(chosen, "chosen", ORANGE, "markers", 13),
    ]
    allowed = made.validation.allowed
    most = max((x for x, _, _ in placed), default=1.0)
    layout = plot_layout(
        last=1,
        xaxis={
            "range": [0, most * 1.08],
            "title": {"text": literal(name + UNITS[made.objective]), "standoff": 6, "font": {"size": 12}},
        },
        yaxis={"title": {"text": f"drop of {literal(metric_name(made.validation.metric))}", "font": {"size": 12}}},
    )
    line = {"color": GREY, "width": 1, "dash": "dash"}
    shapes = [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": allowed, "y1": allowed, "line": line}]
    says = pair(
        "{count} candidates by {name} and drop; chosen: {moves}, {value}; allowed is a drop of {allowed}.",
        count=len(placed),
        name=name,
        moves=" + ".join(made.moves) or "as trained",
        value=text(value(made.after)),
        allowed=f"{allowed:.2g}",
    )
    key = (
        ("tried", GREY, "mark"), ("no other is as good and as cheap", BLUE, "line"), ("chosen", ORANGE, "mark"),
        ("allowed", GREY, "dash"),
    )  # fmt: skip
    layout = {**layout, "shapes": shapes, "hovermode": "closest", "height": 280}
    return [Figure("compression", f"Drop and {name}", says, data, layout, key)]
