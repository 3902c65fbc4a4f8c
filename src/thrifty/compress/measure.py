"""What answering takes on this machine: candidates measured in turn, round by round, so that noise falls on all alike.

A round asks each of them until enough time has gone by; the figures are medians over the rounds with their least and
most. Threads are those of a server: all that the machine gives.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from thrifty.compress.answers import Answers
from thrifty.compress.moves import Candidate
from thrifty.compress.pen import tokens_of
from thrifty.data import Store
from thrifty.data.samples import take
from thrifty.export.weights import stored
from thrifty.ledger import Meter
from thrifty.models.inputs import to_tensors
from thrifty.spec import Device, Measured, Spent, Spread

ROUNDS = 5
ROUND_S = 0.08
# of rows at once, beside those of a request
SIZES = (1, 8, 32)
# different ones of each size
REQUESTS = 6


@dataclass
class _Samples:
    """What the rounds found of one candidate: what a call took, by its rows."""

    spent: dict[int, list[Spent]] = field(default_factory=dict)


def requests(store: Store, batch: int, *, seed: int = 0) -> dict[int, list[Tensor]]:
    """Make requests of ``batch`` rows and of `SIZES` out of training rows: some of each, by their number of rows.

    Each is filled up to its own longest, as a server does; all candidates get the same.
    """
    draw, count = np.random.default_rng(seed), store.dataset.counts["train"]
    made: dict[int, list[Tensor]] = {}
    for rows in sorted({batch, *SIZES}):
        chosen = [np.resize(draw.permutation(count), rows) for _ in range(REQUESTS)]
        made[rows] = [to_tensors({"x": take(store, "train", each)["x"]})["x"] for each in chosen]
    return made


def prompts(store: Store, batch: int, *, seed: int = 0) -> dict[int, list[Tensor]]:
    """Make requests of ``batch`` prompts out of the begins of training texts, by their number, for a `Pen`."""
    count = tokens_of(store.dataset.shape[0])
    return {batch: [each[:, :count] for each in requests(store, batch, seed=seed)[batch]]}


def measure(
    candidates: Mapping[str, Answers],
    asked: Mapping[int, Sequence[Tensor]],
    sizes: Mapping[str, int],
    device: Device,
    *,
    batch: int,
    tokens: int = 0,
    rounds: int = ROUNDS,
    round_s: float = ROUND_S,
) -> dict[str, Measured]:
    """Measure candidates beside each other.

    Args:
        candidates: what answers, by name.
        asked: requests by their number of rows, as `requests` makes them.
        sizes: bytes of the files of each.
        device: whose counter energy is read from, or whose watts it is derived from.
        batch: rows of a request.
        tokens: that are written on from each row; 0 where none are.
        rounds: in each of which every candidate is asked.
        round_s: seconds that a candidate gets in a round for each number of rows, at least one request.
    """
    samples, meter = {name: _Samples() for name in candidates}, Meter(device)
    with torch.inference_mode():
        for answers in candidates.values():
            for some in asked.values():
                answers(some[0])  # kernels are chosen and memory is taken
        for turn in range(rounds):
            # each goes first in turn: caches and clocks favour one place
            names = list(candidates)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                for rows, some in asked.items():
                    samples[name].spent.setdefault(rows, []).append(_timed(candidates[name], some, round_s, meter))
    return {name: _figures(samples[name], batch, sizes[name], tokens) for name in candidates}


def size_of(candidate: Candidate) -> int:
    """Return the bytes of the files that a bundle of a candidate would have of it."""
    if candidate.form is not None:
        return sum(path.stat().st_size for path in candidate.form.files.iterdir())
    return sum(each.nbytes for each in stored(candidate.model).values())


def _timed(answers: Answers, some: Sequence[Tensor], seconds: float, meter: Meter) -> Spent:
    """What a call takes in the mean, over so many seconds and at least one."""
    calls = 0
    with meter.stage() as stage:
        began = time.perf_counter()
        while not calls or time.perf_counter() - began < seconds:
            answers(some[calls % len(some)])
            calls += 1
    spent = stage.spent()
    a_call = {name: getattr(spent, name) / calls for name in ("wall_s", "cpu_s", "joules", "usd")}
    return Spent(**a_call, joules_method=spent.joules_method)


def _figures(samples: _Samples, batch: int, size: int, tokens: int) -> Measured:
    rates = {rows: rows / statistics.median(each.wall_s for each in found) for rows, found in samples.spent.items()}
    best = max(rates, key=lambda rows: rates[rows])
    asked = samples.spent[batch]
    return Measured(
        batch=batch,
        latency_s=_spread([each.wall_s for each in asked]),
        rows_per_s=_spread([best / each.wall_s for each in samples.spent[best]]),
        best_batch=best,
        cpu_s_a_row=_spread([each.cpu_s / batch for each in asked]),
        joules_a_row=_spread([each.joules / batch for each in asked]),
        joules_method=asked[-1].joules_method,
        bytes=size,
        tokens_per_s=_spread([batch * tokens / each.wall_s for each in asked]) if tokens else None,
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(value=statistics.median(values), low=min(values), high=max(values))
