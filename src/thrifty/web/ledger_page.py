"""The page of the ledger: where predictions were wrong, by device and model, with a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from thrifty.ledger import Line
from thrifty.report.rows import QUANTITIES, UNKNOWN, difference_text, share_text
from thrifty.report.words import Pair, pair
from thrifty.web.figures import misses
from thrifty.web.render import page
from thrifty.web.runs_page import name_of
from thrifty.web.site import Site

SHOWN = ("seconds", "peak_bytes", "joules", "usd")
_MOST_GROUPS, _MOST_WORST = 16, 15
# a prediction off by less than this factor is told as near
NEAR = 1.25


def show(site: Site, request: Request) -> Response:
    """Show how far predictions of a ``quantity`` were off, of the runs that ended."""
    asked = request.query_params.get("quantity", "")
    quantity = asked if asked in SHOWN else SHOWN[0]
    ended = [line for line in site.lines() if line.status in ("done", "stopped") and line.ratios]
    told = [line for line in ended if quantity in line.ratios]
    groups = _groups(told, quantity)
    shown = groups[:_MOST_GROUPS]
    figures = []
    if shown:
        pictured = {
            _group_name(key): [(name_of(each), each.ratios[quantity]) for each in lines] for key, lines in shown
        }
        figures = [misses(f"How far {QUANTITIES[quantity][0]} was off", pictured)]
    worst = sorted(told, key=lambda line: -abs(math.log(line.ratios[quantity])))[:_MOST_WORST]
    return page(
        "ledger.html",
        here="ledger",
        title="Ledger",
        quantity=quantity,
        quantities=[(each, QUANTITIES[each][0]) for each in SHOWN],
        says=_says(told, quantity),
        groups=[_group_row(key, lines) for key, lines in shown],
        groups_left=max(0, len(groups) - _MOST_GROUPS),
        worst=[_worst_row(line, quantity) for line in worst],
        figures=figures,
        any=bool(ended),
    )


Group = tuple[str, str]


def _groups(lines: Sequence[Line], quantity: str) -> list[tuple[Group, list[Line]]]:
    """Runs by device and model, those whose median is furthest off first."""
    found: dict[Group, list[Line]] = {}
    for line in lines:
        found.setdefault((line.device, line.model or UNKNOWN), []).append(line)
    return sorted(found.items(), key=lambda pair: (-abs(math.log(_median(pair[1], quantity))), pair[0]))


def _group_name(group: Group) -> str:
    return f"{group[1]} · {group[0]}"


def _median(lines: Sequence[Line], quantity: str) -> float:
    ordered = sorted(line.ratios[quantity] for line in lines if quantity in line.ratios)
    return ordered[len(ordered) // 2] if ordered else 1.0


def _group_row(group: Group, lines: Sequence[Line]) -> dict[str, Any]:
    cells = []
    for quantity in SHOWN:
        known = [line for line in lines if quantity in line.ratios]
        off = _median(known, quantity)
        cells.append(
            {
                "text": difference_text(off - 1) if known else UNKNOWN,
                "near": not known or 1 / NEAR <= off <= NEAR,
            }
        )
    return {"device": group[0], "model": group[1], "runs": f"{len(lines):,}", "cells": cells}


def _worst_row(line: Line, quantity: str) -> dict[str, Any]:
    return {
        "id": line.id,
        "name": name_of(line),
        "model": line.model or UNKNOWN,
        "device": line.device,
        "off": difference_text(line.ratios[quantity] - 1),
        "started": line.started[:10],
    }


def _says(lines: Sequence[Line], quantity: str) -> Pair | str:
    if not lines:
        return ""
    near = sum(1 / NEAR <= line.ratios[quantity] <= NEAR for line in lines)
    return pair(
        "Of {runs} that ended, {quantity} was within a quarter of the prediction in {share}; in the median it was off "
        "by {off}.",
        runs=pair("1 run") if len(lines) == 1 else pair("{count} runs", count=f"{len(lines):,}"),
        quantity=QUANTITIES[quantity][0],
        share=share_text(near / len(lines)) if near else "none",
        off=difference_text(_median(lines, quantity) - 1),
    )
