"""An answer of `thrifty scale` in the terminal: what to buy, what each size would reach, the bill, and what to mind."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from thrifty.report.tables import Columns
from thrifty.spec.scaling import FORMATS, Buy, Scaled, SmallRun
from thrifty.spec.units import format_count, format_joules, format_seconds, format_usd

# sizes shown on each side of the best
BESIDE = 3


def scale_view(scaled: Scaled) -> RenderableType:
    """Show an answer: what to buy, then the sizes about it, then how that was found and what it took."""
    table = Columns(offer_headers(scaled), offer_lines(scaled, shown(scaled)))
    parts: list[RenderableType] = [Text(head_text(scaled), style="bold"), "", table, ""]
    parts.append(Columns(["", "~"], [[label, text] for label, text in paragraphs(scaled)]))
    return Group(*parts)


def offer_headers(scaled: Scaled) -> list[str]:
    """Return a header for each column of the offers; one that starts with ``>`` is aligned right."""
    return ["", "model", ">size", f">{scaled.unit}", ">loss", ">nine in ten", ">takes", ">best in"]


def offer_lines(scaled: Scaled, offers: Sequence[tuple[int, Buy]]) -> list[list[str]]:
    """Return the cells of offers, the one to buy marked where it is known."""
    return [
        ["▸" if scaled.determined and place == scaled.best else "", *offer_cells(scaled, offer)]
        for place, offer in offers
    ]


def shown(scaled: Scaled) -> list[tuple[int, Buy]]:
    """Return the offers about the best one, with their places."""
    rows = list(enumerate(scaled.offers))
    return rows[max(0, scaled.best - BESIDE) : scaled.best + BESIDE + 1]


def head_text(scaled: Scaled) -> str:
    """Say what the budget should buy, or that the small runs do not tell."""
    best = scaled.offers[scaled.best]
    if not scaled.determined:
        low, high = (format_count(each) for each in (scaled.parameters.low, scaled.parameters.high))
        return f"{scaled.budget.says} on {scaled.where}: not determined; between {low} and {high} parameters"
    return (
        f"{scaled.budget.says} on {scaled.where}: {best.size.model}, {best.steps:,} steps of {best.batch:,}, "
        f"{epochs_text(best.epochs)}: a loss of {best.loss.low:#.3g} to {best.loss.high:#.3g}"
    )


def epochs_text(epochs: float) -> str:
    """Say how many passes over the data there are.

    >>> epochs_text(0.25), epochs_text(3.04)
    ('a share of 0.25 of the data', '3.0 passes over the data')
    """
    return f"a share of {epochs:.2g} of the data" if epochs < 1 else f"{epochs:.1f} passes over the data"


def offer_cells(scaled: Scaled, offer: Buy) -> list[str]:
    """Return the cells of an offer: model, parameters, data, loss, its interval, what it takes, its share of draws."""
    quantity = scaled.budget.quantity
    return [
        offer.size.model,
        format_count(offer.size.parameters),
        format_count(offer.data),
        f"{offer.loss.value:#.3g}",
        f"{offer.loss.low:#.3g} to {offer.loss.high:#.3g}",
        FORMATS[quantity](getattr(offer, quantity)),
        f"{offer.share:.0%}".replace("%", " %"),
    ]


def paragraphs(scaled: Scaled) -> list[tuple[str, str]]:
    """Return what follows the table, a label and a text each; the page shows the same."""
    curve, best = scaled.curve, scaled.offers[scaled.best]
    law = curve.law
    said = [
        (
            "the curve",
            f"loss = {law.floor:.3g} + {law.size_factor:.3g} / N^{law.size_power:.2f} + {law.data_factor:.3g} / "
            f"D^{law.data_power:.2f}, through {curve.points} small runs; nine times in ten the floor is "
            f"{curve.floor.low:.2g} to {curve.floor.high:.2g}, the power of size {curve.size_power.low:.2f} to "
            f"{curve.size_power.high:.2f}, of data {curve.data_power.low:.2f} to {curve.data_power.high:.2f}; a run "
            f"lies {curve.noise:.1%} about it".replace("%", " %"),
        ),
        ("the rate", f"{best.learning_rate:.3g} for {best.size.model}: {scaled.carried.says}"),
        ("the bill", bill_text(scaled)),
    ]
    return said + [("mind" if n == 0 else "", note) for n, note in enumerate(scaled.notes)]


def bill_text(scaled: Scaled) -> str:
    """Say what the small runs were priced at, what they and the fit took, and what is left of the budget."""
    fresh = [run for run in scaled.runs if run.fresh]
    spent, low, high = scaled.spent, scaled.foreseen.low, scaled.foreseen.high
    parts = [
        f"{len(fresh)} small runs took {format_seconds(spent.wall_s)}, {format_joules(spent.joules)}, "
        f"{format_usd(spent.usd)}; all were priced at {format_seconds(low)} to {format_seconds(high)}"
    ]
    if len(fresh) < len(scaled.runs):
        again = format_seconds(scaled.reused.wall_s)
        parts.append(f"{len(scaled.runs) - len(fresh)} had run before, for {again}, and were not run again")
    parts.append(f"pricing and fitting took {format_seconds(scaled.fit.wall_s)}")
    parts.append(f"{scaled.left.says} of {scaled.budget.says} are left")
    return "; ".join(parts)


def run_cells(run: SmallRun) -> list[str]:
    """Return the cells of a small run: its use, model, parameters, data, rate, batch, loss and time."""
    return [
        run.use,
        run.size.model,
        format_count(run.size.parameters),
        format_count(run.data),
        f"{run.learning_rate:.3g}",
        f"{run.batch:,}",
        f"{run.loss:.4f}",
        format_seconds(run.spent.wall_s) + ("" if run.fresh else ", before"),
    ]


def in_order(runs: Sequence[SmallRun]) -> list[SmallRun]:
    """Return small runs by size, then data, then rate."""
    return sorted(runs, key=lambda run: (run.size.parameters, run.data, run.learning_rate))
