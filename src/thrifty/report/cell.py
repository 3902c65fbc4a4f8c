"""What a notebook shows of a plan, a run, a search or a compression: a fragment of HTML, small and without script."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

import thrifty.report.rows as rows
from thrifty.ledger import Entry
from thrifty.report.compression import SHOWN, payback_text, trial_rows, verdict_text
from thrifty.report.document import fragment
from thrifty.report.held_out import held_out_line
from thrifty.report.plan_tables import head_text, interval_text, paragraphs, price_text
from thrifty.report.scale_tables import scale_view
from thrifty.report.words import english
from thrifty.spec import Compression
from thrifty.spec.proposal import Offer, Proposal
from thrifty.spec.scaling import Scaled
from thrifty.spec.tuning import Trial
from thrifty.spec.units import format_bytes, format_joules, format_seconds

INSIDE = {True: "✓", False: "✗", None: ""}
MOST_MACHINES = 12
TEXT_WIDTH = 110


class Table(NamedTuple):
    """A table: a header for each column, one that starts with ``>`` aligned right, and the cells."""

    caption: str
    headers: Sequence[str]
    lines: Sequence[Sequence[str]]


def proposal_cell(proposal: Proposal) -> str:
    """Show what `thrifty plan` answered."""
    what, where = head_text(proposal)
    ways = Table(
        "", ["", "plan", ">time", ">may be off", ">memory", ">energy", ">money"],
        [["▸" if offer.mark == "chosen" else "", _says(offer), *_figures(offer)] for offer in proposal.offers],
    )  # fmt: skip
    machines = Table(
        "", ["", "machine", ">time", ">may be off", ">memory", ">energy", ">money"],
        [
            ["▸" if each.on_front else "", each.name, *_figures(each.offer)]
            for each in proposal.machines[:MOST_MACHINES]
        ],
    )  # fmt: skip
    said = [(label, english(text)) for label, text in paragraphs(proposal)]
    return fragment("cell.html", text="", title=what.en, under=where.en, tables=[machines, ways], said=said)


def run_cell(
    entry: Entry, aside: rows.Aside = rows.NOTHING, *, metrics: dict[str, float] | None = None, page: Path | None = None
) -> str:
    """Show a run: its result, its bill, and what was predicted beside what was measured.

    Args:
        entry: its line of the ledger.
        aside: what its training wasted.
        metrics: of the test split; the ledger's when left out.
        page: its report, where there is one.
    """
    stages, total = rows.bill_rows(entry, aside)
    bill = Table(
        "the bill", ["stage", ">time", ">CPU", ">memory", ">written", ">work", ">% peak", ">energy", ">money"],
        [*stages, total],
    )  # fmt: skip
    compared = Table(
        "training, predicted beside measured", ["", ">predicted", ">range", ">measured", ">off", ""],
        [
            [each.quantity, each.due, each.range, each.measured, each.difference, INSIDE[each.inside]]
            for each in map(rows.compared_row, entry.comparisons())
        ],
    )  # fmt: skip
    found = entry.metrics if metrics is None else metrics
    result = held_out_line(found) if _has_line(found) else entry.status
    said = [("ended", entry.reason)] if entry.reason else []
    said += [("page", str(page))] if page is not None else []
    said += rows.notes(entry, aside)
    return fragment(
        "cell.html", text="", title=f"{entry.name}: {result}", under=entry.folder, tables=[bill, compared], said=said
    )


def tuning_cell(metric: str, trials: Sequence[Trial], best: int, job: str) -> str:
    """Show the trials of a search, the best one marked."""
    names = list(dict.fromkeys(name for trial in trials for name in trial.settings))
    lines = [
        [
            "▸" if trial.number == best else "", str(trial.number + 1),
            *(_setting(trial.settings.get(name, "")) for name in names), trial.status,
            rows.metric_text(metric, trial.value), format_seconds(trial.seconds),
        ]
        for trial in trials
    ]  # fmt: skip
    headers = ["", ">trial", *(f">{name}" for name in names), "", f">{rows.metric_name(metric)}", ">time"]
    title = f"{len(trials):,} trials"
    return fragment(
        "cell.html", text="", title=title, under="", tables=[Table("", headers, lines)], said=[("best job", job)]
    )


def compression_cell(made: Compression) -> str:
    """Show what a compression tried, chose, and costs."""
    name, value, text = SHOWN[made.objective]
    headers = ["", "moves", f">{name}", ">drop", ">between", ">predicted", ">took", "what it did"]
    said = [("guard", verdict_text(made.validation))]
    said += [("test", verdict_text(made.test))] if made.test is not None else []
    said += [("bill", payback_text(made)), ("ended", made.ended)]
    title = f"{' + '.join(made.moves) or 'as trained'}: {name} {text(value(made.before))} to {text(value(made.after))}"
    return fragment(
        "cell.html", text="", title=title, under="", tables=[Table("", headers, trial_rows(made))], said=said
    )


def scale_cell(scaled: Scaled) -> str:
    """Show which size a budget should buy, as a terminal of 110 columns does."""
    console = Console(file=io.StringIO(), width=TEXT_WIDTH, color_system=None)
    with console.capture() as captured:
        console.print(scale_view(scaled))
    return fragment("cell.html", title=scaled.job, under="", tables=[], text=captured.get(), said=[])


def _has_line(metrics: dict[str, float]) -> bool:
    try:
        held_out_line(metrics)
    except (StopIteration, KeyError):
        return False
    return True


def _says(offer: Offer) -> str:
    remark = f" ({offer.remark})" if offer.remark else ""
    return f"{offer.says}{remark}{'' if offer.fits else ' (does not fit)'}"


def _figures(offer: Offer) -> list[str]:
    cost = offer.cost
    return [
        format_seconds(cost.seconds.value), interval_text(offer), format_bytes(cost.peak_bytes.value),
        format_joules(cost.joules.value), price_text(cost.usd.value),
    ]  # fmt: skip


def _setting(value: float | int | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
