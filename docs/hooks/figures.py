"""The pages of benchmarks: of each the newest report on each machine, its figures with their spread, its words."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

_NAMED = re.compile(r"(?P<name>\w+)(?:-(?P<machine>.+))?-(?P<date>\d{4}-\d\d-\d\d)")
_QUICK = "_quick"
_TABLE = "| figure | median | least | most | runs |\n"
# the first sentence of what a report says
_SENTENCE = re.compile(r".+?\.(?=\s|$)", re.DOTALL)
_ROUGH = """!!! warning "A quick run"
    Less data, fewer rounds: it shows that the benchmark works, and roughly what it finds."""


@dataclass(frozen=True)
class Report:
    """One report of a benchmark.

    Attributes:
        benchmark: its name, as ``python -m benchmarks.NAME`` has it.
        quick: it was a short run, in which figures are rough.
        machine, date, stack: what it ran on, when (ISO 8601), by which versions; not every report tells.
        says: what was done and what to make of it, in Markdown.
        samples: every measurement of each figure; the unit is in the figure's name.
    """

    benchmark: str
    quick: bool
    machine: str
    date: str
    stack: str
    says: str
    samples: dict[str, list[float]]

    @property
    def asks(self) -> str:
        """What the benchmark is about, in a sentence."""
        paragraphs = (each for each in self.says.split("\n\n") if not each.startswith(("#", "|", "```")))
        first = " ".join(next(paragraphs, "").split())
        found = _SENTENCE.match(first)
        return (found.group() if found else first).rstrip(":").replace("|", "\\|")

    @property
    def runs(self) -> str:
        """How often the figures were measured."""
        counts = sorted(len(values) for values in self.samples.values())
        return "" if not counts else str(counts[0]) if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"


def newest(folder: Path) -> list[Report]:
    """Read the newest report of each benchmark on each machine, whole ones before quick ones, by name.

    Args:
        folder: of reports, as `benchmarks.record` writes them.
    """
    found: dict[tuple[str, str], Report] = {}
    for path in sorted(folder.glob("*.md"), key=lambda path: path.stem[-10:]):
        if named := _NAMED.fullmatch(path.stem):
            found[named["name"], named["machine"] or ""] = _read(path, named)
    return sorted(found.values(), key=lambda report: (report.benchmark, report.quick, report.machine))


def _read(path: Path, named: re.Match[str]) -> Report:
    facts = json.loads(path.with_suffix(".json").read_text("utf-8")) if path.with_suffix(".json").exists() else {}
    machine = _machine(facts.get("device", ""))
    says = path.read_text("utf-8").partition("\n")[2].strip()
    if machine and says.startswith(machine.partition(",")[0]):
        says = says.partition("\n\n")[2]
    if "samples" in facts:
        says = said if (said := says.rpartition(_TABLE)[0]) else says
    return Report(
        benchmark=named["name"].removesuffix(_QUICK),
        quick=named["name"].endswith(_QUICK),
        machine=machine,
        date=named["date"],
        stack=facts.get("stack", ""),
        says=says.strip(),
        samples=facts.get("samples", {}),
    )


def _machine(device: dict[str, Any] | str) -> str:
    """Return what people call a device; a report that is written by hand names it."""
    if isinstance(device, str):
        return device
    return f"{device['name']}, {device['cores']} cores" if device["kind"] == "cpu" else str(device["name"])


def index(reports: Sequence[Report]) -> str:
    """Write the table of all benchmarks, each with a link to its page."""
    rows = []
    for name, group in groupby(reports, key=lambda report: report.benchmark):
        each = list(group)
        rows.append(f"| [`{name}`](benchmarks/{name}.md) | {each[0].asks} | {'<br>'.join(map(_where, each))} |")
    return "\n".join(["| benchmark | asks | measured |", "|---|---|---|", *rows])


def _where(report: Report) -> str:
    runs = f"{report.runs} runs" if report.runs != "1" else "one run"
    parts = (report.machine, report.date, runs * bool(report.runs), "**quick**" * report.quick)
    return ", ".join(each for each in parts if each)


def pages(reports: Sequence[Report]) -> dict[str, str]:
    """Write the page of each benchmark, by its name."""
    by_name = groupby(reports, key=lambda report: report.benchmark)
    return {name: _page(name, list(group)) for name, group in by_name}


def _page(name: str, reports: Sequence[Report]) -> str:
    parts = [f"# `{name}`"]
    for report in reports:
        where = ", ".join(each for each in (report.machine, report.date, "quick" * report.quick) if each)
        parts.append(f"## {where}")
        if report.quick:
            parts.append(_ROUGH)
        if report.samples:
            parts += [_figures(report.samples), f"{report.stack}."]
        # headings of a report stand under that of its machine
        parts.append(re.sub(r"^(#+) ", r"#\1 ", report.says, flags=re.MULTILINE))
    return "\n\n".join(parts) + "\n"


def _figures(samples: dict[str, list[float]]) -> str:
    rows = [
        [f"`{name}`", *map(_number, (statistics.median(values), min(values), max(values))), str(len(values))]
        for name, values in samples.items()
    ]
    table = [["figure", "median", "least", "most", "runs"], ["---", *["---:"] * 4], *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in table)


def _number(value: float) -> str:
    """Write a figure as a reader would like it.

    >>> _number(0.12345678), _number(123456.7), _number(3.0)
    ('0.1235', '123,457', '3')
    """
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
