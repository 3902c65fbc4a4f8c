"""Learning rates that go from small models to large ones: by muP once two widths agree, else by a measured power.

Rates are compared a factor of two apart, at the smallest and the largest width of the small runs, over the shortest of
them; the best of each is where neither neighbour is better. That muP carries a rate is known of stable training at one
batch and one length (Yang et al. 2022), and others found rates that moved (microsoft/mup issues 22 and 64; arXiv
2510.19093), so it is looked at here before it is relied on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from thrifty.errors import DivergedError
from thrifty.spec.scaling import Carried, Size

STEP = 2.0
# rates compared at a width at most
MOST_RATES = 7
# of the loss: rates within it of the best are as good, for another seed changes as much
ALIKE = 0.003

# the loss that a rate comes to; infinite where training broke off
Attempt = Callable[[float], float]


def compare(first: float, attempt: Attempt) -> dict[float, float]:
    """Compare rates about one until neither neighbour of the best is better; return the loss of each, in order.

    >>> [round(rate, 6) for rate in compare(0.001, lambda rate: abs(math.log(rate / 0.004)))]
    [0.0005, 0.001, 0.002, 0.004, 0.008]
    """
    losses: dict[float, float] = {}

    def look(place: int) -> float:
        rate = rounded(first * STEP**place)
        if rate not in losses:
            losses[rate] = attempt(rate)
        return losses[rate]

    at = 0
    while len(losses) < MOST_RATES:
        here, below, above = look(at), look(at - 1), look(at + 1)
        if not math.isfinite(here) and not math.isfinite(below):
            at -= 1
        elif min(below, above) >= here:
            break
        else:
            at += 1 if above < below else -1
    if not any(map(math.isfinite, losses.values())):
        raise DivergedError(
            f"no rate from {min(losses):.2g} to {max(losses):.2g} trains the smallest model", mend="Lower train.clip."
        )
    return dict(sorted(losses.items()))


def rounded(rate: float) -> float:
    """A rate of three digits, so that the same one is found again by its name."""
    return float(f"{rate:.3g}")


def best_of(losses: dict[float, float]) -> float:
    """Return the rate at the least of a parabola through the best and its neighbours, by logarithms; else the best.

    >>> best_of({1.0: 1.1, 2.0: 1.0, 4.0: 1.1})
    2.0
    """
    rates = sorted(losses)
    at = min(range(len(rates)), key=lambda place: losses[rates[place]])
    around = [losses[rates[place]] for place in (at - 1, at, at + 1) if 0 <= place < len(rates)]
    if len(around) < 3 or not all(map(math.isfinite, around)):
        return rates[at]
    below, here, above = around
    bend = below - 2 * here + above
    return rates[at] * STEP ** (0.5 * (below - above) / bend) if bend > 0 else rates[at]


def carry(
    narrow: tuple[Size, dict[float, float]],
    wide: tuple[Size, dict[float, float]],
    *,
    init: str | dict[str, str] | None,
    mup: str,
) -> Carried:
    """Say how rates go from one width to another.

    Args:
        narrow, wide: two sizes, with the loss of each rate.
        init: initial weights of the runs.
        mup: why muP cannot be had; empty where the runs are by it.
    """
    (small, small_losses), (large, large_losses) = narrow, wide
    here, there = best_of(small_losses), best_of(large_losses)
    moved = math.log(there / here) / math.log(STEP)
    both = sorted(set(small_losses) & set(large_losses))
    alike = [rate for rate in both if _as_good(rate, small_losses) and _as_good(rate, large_losses)]
    agree = abs(moved) <= 1 or bool(alike)
    grids = f"{_shown(small_losses)} at width {small.width}; {_shown(large_losses)} at width {large.width}"
    found = f"the best of them lie {abs(moved):.1f} factors of two apart"
    how: Literal["mup", "rule"]
    if agree and not mup:
        rate = min(both, key=lambda each: _over(each, small_losses) + _over(each, large_losses)) if both else here
        how, power = "mup", 0.0
        says = f"one rate for every width, by muP: {found}, within the grid. {grids}"
    else:
        rate, how = rounded(here), "rule"
        power = 0.0 if agree else math.log(there / here) / math.log(large.width / small.width)
        why = mup or "muP did not carry the rate between these two widths"
        by = "the same rate at every width" if not power else f"rates go by the width to the power {power:.2f}"
        says = f"{by}, as measured at two widths: {why}; {found}. {grids}"
    return Carried(how=how, rate=rate, width=small.width, power=power, init=init, says=says)


def _over(rate: float, losses: dict[float, float]) -> float:
    least = min(losses.values())
    return losses[rate] / least - 1


def _as_good(rate: float, losses: dict[float, float]) -> bool:
    return _over(rate, losses) <= ALIKE


def _shown(losses: dict[float, float]) -> str:
    return ", ".join(f"{rate:.2g}: {loss:.4g}" for rate, loss in losses.items())
