"""`write_proposal`: what `thrifty plan` answers as one HTML file that needs nothing else."""

from __future__ import annotations

from pathlib import Path

from thrifty.files import write_atomic
from thrifty.report.document import render
from thrifty.report.plan_figures import proposal_figures
from thrifty.report.plan_tables import head_text, interval_text, paragraphs, price_text
from thrifty.report.rows import QUANTITIES, range_text
from thrifty.report.words import Pair, in_parts, pair, same
from thrifty.spec.proposal import Machine, Offer, Proposal
from thrifty.spec.units import format_bytes, format_joules, format_seconds


def write_proposal(path: Path, proposal: Proposal) -> Path:
    """Write the page of a proposal, whole or not at all, and return its path.

    Raises:
        StorageError: the disk is full or the folder read-only.
    """
    figures = proposal_figures(proposal)
    what, where = head_text(proposal)
    chosen = _row(proposal.chosen) if proposal.chosen else {}
    title = (
        pair("{job}: the plan, {time}", job=same(proposal.job), time=chosen["time"])
        if chosen
        else pair("{job}: the plan", job=same(proposal.job))
    )
    html = render(
        "plan_page.html",
        [each._asdict() for each in figures],
        title=title,
        proposal=proposal,
        what=what,
        where=where,
        figures=figures,
        chosen=chosen,
        tiles=_tiles(proposal.chosen) if proposal.chosen else [],
        offers=[_row(offer) for offer in proposal.offers],
        machines=[_machine(row) for row in proposal.machines],
        said=[(label, text) for label, text in paragraphs(proposal) if label != "searched"],
        searched=paragraphs(proposal)[-1][1],
    )
    write_atomic(path, html.encode("utf-8", errors="replace"), purpose="the plan's page")
    return path


def _row(offer: Offer) -> dict[str, str | Pair]:
    cost = offer.cost
    return {
        "says": in_parts(offer.says),
        "remark": offer.remark,
        "mark": offer.mark,
        "fits": "" if offer.fits else "does not fit",
        "time": format_seconds(cost.seconds.value),
        "step": format_seconds(offer.step_seconds),
        "memory": format_bytes(cost.peak_bytes.value),
        "energy": format_joules(cost.joules.value),
        "money": price_text(cost.usd.value),
        "spread": interval_text(offer),
    }


def _machine(row: Machine) -> dict[str, str | Pair]:
    gave = f"{row.speedup_of_doubling:.2f} x" if row.speedup_of_doubling else ""
    note = "" if row.pays else "past where more devices pay"
    said = {"name": row.name, "device": row.device, "doubling": gave, "front": "yes" if row.on_front else ""}
    return {**_row(row.offer), **said, "note": note}


def _tiles(offer: Offer) -> list[dict[str, str]]:
    return [
        {
            "quantity": name,
            "value": show(interval.value),
            "range": range_text(interval, quantity),
            "method": interval.method,
        }
        for quantity, (name, show) in QUANTITIES.items()
        if quantity != "flops"
        for interval in [getattr(offer.cost, quantity)]
    ]
