"""Where a trial will end: its curve carried on as a power law, set right by how that missed in trials that did end.

Of a figure that rises to 1 the error is what it lacks; of one that falls it is the figure itself. Errors of learning
fall about as powers of the steps (Hestness et al. 2017), and by more where a schedule lets the rate fall at the end.
How much more, and how far single trials lie from it, is seen in trials of the same study that came to their end: the
interval is that of a new draw from as few as there were (Student's t), so that two of them say little.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from thrifty.spec import Interval

Curve = Mapping[float, float]

# errors are not compared below this, and figures that are not of one (R² under 0) not above the other
LEAST_ERROR, MOST_ERROR = 1e-6, 1e6
# points of a curve that its slope is taken from, and the steepest that is believed
POINTS, STEEPEST = 4, -1.5
# of the logarithm of an error: validation has noise of its own, however alike few trials were
LEAST_DEVIATION = 0.02
# trials that ended without which nothing is known of how far a forecast misses
FEWEST = 2
# one-sided 95 % of Student's t, by degrees of freedom
_T95 = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812)
_T95_MANY = 1.7


def error_of(value: float, rises: bool) -> float:
    """What a figure is away from perfect, above 0.

    >>> error_of(0.9, rises=True), error_of(2.5, rises=False)
    (0.1, 2.5)
    """
    error = round(1 - value, 12) if rises else value
    return min(max(error, LEAST_ERROR), MOST_ERROR) if math.isfinite(error) else MOST_ERROR


def carried_on(curve: Curve, rises: bool) -> float:
    """The logarithm of the error at the end of a curve that goes on as a power of the share of training.

    Args:
        curve: validation figures by the share of the whole training, from above 0 to 1; at least one.
        rises: whether more is better.
    """
    points = [(math.log(share), math.log(error_of(value, rises))) for share, value in sorted(curve.items())][-POINTS:]
    if len(points) == 1:
        return points[0][1]
    mean_at, mean = (statistics.fmean(part) for part in zip(*points, strict=True))
    spread = sum((at - mean_at) ** 2 for at, _ in points)
    slope = sum((at - mean_at) * (error - mean) for at, error in points) / spread
    # the end is at share 1, whose logarithm is 0
    return mean - min(max(slope, STEEPEST), 0.0) * mean_at


def expected_end(curve: Curve, ended: Sequence[Curve], *, rises: bool) -> float:
    """The figure that a trial should end at, set right by whatever trials have ended; without any, by none.

    Args:
        curve: of the trial, by the share of its training.
        ended: curves of trials that came to their end.
        rises: whether more is better.
    """
    now = max(curve)
    if now >= 1.0:
        return (max if rises else min)(curve.values())
    misses = _misses(now, ended, rises)
    middle = carried_on(curve, rises) + (statistics.fmean(misses) if misses else 0.0)
    return _figure(middle, rises)


def forecast(curve: Curve, ended: Sequence[Curve], *, rises: bool) -> Interval | None:
    """Say where a trial will end, with the interval that it should fall into nine times in ten.

    Args:
        curve, ended, rises: as for `expected_end`.

    Returns:
        The figure at the end; None where too few trials have ended to know how far this misses.
    """
    now = max(curve)
    value = expected_end(curve, ended, rises=rises)
    if now >= 1.0:
        return Interval(low=value, value=value, high=value, method="it has ended")
    misses = _misses(now, ended, rises)
    if len(misses) < FEWEST:
        return None
    middle = carried_on(curve, rises) + statistics.fmean(misses)
    deviation = max(statistics.stdev(misses), LEAST_DEVIATION)
    freedom = len(misses) - 1
    t = _T95[freedom - 1] if freedom <= len(_T95) else _T95_MANY
    half = t * deviation * math.sqrt(1 + 1 / len(misses))
    ends = sorted(_figure(each, rises) for each in (middle - half, middle + half))
    return Interval(
        low=min(ends[0], value),
        value=value,
        high=max(ends[1], value),
        method=f"a power law of {len(curve)} validations, set right by {len(misses)} trials that ended",
    )


def _misses(now: float, ended: Sequence[Curve], rises: bool) -> list[float]:
    """By how much the errors of trials that ended lie from what was to be expected of them at this share, in nepers."""
    found = []
    for other in ended:
        before = {share: value for share, value in other.items() if share <= now + 1e-9}
        if before:
            best = (max if rises else min)(other.values())
            found.append(math.log(error_of(best, rises)) - carried_on(before, rises))
    return found


def can_beat(best: float, end: Interval | None, *, rises: bool) -> bool:
    """Whether a trial with this forecast may still end better than ``best``; one without a forecast may.

    >>> can_beat(0.9, Interval(low=0.7, value=0.8, high=0.85, method=""), rises=True)
    False
    """
    return end is None or (end.high > best if rises else end.low < best)


def _figure(log_error: float, rises: bool) -> float:
    """The figure of an error, given by its logarithm; what is far out is cut off, lest it overflow."""
    error = math.exp(min(max(log_error, -30.0), 30.0))
    return 1 - error if rises else error
