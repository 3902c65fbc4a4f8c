"""Which size a budget should buy: what each would reach on as much data as it leaves, by every law that was drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from thrifty.errors import BudgetError
from thrifty.scale.layout import LEAST_STEPS, MOST_PASSES, Amounts
from thrifty.spec.cost import Interval
from thrifty.spec.scaling import Buy, Carried, Curve, Purse, Size, quantile, spanned

# of the size that is best: where nine draws in ten lie further apart, the small runs do not tell it
MOST_SPREAD = 16.0
# a size may be so many times the largest that ran
MOST_TIMES = 1000
# what of a curve at the end of its range leaves open what a larger model, or more data, would give
_TELLING = ("size factor", "size power", "data factor", "data power")


class Bought(NamedTuple):
    """What a budget buys: an offer for each size, the place of the best, the size it has, and whether that is known."""

    offers: tuple[Buy, ...]
    best: int
    parameters: Interval
    determined: bool


def buy(
    sizes: Iterable[Size],
    price: Callable[[Size], Amounts | None],
    left: Purse,
    curve: Curve,
    carried: Carried,
    *,
    batch: int,
    unit: int,
    least_data: float,
    largest: int,
) -> Bought:
    """Offer what is left of a budget to every size, from small to large, until it buys less than the small runs had.

    Data are no more than `MOST_PASSES` passes over what there is, and sizes no more than `MOST_TIMES` the largest that
    ran: of what more would give nothing was seen.

    Args:
        sizes: of the family, from the smallest of the small runs on.
        price: of learning from one sample; None where a size does not fit.
        left: of the budget.
        curve: fitted.
        carried: how rates go by width.
        batch: samples of a step.
        unit: what a sample counts for in an amount of data.
        least_data: of the small runs.
        largest: parameters that ran.

    Raises:
        BudgetError: what is left buys nothing at all.
    """
    offers: list[Buy] = []
    for size in sizes:
        if size.parameters > MOST_TIMES * largest:
            break
        amounts = price(size)
        if amounts is None:
            break
        affordable = left.amount / amounts[left.quantity]
        most = max(MOST_PASSES * curve.unique / unit, LEAST_STEPS * batch)
        steps = int(min(affordable, most) // batch)
        data = steps * batch * unit
        if data < least_data:
            break
        samples = steps * batch
        offers.append(
            Buy(
                size=size,
                steps=steps,
                batch=batch,
                data=data,
                epochs=data / curve.unique,
                learning_rate=carried.at(size.width),
                loss=curve.loss(size.parameters, data),
                flops=size.flops * samples,
                seconds=amounts.get("seconds", 0.0) * samples,
                joules=amounts.get("joules", 0.0) * samples,
                usd=amounts.get("usd", 0.0) * samples,
                data_bound=affordable > most,
            )
        )
    if not offers:
        raise BudgetError(
            f"{left.says} are left of the budget after the small runs, and the smallest model takes more than that for "
            f"as much data as those had",
            mend="Raise --budget, or lower --fit.",
        )
    return _choose(offers, curve)


def _choose(offers: list[Buy], curve: Curve) -> Bought:
    """The size whose loss is least in the mean of the draws' logarithms; and those that are best by one draw each."""
    said = [[math.log(law.loss(o.size.parameters, o.data, curve.unique)) for o in offers] for law in curve.draws]
    means = [sum(column) / len(said) for column in zip(*said, strict=True)]
    best = min(range(len(offers)), key=means.__getitem__)
    firsts = [min(range(len(offers)), key=row.__getitem__) for row in said]
    shares = [firsts.count(place) / len(firsts) for place in range(len(offers))]
    sizes = tuple(sorted(float(offers[place].size.parameters) for place in firsts))
    low, high = quantile(sizes, 0.05), quantile(sizes, 0.95)
    value = float(offers[best].size.parameters)
    parameters = spanned(low, value, high, f"the best of {len(offers)} sizes by {len(firsts)} draws")
    determined = parameters.high <= MOST_SPREAD * parameters.low and not set(curve.bounds) & set(_TELLING)
    offers = [offer.model_copy(update={"share": share}) for offer, share in zip(offers, shares, strict=True)]
    return Bought(tuple(offers), best, parameters, determined)
