"""The page that compares runs: what differed in job and plan, what it changed in the figures, and what it cost."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from thrifty.errors import RequestError
from thrifty.ledger import Entry
from thrifty.report.figures import Figure
from thrifty.report.rows import QUANTITIES, UNKNOWN, difference_text, metric_name, metric_text
from thrifty.report.words import Pair, joined, pair, same, sentences
from thrifty.runs import RunFolder
from thrifty.spec.cost import Spent
from thrifty.spec.metrics import METRICS
from thrifty.web.figures import Curve, over_one_another
from thrifty.web.render import page
from thrifty.web.site import Site

MOST = 6
# of a plan, what says nothing of how it would run; of a job, what it is called
_LEFT_OUT = {"key", "cost", "why", "job", "name"}
_COUNTED = {"samples", "tokens", "words"}
_COSTS: dict[str, Callable[[Spent], float]] = {
    "seconds": lambda spent: spent.wall_s,
    "peak_bytes": lambda spent: float(spent.device_peak_bytes or spent.peak_rss_bytes),
    "joules": lambda spent: spent.joules,
    "usd": lambda spent: spent.usd,
}


class Row(NamedTuple):
    """One thing that runs are compared by.

    Attributes:
        what: it is.
        cells: of each run, as text.
        beside: of each run but the first, against it; empty where nothing can be said.
        best: place of the best run; -1 where there is none.
    """

    what: str
    cells: tuple[str, ...]
    beside: tuple[str, ...] = ()
    best: int = -1


def show(site: Site, request: Request) -> Response:
    """Compare the runs whose numbers a query gives as ``run``, as often as there are some."""
    numbers = list(dict.fromkeys(request.query_params.getlist("run")))
    if not 2 <= len(numbers) <= MOST:
        raise RequestError(f"{len(numbers)} runs are chosen", mend=f"Choose 2 to {MOST} on the page of runs.")
    if wrong := next((each for each in numbers if not each.isdecimal() or len(each) > 40), None):
        raise RequestError(f"'{wrong}' is no number of a run")
    entries = [site.entry(int(each)) for each in numbers]
    names = _told_apart(entries)
    asked = [site.ledger.asked(entry.id) for entry in entries]
    jobs, plans = ([flat(_read(text[at])) for text in asked] for at in (0, 1))
    differ = [*_named("asked", differences(jobs)), *_named("planned", differences(plans))]
    figures = _figures(site, entries, names)
    measured, costs = metric_rows(entries), cost_rows(entries)
    return page(
        "compare.html",
        here="runs",
        title=pair("{count} runs compared", count=len(entries)),
        runs=[(entry.id, name, entry.status) for entry, name in zip(entries, names, strict=True)],
        differ=differ,
        measured=measured,
        costs=costs,
        says=_sentences(differ, measured, costs) if len(entries) == 2 else "",
        figures=figures,
    )


def flat(value: Any, place: str = "") -> dict[str, str]:
    """Write nested settings as one level, a text each.

    >>> flat({"train": {"batch": 32, "rates": [1, 2]}, "name": "a"})
    {'train.batch': '32', 'train.rates': '1, 2'}
    """
    if isinstance(value, dict):
        parts: dict[str, str] = {}
        for name, each in value.items():
            if place or name not in _LEFT_OUT:
                parts |= flat(each, f"{place}.{name}" if place else str(name))
        return parts
    if isinstance(value, list):
        return {place: ", ".join(json.dumps(each) if isinstance(each, dict | list) else str(each) for each in value)}
    if value is None:
        return {}
    return {place: f"{value:.6g}" if isinstance(value, float) else str(value)}


def differences(settings: Sequence[Mapping[str, str]]) -> list[Row]:
    """Return the settings in which some differ, in the order in which they are said; what one lacks is a dash."""
    names = dict.fromkeys(name for each in settings for name in each)
    rows = [Row(name, tuple(each.get(name, UNKNOWN) for each in settings)) for name in names]
    return [row for row in rows if len(set(row.cells)) > 1]


def metric_rows(entries: Sequence[Entry]) -> list[Row]:
    """Compare the figures on the test splits."""
    names = dict.fromkeys(name for entry in entries for name in entry.metrics)
    shown = [name for name in names if name not in _COUNTED and not name.endswith(("_low", "_high"))]
    rows = []
    for name in shown:
        values = [entry.metrics.get(name, math.nan) for entry in entries]
        text = [metric_text(name, value) if math.isfinite(value) else UNKNOWN for value in values]
        rises = METRICS[name].rises if name in METRICS else False
        rows.append(Row(metric_name(name), tuple(text), tuple(_change(name, values)), _best(values, rises=rises)))
    return rows


def cost_rows(entries: Sequence[Entry]) -> list[Row]:
    """Compare what the whole runs took, and what was predicted of their training."""
    rows = []
    for quantity, measure in _COSTS.items():
        name, text = QUANTITIES[quantity]
        values = [measure(entry.total) or math.nan for entry in entries]
        rows.append(
            Row(
                name,
                tuple(text(value) if math.isfinite(value) else UNKNOWN for value in values),
                tuple(_against(value, values[0]) for value in values[1:]),
                _best(values, rises=False),
            )
        )
    predicted = [entry.predicted.seconds.value if entry.predicted else math.nan for entry in entries]
    text = QUANTITIES["seconds"][1]
    rows.append(Row("training, predicted", tuple(text(each) if math.isfinite(each) else UNKNOWN for each in predicted)))
    return rows


def _change(name: str, values: Sequence[float]) -> Iterable[str]:
    """Against the first: shares in points of a hundred, others as a part."""
    for value in values[1:]:
        if not (math.isfinite(value) and math.isfinite(values[0])):
            yield ""
        elif name in METRICS and METRICS[name].share:
            yield f"{100 * (value - values[0]):+.1f} points".replace("-", "−")
        else:
            yield _against(value, values[0])


def _against(value: float, first: float) -> str:
    return difference_text(value / first - 1) if math.isfinite(value) and first > 0 else ""


def _best(values: Sequence[float], *, rises: bool) -> int:
    known = [(value if rises else -value, -at) for at, value in enumerate(values) if math.isfinite(value)]
    best = max(known, default=(0.0, 1))
    return -best[1] if len(known) > 1 and any(value != best[0] for value, _ in known) else -1


def _named(of: str, rows: Iterable[Row]) -> list[tuple[str, Row]]:
    return [(of, row) for row in rows]


def _read(text: str) -> Any:
    try:
        return json.loads(text) if text else {}
    except ValueError:
        return {}


def _told_apart(entries: Sequence[Entry]) -> list[str]:
    names = [Path(entry.folder).name or entry.name for entry in entries]
    return [
        f"{name} ({entry.id})" if names.count(name) > 1 else name for name, entry in zip(names, entries, strict=True)
    ]


def _sentences(differ: Sequence[tuple[str, Row]], measured: Sequence[Row], costs: Sequence[Row]) -> Pair:
    """Say of two runs the most important in three short sentences."""
    asked = [row for of, row in differ if of == "asked"] or [row for _, row in differ]
    settings = [same(f"{row.what} {row.cells[0]} → {row.cells[1]}") for row in asked[:3]]
    what = joined([*settings, *([pair("{count} more", count=len(asked) - 3)] if len(asked) > 3 else [])])
    changed = [pair("{name} {value}", name=row.what, value=f"{row.cells[0]} → {row.cells[1]}") for row in measured[:2]]
    cost = [pair("{name} {value}", name=row.what, value=row.beside[0]) for row in costs if row.beside and row.beside[0]]
    return sentences(
        [
            pair("What differed: {what}.", what=what) if asked else pair("Nothing differed in what was asked."),
            pair("What it changed: {what}.", what=joined(changed)) if changed else "",
            pair("What it cost, against the first: {what}.", what=joined(cost)) if cost else "",
        ]
    )


def _figures(site: Site, entries: Sequence[Entry], names: Sequence[str]) -> list[Figure]:
    losses: list[Curve] = []
    looks: dict[str, list[Curve]] = {}
    for entry, name in zip(entries, names, strict=True):
        course = site.course(RunFolder(Path(entry.folder)))
        steps, validations = list(course.steps), list(course.looks)
        if steps:
            losses.append((name, [float(step.step) for step in steps], [step.loss for step in steps]))
        metric = next((each for each in METRICS if validations and each in validations[0].metrics), "")
        if metric:
            values = [look.metrics.get(metric, math.nan) for look in validations]
            looks.setdefault(metric, []).append((name, [float(look.step) for look in validations], values))
    figures = [over_one_another("loss", "Training loss, smoothed", losses, even=True)] if losses else []
    for metric, curves in looks.items():
        title = f"Validation {metric_name(metric)}"
        figures.append(over_one_another(f"validation-{metric}", title, curves, share=METRICS[metric].share))
    return figures
