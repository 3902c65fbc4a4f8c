"""The page of all runs: sorted, filtered, a page at a time, and chosen to be compared."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from thrifty.ledger import Line
from thrifty.ledger.entry import Status
from thrifty.report.rows import QUANTITIES, UNKNOWN, difference_text, metric_name, metric_text, usd_text
from thrifty.report.words import Pair, joined, pair
from thrifty.spec.metrics import METRICS
from thrifty.spec.units import format_joules, format_seconds
from thrifty.web.render import page
from thrifty.web.site import Site

PER_PAGE = 50
_STATUSES: tuple[Status, ...] = ("running", "done", "stopped", "interrupted", "failed")
# by name: the heading, what is sorted by, and whether the first click shows the greatest first
_COLUMNS: dict[str, tuple[str, Callable[[Line], Any], bool]] = {
    "name": ("run", lambda line: (line.name.lower(), line.id), False),
    "status": ("status", lambda line: (_STATUSES.index(line.status), -line.id), False),
    "model": ("model", lambda line: (line.model.lower(), line.id), False),
    "result": ("result", lambda line: _result_key(line), True),
    "time": ("time", lambda line: line.wall_s, True),
    "energy": ("energy", lambda line: line.joules, True),
    "money": ("money", lambda line: line.usd, True),
    "miss": ("worst prediction", lambda line: line.miss, True),
    "started": ("started", lambda line: line.id, True),
}
_NUMBERS = ("result", "time", "energy", "money", "miss")


def show(site: Site, request: Request) -> Response:
    """Show the runs that a query asks for: ``q`` words, ``status``, ``sort`` and ``order``, ``page``."""
    asked = request.query_params
    words, status = asked.get("q", "").strip(), asked.get("status", "")
    sort = asked.get("sort", "started") if asked.get("sort") in _COLUMNS else "started"
    falls = asked.get("order", "down" if _COLUMNS[sort][2] else "up") == "down"
    lines = site.lines()
    found = [line for line in lines if _matches(line, words.lower().split(), status)]
    if sort != "started" or not falls:  # they come the newest first
        found.sort(key=_COLUMNS[sort][1], reverse=falls)
    pages = max(1, math.ceil(len(found) / PER_PAGE))
    page_asked = asked.get("page", "1")
    at = min(pages, max(1, int(page_asked) if page_asked.isdecimal() and len(page_asked) < 9 else 1))
    kept = {"q": words, "status": status, "sort": sort, "order": "down" if falls else "up"}

    def link(**changes: object) -> str:
        said = {name: value for name, value in {**kept, **changes}.items() if value}
        return f"/?{urlencode(said)}"

    return page(
        "runs.html",
        here="runs",
        title="Runs",
        query=words,
        wanted=status,
        statuses=_STATUSES,
        sort=sort,
        falls=falls,
        columns=[
            {
                "name": name,
                "says": says,
                "number": name in _NUMBERS,
                # the column that sorts turns about
                "link": link(sort=name, order=("up", "down")[not falls if name == sort else greatest_first]),
            }
            for name, (says, _, greatest_first) in _COLUMNS.items()
        ],
        rows=[_row(line) for line in found[(at - 1) * PER_PAGE : at * PER_PAGE]],
        running=[_row(line) for line in lines if line.status == "running"][:6],
        says=_summary(lines, found),
        any=bool(lines),
        at=at,
        all_pages=pages,
        before=link(page=at - 1) if at > 1 else "",
        after=link(page=at + 1) if at < pages else "",
    )


def result_of(line: Line) -> str:
    """The name of the figure that a run is known by: the first of the table that it has; empty where it has none."""
    return next((name for name in METRICS if name in line.metrics), next(iter(line.metrics), ""))


def name_of(line: Line) -> str:
    """A run's own name: that of its folder, which no other has."""
    return Path(line.folder).name or line.name


def _result_key(line: Line) -> tuple[bool, str, float]:
    """Figures of one kind together; what is no number last, and so are runs without a figure."""
    name = result_of(line)
    value = line.metrics.get(name, math.nan)
    better = value if name in METRICS and METRICS[name].rises else -value
    return (math.isfinite(value), name, better if math.isfinite(value) else 0.0)


def _matches(line: Line, words: Sequence[str], status: str) -> bool:
    if status and line.status != status:
        return False
    if not words:
        return True
    text = f"{line.id} {name_of(line)} {line.name} {line.model} {line.device}".lower()
    return all(word in text for word in words)


def _row(line: Line) -> dict[str, Any]:
    metric = result_of(line)
    quantity, ratio = line.worst
    return {
        "id": line.id,
        "name": name_of(line),
        "status": line.status,
        "model": line.model or UNKNOWN,
        "metric": metric_name(metric) if metric else "",
        "result": metric_text(metric, line.metrics[metric]) if metric else UNKNOWN,
        "time": format_seconds(line.wall_s) if line.wall_s else UNKNOWN,
        "energy": format_joules(line.joules) if line.joules else UNKNOWN,
        "money": usd_text(line.usd) if line.usd else UNKNOWN,
        "miss": pair("{difference} {quantity}", difference=difference_text(ratio - 1), quantity=QUANTITIES[quantity][0])
        if quantity and line.miss
        else UNKNOWN,
        "started": line.started[:16].replace("T", " "),
        "damaged": line.damaged,
    }


def _summary(lines: Sequence[Line], found: Sequence[Line]) -> Pair:
    """Count what is shown, and what it took."""
    by_status = Counter(line.status for line in found)
    count = f"{len(found):,}"
    if len(found) != len(lines):
        runs = pair("{count} of {all} runs", count=count, all=f"{len(lines):,}")
    else:
        runs = pair("1 run") if len(found) == 1 else pair("{count} runs", count=count)
    if not found:
        return runs
    statuses = [
        pair("{count} {status}", count=f"{by_status[status]:,}", status=status)
        for status in _STATUSES
        if by_status[status]
    ]
    return pair(
        "{runs}: {statuses}; together {time}, {money}",
        runs=runs,
        statuses=joined(statuses),
        time=format_seconds(math.fsum(line.wall_s for line in found)),
        money=usd_text(math.fsum(line.usd for line in found)),
    )
