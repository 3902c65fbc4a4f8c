"""Correct predictions by what the ledger has seen on this machine: shrunk towards no change, with honest intervals.

The residual of a run is ``ln(measured / predicted)`` of the cost model's own prediction. It is a bias of the machine,
normal about 0, plus a scatter of runs, normal about the bias. The prediction's own interval gives the two together;
how they share it, and whether it was too wide or too narrow, is not known: a grid of both is weighed by how well it
explains the runs (Bayes' rule, in closed form at each point of the grid). The middle 90 % of the mixture is the
corrected interval: as wide as the model's own without history, as narrow as runs agree with much of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from thrifty.ledger import Entry
from thrifty.models import FAMILIES, MODELS
from thrifty.models.sized import split_name
from thrifty.spec import Cost, Interval, ModelPlan

# the bias's share of the variance, and the true spread over that of the interval; all as likely before any run
BIAS_SHARES = (0.1, 0.3, 0.5, 0.7, 0.85, 0.95, 0.99)
WIDTHS = {0.5: 0.15, 0.75: 0.2, 1.0: 0.3, 1.4: 0.2, 2.0: 0.15}
# of a family of its own: with fewer runs the machine's are taken together
LEAST_FAMILY_RUNS = 3
# entries of the ledger that are looked back over
HISTORY = 200
# old runs tell of old code and other loads
MOST_RUNS = 50
_Z = 1.6448536269514722
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Seen:
    """A finished run: model family, and the logarithm of measured over predicted of each quantity."""

    family: str
    residuals: dict[str, float]


def seen(entries: Iterable[Entry], device: str) -> list[Seen]:
    """Return what finished runs on a device say of their predictions.

    Args:
        entries: of a ledger, the newest first.
        device: its name; predictions for others were made for others.
    """
    found = []
    for entry in entries:
        if entry.status != "done" or entry.device != device or entry.predicted is None:
            continue
        residuals: dict[str, float] = {
            # both are for the work that was done: a run that reached its target early owes less
            each.quantity: math.log(
                each.measured / (each.predicted.uncorrected * each.due.value / each.predicted.value)
            )
            for each in entry.comparisons()
            if each.quantity in {"seconds", "peak_bytes"} and each.measured > 0 and each.due.value > 0
        }
        recipe = MODELS.get(split_name(entry.model)[0])
        found.append(Seen(recipe.family if recipe else entry.model, residuals))
    return found


def kin_of(model: ModelPlan) -> str:
    """Name the models whose runs tell most of this one: its family, or itself where it is not ours."""
    return model.family if model.family in FAMILIES else model.name


def correct(interval: Interval, quantity: str, family: str, history: Sequence[Seen]) -> Interval:
    """Return an interval corrected by earlier runs; without any it stays as it is.

    Args:
        interval: of the cost model.
        quantity: ``seconds`` or ``peak_bytes``.
        family: of the model.
        history: finished runs on this machine, the newest first.

    >>> runs = [Seen("gpt", {"seconds": 0.2})] * 9
    >>> mended = correct(Interval.around(100.0, 0.5, "traced"), "seconds", "gpt", runs)
    >>> 115 < mended.value < 123, mended.high < 150
    (True, True)
    """
    told = [seen for seen in history if quantity in seen.residuals][:MOST_RUNS]
    if not told or interval.low <= 0:
        return interval
    spread = math.log(interval.high / interval.low) / (2 * _Z)
    own = [seen.residuals[quantity] for seen in told if seen.family == family]
    others = [seen.residuals[quantity] for seen in told if seen.family != family]
    centre, used, who = 0.0, [*own, *others], f"{len(told)} runs"
    if len(own) >= LEAST_FAMILY_RUNS:
        centre = _mean(_posterior(others, spread))
        used, who = own, f"{len(own)} runs of the {family} family"
    parts = _posterior([residual - centre for residual in used], spread)
    factor = math.exp(centre + _mean(parts))
    return Interval(
        low=interval.value * math.exp(centre + _quantile(parts, 0.05)),
        value=interval.value * factor,
        high=interval.value * math.exp(centre + _quantile(parts, 0.95)),
        method=f"{interval.method}; times {factor:.2f} by {who} on this machine",
        first=interval.uncorrected,
    )


@dataclass(frozen=True)
class _Part:
    """One point of the grid: its weight, and the normal distribution of the next residual."""

    weight: float
    mean: float
    spread: float


def _posterior(residuals: Sequence[float], spread: float) -> list[_Part]:
    """Return the mixture that the next residual follows.

    With noise variance s and bias variance t, n residuals of mean r and squares Q about it: their likelihood is
    ``s^-(n-1)/2 (s + n t)^-1/2 exp(-Q / 2s - n r^2 / 2(s + n t))``, and the next is normal about ``n t r / (s + n t)``
    with variance ``s + s t / (s + n t)``.
    """
    count = len(residuals)
    mean = sum(residuals) / count if count else 0.0
    squares = sum((residual - mean) ** 2 for residual in residuals)
    parts: list[tuple[float, float, float]] = []
    for width, prior in WIDTHS.items():
        for share in BIAS_SHARES:
            noise, bias = (1 - share) * (width * spread) ** 2, share * (width * spread) ** 2
            total = noise + count * bias
            told = math.log(prior)
            if count:
                told -= 0.5 * ((count - 1) * math.log(noise) + math.log(total))
                told -= 0.5 * (squares / noise + count * mean**2 / total)
            parts.append((told, count * bias * mean / total, math.sqrt(noise + noise * bias / total)))
    most = max(told for told, _, _ in parts)
    whole = sum(math.exp(told - most) for told, _, _ in parts)
    return [_Part(math.exp(told - most) / whole, centre, sd) for told, centre, sd in parts]


def _mean(parts: Sequence[_Part]) -> float:
    return sum(part.weight * part.mean for part in parts)


def _quantile(parts: Sequence[_Part], share: float) -> float:
    """Where a mixture has this share below it, by bisection."""
    low = min(part.mean - 8 * part.spread for part in parts)
    high = max(part.mean + 8 * part.spread for part in parts)
    for _ in range(40):
        middle = (low + high) / 2
        below = sum(part.weight * _NORMAL.cdf((middle - part.mean) / part.spread) for part in parts)
        low, high = (middle, high) if below < share else (low, middle)
    return (low + high) / 2


def corrected(cost: Cost, correct: Callable[[str, Interval], Interval]) -> Cost:
    """Correct the time and memory of a cost; energy and money go with the time."""
    seconds = correct("seconds", cost.seconds)
    factor = seconds.value / cost.seconds.value if cost.seconds.value else 1.0
    going = {name: scaled(getattr(cost, name), factor) for name in ("joules", "usd")}
    peak = correct("peak_bytes", cost.peak_bytes)
    return cost.model_copy(update={"seconds": seconds, "peak_bytes": peak, **going})


def scaled(interval: Interval, factor: float) -> Interval:
    """Return an interval times a factor."""
    low, value, high = (bound * factor for bound in (interval.low, interval.value, interval.high))
    return Interval(low=low, value=value, high=high, method=interval.method)
