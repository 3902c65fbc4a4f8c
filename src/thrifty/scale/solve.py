"""Fit the law of losses from many starts at once: Levenberg and Marquardt's steps on Huber's loss of log residuals.

Hoffmann et al. 2022 (section 3.3) minimise the same loss by L-BFGS from a grid of starts; Besiroglu et al. 2024 (arXiv
2404.10102) found that theirs had stopped before the least. Five parameters of a least-squares kind have second
derivatives for nothing, so each start is taken by damped Newton steps until none helps, all of them side by side.

Shapes: S starts, P points, 5 parameters: the logarithms of E, A, a, B, b, where A and B are what the two terms are at
the middle of the points.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PARAMETERS = 5
STEPS = 400
# powers between which a law is sought: below the one a term is a constant beside E, above the other it is gone
LEAST_POWER, MOST_POWER = 0.02, 3.0
# of the least loss, that a floor has at least; and of a term in the middle
LEAST_FLOOR, LEAST_TERM = 1e-3, 1e-4
_BEGIN_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 1e-2, 1e-9, 1e9
# a step that lowers the loss by less of it is none; after so many of those a start has come to its end
_ENOUGH, _PATIENCE = 1e-8, 8


class Box(NamedTuple):
    """The ends between which the five parameters are sought, [5] each."""

    low: Array
    high: Array


class Solved(NamedTuple):
    """What the starts came to: parameters [S, 5], and Huber's loss of each [S]."""

    parameters: Array
    loss: Array


def box(losses: Array) -> Box:
    """Return where the parameters are sought, for losses [P] that were seen."""
    least, most = float(losses.min()), float(losses.max())
    terms = [LEAST_TERM * least, LEAST_POWER, LEAST_TERM * least, LEAST_POWER]
    low = np.log([LEAST_FLOOR * least, *terms])
    high = np.log([least, 10 * most, MOST_POWER, 10 * most, MOST_POWER])
    return Box(low, high)


def starts(losses: Array) -> Array:
    """Return the grid of starts [S, 5] for losses [P] that were seen."""
    least, middle = float(losses.min()), float(np.exp(np.log(losses).mean()))
    found = []
    for floor in (0.05, 0.5, 0.8, 0.95):
        over = max(middle - floor * least, 1e-3 * middle)
        for share in (0.2, 0.5, 0.8):
            for a in (0.1, 0.3, 0.7, 1.3):
                found += [[floor * least, share * over, a, (1 - share) * over, b] for b in (0.1, 0.3, 0.7, 1.3)]
    return np.log(np.array(found))


def said(parameters: Array, sizes: Array, data: Array) -> tuple[Array, Array]:
    """Return the logarithms of what laws [S, 5] say of points [S or 1, P], and their derivatives [S, P, 5].

    ``sizes`` and ``data`` are logarithms, less those of the middle.
    """
    floor, by_size, a, by_data, b = (np.exp(parameters[:, at, None]) for at in range(PARAMETERS))
    size_SP, data_SP = by_size * np.exp(-a * sizes), by_data * np.exp(-b * data)
    loss_SP = floor + size_SP + data_SP
    slopes = (np.broadcast_to(floor, loss_SP.shape), size_SP, -a * sizes * size_SP, data_SP, -b * data * data_SP)
    return np.log(loss_SP), np.stack(slopes, -1) / loss_SP[..., None]


def huber(residuals: Array, delta: float) -> Array:
    """Return Huber's loss of residuals [S, P], summed [S]: squares within ``delta``, straight lines beyond."""
    size = np.abs(residuals)
    return np.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta)).sum(-1)


def solve(begin: Array, sizes: Array, data: Array, logs: Array, delta: float, within: Box) -> Solved:
    """Take every start to where no step helps.

    Args:
        begin: starts [S, 5].
        sizes, data: as for `said`.
        logs: logarithms of the losses that were seen [S or 1, P].
        delta: residuals beyond it count by their size, not its square.
        within: where parameters may lie.
    """
    at = np.clip(begin, within.low, within.high)
    logs, data = np.broadcast_to(logs, (len(at), logs.shape[-1])), np.broadcast_to(data, (len(at), data.shape[-1]))
    loss = huber(said(at, sizes, data)[0] - logs, delta)
    damping, resting = np.full(len(at), _BEGIN_DAMPING), np.zeros(len(at), dtype=int)
    for _ in range(STEPS):
        # those that rest cost nothing more
        go = np.flatnonzero(resting < _PATIENCE)
        if not len(go):
            break
        tried = _step(at[go], sizes, data[go], logs[go], delta, damping[go], within)
        new = huber(said(tried, sizes, data[go])[0] - logs[go], delta)
        better = new < loss[go]
        resting[go] = np.where(better & (loss[go] - new > _ENOUGH * loss[go]), 0, resting[go] + 1)
        at[go], loss[go] = np.where(better[:, None], tried, at[go]), np.where(better, new, loss[go])
        damping[go] = np.clip(np.where(better, damping[go] / 3, damping[go] * 4), _LEAST_DAMPING, _MOST_DAMPING)
    return Solved(at, loss)


def _step(at: Array, sizes: Array, data: Array, logs: Array, delta: float, damping: Array, within: Box) -> Array:
    """Where a damped step leads from each of the parameters [S, 5]."""
    value, slope = said(at, sizes, data)
    residual = value - logs
    weighed = slope * np.minimum(1.0, delta / np.maximum(np.abs(residual), 1e-300))[..., None]
    gradient = (weighed * residual[..., None]).sum(1)
    # a parameter at the end of its range that would leave it stays there, and the others step without it
    held = ((at <= within.low) & (gradient > 0)) | ((at >= within.high) & (gradient < 0))
    free = np.where(held, 0.0, 1.0)
    curvature = (weighed.transpose(0, 2, 1) @ slope) * free[:, :, None] * free[:, None, :]
    diagonal = curvature[:, range(PARAMETERS), range(PARAMETERS)]
    added = damping[:, None] * np.maximum(diagonal, 1e-9 * diagonal.max(-1, keepdims=True)) + 1e-14 + (1 - free)
    step = np.linalg.solve(curvature + added[:, :, None] * np.eye(PARAMETERS), -(gradient * free)[..., None])
    # further than by a factor of e^2 the derivatives do not tell
    return np.clip(at + np.clip(step[..., 0], -2.0, 2.0), within.low, within.high)
