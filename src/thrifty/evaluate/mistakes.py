"""The worst mistakes of a model on the held-out test split, each with its sample, and its calibration."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thrifty.data import Store, sweep_order
from thrifty.data.shown import Shower, words_of
from thrifty.evaluate.calibrated import calibration
from thrifty.evaluate.figures import OneByOne
from thrifty.spec import Dataset
from thrifty.spec.mistakes import Mistake, Mistakes

MOST = 12
MOST_CHARACTERS = 400


def mistakes_of(store: Store, found: OneByOne, source: Path, *, split: str = "test", most: int = MOST) -> Mistakes:
    """Choose the mistakes of the greatest loss and show them, and tell how far confidence can be trusted.

    Args:
        store: prepared data.
        found: every answer to the split, in the order of `thrifty.data.sweep_order`.
        source: where the raw files lie, of which sounds are taken; one that is not there is left out.
        split: of the store.
        most: mistakes to show.
    """
    order = sweep_order(store, split)
    # what is no number is the worst there is
    losses_N = np.where(np.isnan(found.losses), np.inf, found.losses)
    # there is no right window of text: all are told more or less well
    wrong = np.arange(len(losses_N)) if store.dataset.task == "language" else np.flatnonzero(found.wrong)
    chosen = wrong[np.argsort(-losses_N[wrong], kind="stable")][:most]
    shower, written = Shower(store, split, source), _written(store)
    worst = []
    for place in chosen.tolist():
        sample, loss = int(order[place]), float(losses_N[place])
        worst.append(
            Mistake(
                sample=sample,
                loss=loss if math.isfinite(loss) else math.inf,
                wanted=_short(written(found.wanted[place])),
                said=_short(written(found.said[place])),
                sure=float(np.nan_to_num(found.sure[place])) if len(found.sure) else 0.0,
                **shower.show(sample),
            )
        )
    sure = calibration(found.sure, ~found.wrong) if len(found.sure) else None
    return Mistakes(samples=len(found.losses), wrong=len(wrong), worst=tuple(worst), calibration=sure)


def _written(store: Store) -> Callable[[Any], str]:
    """What writes an answer of the task as text."""
    data = store.dataset
    ways: dict[str, Callable[[Any], str]] = {
        "classify": lambda number: data.labels[number],
        "tag": lambda numbers: ", ".join(data.labels[each] for each in numbers) or "–",
        "regress": lambda value: _in_unit(data, value),
        "transcribe": lambda said: said or "–",
        "language": lambda said: said,
        "mask": lambda tokens: _words(store, tokens),
    }
    return ways[data.task]


def _in_unit(data: Dataset, value: float) -> str:
    assert data.table is not None
    return f"{value * data.table.deviation + data.table.mean:,.6g}"


def _words(store: Store, tokens: Sequence[int]) -> str:
    return ", ".join(words_of(store, [token]) for token in tokens) or "–"


def _short(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]} …"
