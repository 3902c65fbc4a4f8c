"""`write_scaled`: what `thrifty scale` answers as one HTML file that needs nothing else."""

from __future__ import annotations

from pathlib import Path

from thrifty.files import write_atomic
from thrifty.report.document import render
from thrifty.report.scale_figures import scale_figures
from thrifty.report.scale_tables import head_text, in_order, offer_headers, offer_lines, paragraphs, run_cells
from thrifty.report.words import in_parts, pair, same
from thrifty.spec.scaling import Scaled

RUN_HEADS = ("for", "model", "parameters", "data", "rate", "batch", "loss", "time")


def write_scaled(path: Path, scaled: Scaled) -> Path:
    """Write the page of an answer, whole or not at all, and return its path.

    Raises:
        StorageError: the disk is full or the folder read-only.
    """
    figures = scale_figures(scaled)
    html = render(
        "scale_page.html",
        [each._asdict() for each in figures],
        title=pair("{job}: what {budget} should buy", job=same(scaled.job), budget=scaled.budget.says),
        scaled=scaled,
        where=in_parts(scaled.where),
        head=head_text(scaled),
        best=scaled.offers[scaled.best],
        figures=figures,
        offer_heads=offer_headers(scaled),
        offers=offer_lines(scaled, list(enumerate(scaled.offers))),
        run_heads=RUN_HEADS,
        runs=[run_cells(run) for run in in_order(scaled.runs)],
        said=paragraphs(scaled),
    )
    write_atomic(path, html.encode("utf-8", errors="replace"), purpose="the page")
    return path
