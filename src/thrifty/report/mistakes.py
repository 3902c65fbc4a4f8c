"""The worst mistakes and the reliability diagram, as the page shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from thrifty.report.figures import BLUE, GREY, TEAL, Figure, number, plot_layout
from thrifty.report.rows import number_text, share_text
from thrifty.report.words import Pair, joined, pair
from thrifty.spec.mistakes import Calibration, Mistake, Mistakes

LOOKS = {"png": "pictures", "wav": "sounds", "text": "texts", "row": "cells"}
# a mean difference of confidence and right answers under it is not worth a word
EVEN = 0.005


class Shown(NamedTuple):
    """One mistake in words; the sample itself is as it was kept."""

    sample: int
    said: str
    wanted: str
    sure: str
    loss: str
    name: str
    text: str
    row: dict[str, str]
    png: str
    wav: str


def mistakes_shown(found: Mistakes) -> dict[str, Any]:
    """Return what the page says of mistakes: a sentence, how they are laid out, and each of them."""
    look = next((look for field, look in LOOKS.items() if any(getattr(each, field) for each in found.worst)), "texts")
    return {"says": _says(found), "look": look, "worst": [_shown(each) for each in found.worst]}


def _says(found: Mistakes) -> Pair:
    samples, shown = f"{found.samples:,}", f"{len(found.worst):,}"
    if not found.worst:
        return pair("All of the {samples} test samples were answered rightly.", samples=samples)
    if not any(each.wanted for each in found.worst):
        return pair("The {shown} of {samples} test windows that were the hardest to continue.",
                    shown=shown, samples=samples)  # fmt: skip
    if found.calibration is None and not any(_is_text(each.said) for each in found.worst):
        return pair("The {shown} of {samples} test samples whose numbers were missed the farthest.",
                    shown=shown, samples=samples)  # fmt: skip
    return pair(
        "{wrong} of {samples} test samples were answered wrongly; here are the {shown} of the greatest loss.",
        wrong=f"{found.wrong:,}", samples=samples, shown=shown,
    )  # fmt: skip


def _is_text(said: str) -> bool:
    try:
        float(said.replace(",", ""))
    except ValueError:
        return True
    return False


def _shown(each: Mistake) -> Shown:
    return Shown(
        sample=each.sample, said=each.said, wanted=each.wanted, sure=share_text(each.sure) if each.sure else "",
        loss=number_text(each.loss), name=each.name, text=each.text, row=each.row, png=each.png, wav=each.wav,
    )  # fmt: skip


def calibration_shown(found: Calibration) -> dict[str, Any]:
    """Return what the page says of a calibration: its error, its bins, and which way it leans."""
    return {
        "error": share_text(found.error) if found.error else "0 %",
        "bins": len(found.counts),
        "says": _leans(found),
    }


def _leans(found: Calibration) -> str:
    whole = sum(found.counts) or 1
    sure, right = (
        sum(count * value for count, value in zip(found.counts, values, strict=True)) / whole
        for values in (found.sure, found.right)
    )
    if abs(sure - right) < EVEN:
        return "It is as sure as it is right."
    return "It is surer than it is right." if sure > right else "It is right more often than it is sure."


def calibration_figures(found: Calibration) -> list[Figure]:
    """Plot the share of right answers by confidence (a reliability diagram), and how many answers there are of each."""
    bins = len(found.counts)
    some = [at for at in range(bins) if found.counts[at]]
    middles = [(at + 0.5) / bins for at in range(bins)]
    axis = {"range": [0, 1], "tickformat": ".0%", "title": _title("confidence")}
    says = joined(
        [
            pair(
                "{sure} sure: {right} right of {count}",
                sure=f"{found.sure[at]:.0%}",
                right=f"{found.right[at]:.0%}",
                count=f"{found.counts[at]:,}",
            )
            for at in some
        ]
    )
    every = pair("Answers by confidence, in {bins} bins: {counts}.", bins=bins, counts=_listed(found.counts))
    right = {
        "type": "bar", "name": "what was right", "x": [number(middles[at]) for at in some],
        "y": [number(found.right[at]) for at in some], "width": [0.9 / bins] * len(some), "marker": {"color": BLUE},
        "hovertemplate": "%{y:.1%}",
    }  # fmt: skip
    line = {
        "type": "scatter", "mode": "lines", "name": "as sure as right", "x": [0.0, 1.0], "y": [0.0, 1.0],
        "line": {"color": GREY, "width": 2, "dash": "dash"}, "hoverinfo": "skip",
    }  # fmt: skip
    counts = {
        "type": "bar", "name": "answers", "x": [number(each) for each in middles], "y": list(found.counts),
        "width": [0.9 / bins] * bins, "marker": {"color": TEAL}, "hovertemplate": "%{y:,}",
    }  # fmt: skip
    key = (("what was right", BLUE, "line"), ("as sure as right", GREY, "dash"))
    return [
        Figure(
            "reliability", "Right answers by confidence", pair("Of answers {what}.", what=says), [right, line],
            _layout(axis, {"range": [0, 1.02], "tickformat": ".0%", "title": _title("share that is right")}), key,
        ),
        Figure(
            "confidence", "Answers by confidence", every, [counts],
            _layout(axis, {"rangemode": "tozero", "title": _title("answers")}),
        ),
    ]  # fmt: skip


def _listed(counts: Sequence[int]) -> str:
    return ", ".join(f"{count:,}" for count in counts)


def _title(text: str) -> dict[str, Any]:
    return {"text": text, "standoff": 6, "font": {"size": 12}}


def _layout(xaxis: dict[str, Any], yaxis: dict[str, Any]) -> dict[str, Any]:
    return {**plot_layout(last=1, xaxis=xaxis, yaxis=yaxis), "hovermode": "closest"}
