"""An answer of `thrifty scale` in the terminal: what to buy, what each size would reach, the bill, and what to mind."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from thrifty.report.tables import Columns
from thrifty.report.words import Pair, english, in_parts, joined, pair, same
from thrifty.spec.scaling import FORMATS, Buy, Scaled, SmallRun
from thrifty.spec.units import format_count, format_joules, format_seconds, format_usd

# sizes shown on each side of the best
BESIDE = 3


def scale_view(scaled: Scaled) -> RenderableType:
    """Show an answer: what to buy, then the sizes about it, then how that was found and what it took."""
    table = Columns(offer_headers(scaled), offer_lines(scaled, shown(scaled)))
    parts: list[RenderableType] = [Text(head_text(scaled).en, style="bold"), "", table, ""]
    parts.append(Columns(["", "~"], [[label, english(text)] for label, text in paragraphs(scaled)]))
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


def head_text(scaled: Scaled) -> Pair:
    """Say what the budget should buy, or that the small runs do not tell."""
    best = scaled.offers[scaled.best]
    budget, where = scaled.budget.says, in_parts(scaled.where)
    if not scaled.determined:
        low, high = (format_count(each) for each in (scaled.parameters.low, scaled.parameters.high))
        return pair(
            "{budget} on {where}: not determined; between {low} and {high} parameters",
            budget=budget, where=where, low=low, high=high,
        )  # fmt: skip
    return pair(
        "{budget} on {where}: {what}: a loss of {low} to {high}",
        budget=budget,
        where=where,
        what=joined(
            [
                same(best.size.model),
                pair("{steps} steps of {batch}", steps=f"{best.steps:,}", batch=f"{best.batch:,}"),
                epochs_text(best.epochs),
            ]
        ),
        low=f"{best.loss.low:#.3g}",
        high=f"{best.loss.high:#.3g}",
    )


def epochs_text(epochs: float) -> Pair:
    """Say how many passes over the data there are.

    >>> epochs_text(0.25).en, epochs_text(3.04).en
    ('a share of 0.25 of the data', '3.0 passes over the data')
    """
    if epochs < 1:
        return pair("a share of {share} of the data", share=f"{epochs:.2g}")
    return pair("{count} passes over the data", count=f"{epochs:.1f}")


def offer_cells(scaled: Scaled, offer: Buy) -> list[str]:
    """Return the cells of an offer: model, parameters, data, loss, its interval, what it takes, its share of draws."""
    quantity = scaled.budget.quantity
    return [
        offer.size.model,
        format_count(offer.size.parameters),
        format_count(offer.data),
        f"{offer.loss.value:#.3g}",
        f"{offer.loss.low:#.3g} – {offer.loss.high:#.3g}",
        FORMATS[quantity](getattr(offer, quantity)),
        f"{offer.share:.0%}".replace("%", " %"),
    ]


def paragraphs(scaled: Scaled) -> list[tuple[str, str | Pair]]:
    """Return what follows the table, a label and a text each; the page shows the same, by its table of words."""
    curve, best = scaled.curve, scaled.offers[scaled.best]
    law = curve.law
    curve_says = pair(
        "loss = {law}, through {count} small runs; nine times in ten the floor is {floor}, the power of size {size}, "
        "of data {data}; a run lies {noise} about it",
        law=f"{law.floor:.3g} + {law.size_factor:.3g} / N^{law.size_power:.2f} + {law.data_factor:.3g} / "
        f"D^{law.data_power:.2f}",
        count=curve.points,
        floor=_between(f"{curve.floor.low:.2g}", f"{curve.floor.high:.2g}"),
        size=_between(f"{curve.size_power.low:.2f}", f"{curve.size_power.high:.2f}"),
        data=_between(f"{curve.data_power.low:.2f}", f"{curve.data_power.high:.2f}"),
        noise=f"{curve.noise:.1%}".replace("%", " %"),
    )
    rate = pair(
        "{rate} for {model}: {how}",
        rate=f"{best.learning_rate:.3g}",
        model=same(best.size.model),
        how=scaled.carried.says,
    )
    said: list[tuple[str, str | Pair]] = [
        ("the curve", curve_says),
        ("the rate", rate),
        ("the bill", bill_text(scaled)),
    ]
    return said + [("mind" if n == 0 else "", note) for n, note in enumerate(scaled.notes)]


def _between(low: str, high: str) -> Pair:
    return pair("{low} to {high}", low=low, high=high)


def bill_text(scaled: Scaled) -> Pair:
    """Say what the small runs were priced at, what they and the fit took, and what is left of the budget."""
    fresh = [run for run in scaled.runs if run.fresh]
    spent, foreseen = scaled.spent, scaled.foreseen
    parts = [
        pair(
            "{count} small runs took {time}, {energy}, {money}; all were priced at {range}",
            count=len(fresh),
            time=format_seconds(spent.wall_s),
            energy=format_joules(spent.joules),
            money=format_usd(spent.usd),
            range=_between(format_seconds(foreseen.low), format_seconds(foreseen.high)),
        )
    ]
    if len(fresh) < len(scaled.runs):
        parts.append(
            pair(
                "{count} had run before, for {time}, and were not run again",
                count=len(scaled.runs) - len(fresh),
                time=format_seconds(scaled.reused.wall_s),
            )
        )
    parts.append(pair("pricing and fitting took {time}", time=format_seconds(scaled.fit.wall_s)))
    parts.append(pair("{left} of {budget} are left", left=scaled.left.says, budget=scaled.budget.says))
    return Pair("; ".join(each.en for each in parts), "；".join(each.zh for each in parts))


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
        format_seconds(run.spent.wall_s) if run.fresh else f"{format_seconds(run.spent.wall_s)}, before",
    ]


def in_order(runs: Sequence[SmallRun]) -> list[SmallRun]:
    """Return small runs by size, then data, then rate."""
    return sorted(runs, key=lambda run: (run.size.parameters, run.data, run.learning_rate))
