"""Fit the curve of the loss to small runs: the best law, and honest intervals about it.

Huber's loss on logarithms (Hoffmann et al. 2022, section 3.3), from a grid of starts. Intervals are of a bootstrap of
the residuals: what the best law says, plus noise as large as its residuals with the degrees of freedom that the fit
used up given back, is fitted again and again; how large the noise is is itself drawn, for a dozen points tell it badly.
Published constants are no part of it: those of Hoffmann et al. do not fit their own data, and their intervals would
have needed a thousand times the runs (Besiroglu et al. 2024, arXiv 2404.10102).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from thrifty.errors import DataError
from thrifty.scale.solve import PARAMETERS, Array, box, said, solve, starts
from thrifty.spec.cost import Interval
from thrifty.spec.scaling import REPEATS, Curve, Law, quantile, spanned, worth

DRAWS = 200
# starts of each draw beside the best law itself
STARTS_OF_DRAW = 11
# Huber's, of Hoffmann et al.; wider where single runs scatter more: 1.345 deviations keep 95 % of what squares tell
LEAST_DELTA, DELTA_DEVIATIONS = 1e-3, 1.345
# a law has five parameters; from so many runs on there is something left to tell the noise by
FEWEST_POINTS = PARAMETERS + 2
# the noise of a run at least: what another seed does to a small run
LEAST_NOISE = 1e-3
# a parameter within this share of the end of its range lies at it
_AT_END = 1e-3
_NAMES = ("floor", "size factor", "size power", "data factor", "data power")


class Point(NamedTuple):
    """One run: parameters, samples or tokens learned from, and the loss reached."""

    parameters: float
    data: float
    loss: float


def fit(points: Sequence[Point], unique: float, *, seed: int = 0, draws: int = DRAWS) -> Curve:
    """Fit a curve to runs.

    Args:
        points: at least seven, of three sizes and three amounts of data at least.
        unique: samples or tokens that there are.
        seed: of the noise that is drawn.
        draws: laws that intervals are of.

    Raises:
        DataError: there are too few points, or a loss that is no number above zero.
    """
    _check(points)
    losses = np.array([point.loss for point in points])
    logs, sizes = np.log(losses)[None], np.log([point.parameters for point in points])[None]
    within, noise_of = box(losses), np.random.default_rng(seed)
    middle = float(sizes.mean())
    data, middle_data = _data(points, unique, np.array([REPEATS]))

    found, delta = solve(starts(losses), sizes - middle, data, logs, LEAST_DELTA, within), LEAST_DELTA
    best = found.parameters[found.loss.argmin()]
    residuals = said(best[None], sizes - middle, data)[0] - logs
    deviation = 1.4826 * float(np.median(np.abs(residuals)))
    if DELTA_DEVIATIONS * deviation > delta:
        delta = DELTA_DEVIATIONS * deviation
        found = solve(found.parameters, sizes - middle, data, logs, delta, within)
        best = found.parameters[found.loss.argmin()]
        residuals = said(best[None], sizes - middle, data)[0] - logs
    freedom = len(points) - PARAMETERS
    noise = max(math.sqrt(float((residuals**2).sum()) / freedom), LEAST_NOISE)

    spread = math.log(2) / 1.645 if unique < math.inf else 0.0
    repeats = np.exp(math.log(REPEATS) + spread * noise_of.standard_normal(draws))
    drawn = _draw(points, best, noise, freedom, repeats, unique, noise_of, delta)
    laws = tuple(_law(each, middle, centre, float(r)) for each, centre, r in zip(*drawn, repeats, strict=True))
    law = _law(best, middle, float(middle_data[0]), REPEATS)
    ends = np.isclose(best, within.low, atol=_AT_END) | np.isclose(best, within.high, atol=_AT_END)
    return Curve(
        law=law,
        draws=laws,
        noise=noise,
        unique=unique,
        points=len(points),
        floor=_interval([each.floor for each in laws], law.floor),
        size_power=_interval([each.size_power for each in laws], law.size_power),
        data_power=_interval([each.data_power for each in laws], law.data_power),
        bounds=tuple(name for name, at_end in zip(_NAMES, ends, strict=True) if at_end),
    )


def _check(points: Sequence[Point]) -> None:
    if len(points) < FEWEST_POINTS:
        raise DataError(
            f"{len(points)} small runs are too few for a curve of five parameters",
            mend=f"{FEWEST_POINTS} at least are needed: give the small runs more, with --fit.",
        )
    for what, values in (("sizes", {p.parameters for p in points}), ("amounts of data", {p.data for p in points})):
        if len(values) < 3:
            raise DataError(
                f"small runs of {len(values)} {what} do not tell how the loss goes by them",
                mend="Three at least are needed: give the small runs more, with --fit.",
            )
    for point in points:
        if not (math.isfinite(point.loss) and point.loss > 0):
            raise DataError(
                f"a run of {point.parameters:,.0f} parameters ended at a loss of {point.loss:g}, which no curve has",
                mend="Lower train.learning_rate.",
            )


def _data(points: Sequence[Point], unique: float, repeats: Array) -> tuple[Array, Array]:
    """Logarithms of what the data of points are worth, less their mean, [K, P], and the means [K], by repeats [K]."""
    logs = np.log([[worth(point.data, unique, float(each)) for point in points] for each in repeats])
    means = logs.mean(-1)
    return logs - means[:, None], means


def _draw(
    points: Sequence[Point],
    best: Array,
    noise: float,
    freedom: int,
    repeats: Array,
    unique: float,
    noise_of: np.random.Generator,
    delta: float,
) -> tuple[Array, Array]:
    """Fit laws [K, 5] to what the best one says plus noise; and return the middles [K] of their data, logarithms."""
    count = len(repeats)
    sizes = np.log([point.parameters for point in points])[None]
    sizes = sizes - sizes.mean()
    plain, _ = _data(points, unique, np.array([REPEATS]))
    expected = said(best[None], sizes, plain)[0]
    scales = noise * np.sqrt(freedom / noise_of.chisquare(freedom, count))
    logs = expected + scales[:, None] * noise_of.standard_normal((count, len(points)))
    data, middles = _data(points, unique, repeats)
    within = box(np.exp(logs))
    grid = starts(np.exp(expected[0]))
    own = STARTS_OF_DRAW + 1
    begin = np.concatenate([np.concatenate([best[None], noise_of.choice(grid, STARTS_OF_DRAW)]) for _ in range(count)])
    found = solve(begin, sizes, np.repeat(data, own, 0), np.repeat(logs, own, 0), delta, within)
    places = found.loss.reshape(count, own).argmin(-1) + own * np.arange(count)
    return found.parameters[places], middles


def _law(parameters: Array, middle_size: float, middle_data: float, repeats: float) -> Law:
    floor, by_size, a, by_data, b = (float(each) for each in np.exp(parameters))
    return Law(
        floor=floor,
        size_factor=by_size * math.exp(a * middle_size),
        size_power=a,
        data_factor=by_data * math.exp(b * middle_data),
        data_power=b,
        repeats=repeats,
    )


def _interval(drawn: Sequence[float], value: float) -> Interval:
    ordered = tuple(sorted(drawn))
    method = f"the middle 90 % of {len(ordered)} fits to the curve's own points with other noise"
    return spanned(quantile(ordered, 0.05), value, quantile(ordered, 0.95), method)
