"""The page of studies: what each trial reached, the best until then, and its settings."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from thrifty.ledger import Line
from thrifty.report.figures import Figure
from thrifty.report.rows import UNKNOWN, metric_name, metric_text, share_text, usd_text
from thrifty.spec.metrics import METRICS
from thrifty.spec.units import format_joules, format_seconds
from thrifty.web.figures import trials
from thrifty.web.render import drawn, page
from thrifty.web.runs_page import name_of
from thrifty.web.site import Site
from thrifty.web.studies import Study, find_studies

_MOST_SHOWN, _MOST_ROWS = 20, 60


def show(site: Site, request: Request) -> Response:
    """Show the studies that lie in the folder of runs."""
    studies, unread = find_studies(site.runs)
    lines = {name_of(line): line for line in reversed(site.lines())}
    figures: list[Figure] = []
    shown = [_shown(study, at, lines, figures) for at, study in enumerate(studies[:_MOST_SHOWN])]
    return page(
        "studies.html",
        here="studies",
        title="Studies",
        studies=shown,
        left_out=max(0, len(studies) - _MOST_SHOWN),
        unread=unread,
        figures=drawn(figures),
    )


def _shown(study: Study, at: int, lines: Mapping[str, Line], figures: list[Figure]) -> dict[str, Any]:
    line = lines.get(study.folder)
    metric = next((name for name in METRICS if line and name in line.metrics), "")
    reached = [(each.number, each.value) for each in study.trials if math.isfinite(each.value)]
    figure = trials(f"study-{at}", metric or "figure", reached, rises=study.rises) if reached else None
    figures += [figure] if figure is not None else []
    best = study.best
    names = list(dict.fromkeys(name for each in study.trials for name in each.settings))
    ranked = sorted(study.trials, key=lambda each: _rank(each.value, rises=study.rises))
    return {
        "folder": study.folder,
        "name": study.name,
        "run": line.id if line else 0,
        "status": line.status if line else "",
        "says": _says(study, line, metric),
        "figure": figure,
        "metric": metric_name(metric) if metric else "reached",
        "settings": names,
        "rows": [
            {
                "number": each.number + 1,
                "best": best is not None and each.number == best.number,
                "settings": [each.settings.get(name, UNKNOWN) for name in names],
                "status": each.status,
                "value": metric_text(metric, each.value) if math.isfinite(each.value) else UNKNOWN,
                "share": share_text(each.share),
                "says": each.says,
                "time": format_seconds(each.seconds) if each.seconds else UNKNOWN,
                "money": usd_text(each.usd) if each.usd else UNKNOWN,
            }
            for each in ranked[:_MOST_ROWS]
        ],
        "rows_left": max(0, len(ranked) - _MOST_ROWS),
    }


def _rank(value: float, *, rises: bool) -> tuple[bool, float]:
    """The best first; what reached nothing last."""
    known = math.isfinite(value)
    return (not known, 0.0 if not known else -value if rises else value)


def _says(study: Study, line: Line | None, metric: str) -> str:
    counted = Counter(each.status for each in study.trials)
    said = ", ".join(f"{count:,} {status}" for status, count in counted.most_common())
    best = study.best
    parts = [f"{len(study.trials):,} trials: {said}." if said else "No trial has begun."]
    if best is not None:
        settings = ", ".join(f"{name} {value}" for name, value in best.settings.items())
        parts.append(f"The best reached {metric_text(metric, best.value)} with {settings}.")
    if line is not None and line.wall_s:
        parts.append(f"It took {format_seconds(line.wall_s)}, {format_joules(line.joules)} and {usd_text(line.usd)}.")
    return " ".join(parts)
