"""The bill of each served model so far, as the page shows it: a few figures, each with what belongs to it."""

from __future__ import annotations

from typing import Any

from thrifty.serve.bill import rates
from thrifty.serve.counted import Counted, count
from thrifty.serve.metrics import Metrics
from thrifty.serve.models import Models
from thrifty.spec.units import format_joules, format_seconds, format_usd

# as people say the states of Triton's index
_STATES = {"READY": "ready", "LOADING": "loading", "UNLOADING": "leaving", "UNAVAILABLE": "not available"}


def bills(models: Models, metrics: Metrics) -> dict[str, Any]:
    """Tell the state and the figures of every version by its label, and what energy and money are derived from."""
    counted = count(metrics)
    return {
        "versions": {
            f"{each.name}:{each.version}": {
                "state": _STATES[each.state],
                "reason": each.reason,
                "served": models.find(each.name, each.version) is not None,
            }
            for each in models.standings()
        },
        "tiles": {
            model.label: tiles(counted.get(model.label, Counted()), metrics.recent.quantiles(model.label, (0.5, 0.99)))
            for model in models
        },
        "source": rates().source,
    }


def tiles(counted: Counted, quantiles: list[float]) -> list[dict[str, str]]:
    """Write figures for people.

    >>> tiles(Counted(requests=10, answered=9, rows=12, cpu_seconds=0.9, usd=9e-6), [0.004, 0.02])[-2]["figure"]
    '4.0 ms'
    """
    answered = counted.answered
    each = f"{format_seconds(counted.cpu_seconds / answered)} a request" if answered else ""
    joules = f"{format_joules(counted.joules / answered * 1000)} a thousand requests" if answered else ""
    median, late = (format_seconds(seconds) for seconds in quantiles) if quantiles else ("–", "–")
    if counted.texts:
        work = ("Tokens written", f"{counted.tokens:,.0f}", f"in {counted.texts:,.0f} texts")
    else:
        work = ("Rows", f"{counted.rows:,.0f}", f"{counted.rows_a_batch:.1f} in a batch")
    shown = [
        ("Requests", f"{counted.requests:,.0f}", f"{answered:,.0f} answered"),
        work,
        ("Processor time", format_seconds(counted.cpu_seconds), each),
        ("Energy", format_joules(counted.joules), joules),
        (
            "A thousand requests",
            _money(counted.usd / answered * 1000) if answered else "–",
            f"{_money(counted.usd)} so far",
        ),
        ("Refused for load", f"{counted.shed:,.0f}", f"{counted.cancelled:,.0f} left before"),
        ("Answered within", median, f"median; 99 in 100: {late}"),
        ("Waiting", f"{counted.waiting:,.0f}", "rows now"),
    ]
    return [{"what": what, "figure": figure, "more": more} for what, figure, more in shown]


def _money(usd: float) -> str:
    return "< $0.000001" if 0 < usd < 1e-6 else format_usd(usd)
