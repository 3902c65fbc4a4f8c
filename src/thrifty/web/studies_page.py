"""The page of studies: what each trial reached, the best until then, and its settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from thrifty.ledger import Line
from thrifty.report.figures import Figure
from thrifty.report.rows import UNKNOWN, metric_name, metric_text, share_text, usd_text
from thrifty.report.words import Pair, pair, same, sentences
from thrifty.spec.metrics import METRICS
from thrifty.spec.units import format_joules, format_seconds
from thrifty.web.figures import trials
from thrifty.web.render import page
from thrifty.web.runs_page import name_of
from thrifty.web.site import Site
from thrifty.web.studies import Study, counted, find_studies

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
        figures=figures,
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
        "steers": line is not None and line.status == "running",
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
                # of a study that is not ours nobody says how far a trial came
                "share": share_text(each.share) if each.status == "done" or each.share < 1 else UNKNOWN,
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


def _says(study: Study, line: Line | None, metric: str) -> Pair:
    best = study.best
    parts = [
        pair("{count} trials: {statuses}.", count=f"{len(study.trials):,}", statuses=counted(study.trials))
        if study.trials
        else pair("No trial has begun.")
    ]
    if best is not None:
        settings = same(", ".join(f"{name} {value}" for name, value in best.settings.items()))
        value = metric_text(metric, best.value)
        parts.append(pair("The best reached {value} with {settings}.", value=value, settings=settings))
    if line is not None and line.wall_s:
        time, energy, money = format_seconds(line.wall_s), format_joules(line.joules), usd_text(line.usd)
        parts.append(pair("It took {time}, {energy} and {money}.", time=time, energy=energy, money=money))
    return sentences(parts)
