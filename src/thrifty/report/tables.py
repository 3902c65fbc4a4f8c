"""Tables for the terminal: the bill, a plan, the ledger, a device, the cleaning report; readable at 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

import thrifty.report.rows as rows
from thrifty import hardware
from thrifty.ledger import Entry
from thrifty.report.decided import value_text
from thrifty.spec import KINDS, Budget, Dataset, Device, Plan
from thrifty.spec.units import format_seconds, format_usd

WIDE = 96
VERDICTS = {"fits": ("✓", "green"), "tight": ("✓ tight", "yellow"), "breaks": ("✗ over", "red")}
FELL = {True: Text("✓", style="green"), False: Text("✗", style="yellow"), None: Text("")}
STATUS = {
    "done": Text("✓", style="green"),
    "running": Text("▸", style="cyan"),
    "interrupted": Text("‖", style="yellow"),
    "stopped": Text("■", style="yellow"),
    "failed": Text("✗", style="red"),
}


class Columns:
    """A borderless table whose columns stand closer together in a narrow terminal.

    Args:
        headers: a header for each column; one that starts with ``>`` is aligned right, with ``~`` may break lines.
        lines: the cells; text of users' own is never read as markup.
        total: whether the last line is a sum of those above.
    """

    def __init__(self, headers: Sequence[str], lines: Iterable[Sequence[str | Text]], *, total: bool = False) -> None:
        self.headers, self.lines, self.total = headers, [list(line) for line in lines], total

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        gap = 2 if options.max_width >= WIDE else 1
        table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=True, header_style="dim", show_footer=False)
        for header in self.headers:
            justify: JustifyMethod = "right" if header.startswith(">") else "left"
            table.add_column(header.lstrip(">~"), justify=justify, no_wrap=not header.startswith("~"))
        for number, line in enumerate(self.lines):
            last = self.total and number == len(self.lines) - 1
            table.add_row(*map(_cell, line), style="bold" if last else "")
        yield Padding(table, (0, 0, 0, 2))


def bill(entry: Entry, aside: rows.Aside = rows.NOTHING) -> RenderableType:
    """Show what each stage took and the total, then training's prediction beside what was measured.

    Args:
        entry: the run's.
        aside: what its training wasted, and what its ranks held.
    """
    stages, total = rows.bill_rows(entry, aside)
    headers = ["stage", ">time", ">CPU", ">memory", ">written", ">work", ">% peak", ">energy", ">money"]
    parts: list[RenderableType] = [Text("the bill", style="bold"), Columns(headers, [*stages, total], total=True)]
    if entry.predicted is not None:
        parts += ["", Text("training, predicted beside measured", style="bold"), _compared(entry)]
    methods = [(what, method) for what, method in rows.notes(entry, aside)]
    if methods:
        parts += ["", _notes(methods)]
    return Group(*parts)


def _compared(entry: Entry) -> RenderableType:
    share = entry.work_done()
    short = share < 0.995
    lines: list[list[str | Text]] = []
    for each in map(rows.compared_row, entry.comparisons()):
        due: list[str | Text] = [each.due] if short else []
        lines.append(
            [each.quantity, each.predicted, *due, each.range, each.measured, each.difference, FELL[each.inside]]
        )
    headers = [
        "",
        ">predicted",
        *([f">for {rows.share_text(share)}"] if short else []),
        ">range",
        ">measured",
        ">off",
        "",
    ]
    return Columns(headers, lines)


def plan_table(plan: Plan, budget: Budget | None = None) -> RenderableType:
    """Show what a plan costs, whether that fits the budget, and why each thing was decided as it was."""
    model, stop = plan.model.name, plan.stop
    head = f"{plan.job} · {model} · {stop.steps:,} steps of {plan.batch.size:,} · {plan.precision} on {plan.device}"
    costs = [
        [name, text(interval.value), rows.range_text(interval, key), interval.method]
        for key, (name, text) in rows.QUANTITIES.items()
        for interval in [getattr(plan.cost, key)]
    ]
    parts: list[RenderableType] = [
        Text(head, style="bold"),
        Columns(["cost", ">expected", ">range", "~how it was got"], costs),
    ]
    limits = rows.budget_rows(plan, budget or Budget())
    if limits:
        lines: list[list[str | Text]] = [
            [each.quantity, each.limit, each.predicted, Text(*VERDICTS[each.verdict])] for each in limits
        ]
        parts += ["", Columns(["your budget", ">limit", ">expected", ""], lines)]
    why = [[each.field, value_text(each), f"{each.reason} [{each.source}]"] for each in plan.why]
    if why:
        parts += ["", Columns(["~decided", "~value", "~why"], why)]
    return Group(*parts)


def ledger_table(entries: Sequence[Entry]) -> RenderableType:
    """List runs in the order given; the worst-predicted quantity of each with its difference."""
    if not entries:
        return Text("the ledger is empty; fill it: thrifty run JOB")
    lines: list[list[str | Text]] = []
    for entry in entries:
        quantity, _ = entry.worst_miss()
        worst = next((each for each in entry.comparisons() if each.quantity == quantity), None)
        said = f"{rows.difference_text(worst.difference)} {rows.QUANTITIES[quantity][0]}" if worst else rows.UNKNOWN
        training = entry.training()
        predicted = format_seconds(entry.predicted.seconds.value) if entry.predicted else rows.UNKNOWN
        result = next((rows.metric_text(*pair) for pair in sorted(entry.metrics.items())), rows.UNKNOWN)
        lines.append(
            [
                STATUS[entry.status],
                Path(entry.folder).name or entry.name,
                entry.started[:10],
                predicted,
                format_seconds(training.wall_s) if training.wall_s else rows.UNKNOWN,
                said,
                format_usd(entry.total.usd),
                result,
            ]
        )
    headers = ["", "~run", "started", ">predicted", ">training", ">worst miss", ">money", ">result"]
    others = dict.fromkeys(entry.status for entry in entries if entry.status != "done")
    legend = "   ".join(f"{STATUS[status]} {status}: its job goes on when run again" for status in others)
    return Group(Columns(headers, lines), *([Text(f"  {legend}", style="dim")] if legend else []))


def hardware_table(device: Device, compared: Iterable[hardware.Comparison] | None = None) -> RenderableType:
    """Show what a device can do, measured beside its datasheet, each figure with its source.

    Args:
        device: the device.
        compared: its figures beside the datasheet, by `thrifty.hardware.comparison`; asked for when left out.
    """
    facts = [device.parts, *device.isa]
    caches = [f"{level} {rows.format_bytes(size)}" for level, size in device.cache_bytes.items()]
    lines = rows.hardware_rows(device, compared)
    return Group(
        Text(device.name, style="bold"),
        Text(" · ".join(facts)),
        Text(" · ".join([*caches, f"measured {device.measured_on}"]), style="dim"),
        Columns(["", ">measured", ">datasheet", ">share"], [line[:-1] for line in lines]),
        "",
        _notes((line[0], line[-1]) for line in lines),
    )


def cleaning_table(dataset: Dataset) -> RenderableType:
    """Show what was prepared, and what cleaning kept and put aside."""
    parts: list[RenderableType] = [
        Columns(["data", "~"], rows.dataset_rows(dataset)),
        "",
        Columns(["~cleaning", f">{KINDS[dataset.kind].cleaned}"], rows.cleaning_rows(dataset)),
    ]
    if dataset.labels:
        counts = sorted(dataset.label_counts.items(), key=lambda pair: -pair[1])
        shown = " · ".join(f"{label} {count:,}" for label, count in counts[:12])
        more = f" · and {len(counts) - 12:,} more labels" if len(counts) > 12 else ""
        parts += ["", Padding(Text(f"training samples by label: {shown}{more}"), (0, 0, 0, 2))]
    parts += [Padding(Text(f"! {note}", style="yellow"), (0, 0, 0, 2)) for note in dataset.cleaning.notes]
    return Group(*parts)


def _notes(said: Iterable[tuple[str, str]]) -> RenderableType:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), style="dim")
    table.add_column(style="dim", max_width=22)
    table.add_column(style="dim")
    for what, method in said:
        table.add_row(Text(what), Text(method))
    return Padding(table, (0, 0, 0, 2))


def _cell(cell: str | Text) -> Text:
    return cell if isinstance(cell, Text) else Text(str(cell))
