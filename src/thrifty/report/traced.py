"""Inside a step: what holds its memory at the peak, and where its time goes, as the trace predicts them."""

from __future__ import annotations

from collections.abc import Mapping

from thrifty.report.figures import BLUE, ORANGE, TEAL, Figure, bars
from thrifty.report.plan_figures import timeline_figure
from thrifty.report.rows import share_text
from thrifty.spec.traced import Traced
from thrifty.spec.units import format_bytes, format_seconds

LONGEST_NAME = 28


def traced_shown(found: Traced) -> dict[str, str]:
    """Return what the page says of a traced step."""
    seconds = format_seconds(sum(found.seconds_by_op.values()))
    return {"peak": format_bytes(found.peak_bytes), "seconds": seconds, "place": found.peak_at}


def traced_figures(found: Traced) -> list[Figure]:
    """Plot memory over a step, its holders at the peak, and the step's seconds by module and by operator."""
    whole = sum(found.seconds_by_op.values()) or 1.0

    def share(seconds: float) -> str:
        return share_text(seconds / whole)

    wanted = [
        ("traced-holds", "What holds the memory at its peak", found.holds, format_bytes, TEAL),
        ("traced-modules", "Modules whose results are held then", _named(found.modules), format_bytes, TEAL),
        ("traced-by-module", "Where a step's time goes, by module", _named(found.seconds_by_module), share, BLUE),
        ("traced-by-op", "Where a step's time goes, by operator", found.seconds_by_op, share, ORANGE),
    ]
    drawn = [bars(*each) for each in wanted if each[2]]
    return [timeline_figure(found.timeline)._replace(id="traced-memory"), *drawn] if found.timeline.at else drawn


def _named(values: Mapping[str, float]) -> dict[str, float]:
    """The end of a long path tells more than its beginning."""
    found: dict[str, float] = {}
    for name, value in values.items():
        short = name if len(name) <= LONGEST_NAME else f"…{name[1 - LONGEST_NAME :].lstrip('.')}"
        found[short] = found.get(short, 0.0) + value
    return found
