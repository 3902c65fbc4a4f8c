"""Which small runs to make: four sizes by three amounts of data, as large as what they may take allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

from thrifty.errors import BudgetError, DataError
from thrifty.spec.plain import Plain
from thrifty.spec.scaling import FORMATS, Quantity, Size

SIZES, LENGTHS = 4, 3
# optimizer steps of the shortest run: in fewer the warm-up is most of it
LEAST_STEPS = 64
# Beside the runs of the curve: rates compared at the smallest and the largest size, and batches at the smallest. More
# are made where the best rate lies at the end of those compared.
RATE_RUNS_NARROW, RATE_RUNS_WIDE, BATCH_RUNS = 4, 2, 2
# passes over the data up to which what is seen again is worth nearly what fresh data are (Muennighoff et al. 2023)
MOST_PASSES = 4
# tokens a parameter, to begin with: where the small runs lie is a guess, what they say is not (Hoffmann et al. 2022)
FIRST_RATIO = 20.0

Amounts = Mapping[Quantity, float]
# what a run of a size takes in so many steps
RunPrice = Callable[[Size, int], Amounts]


class Layout(Plain):
    """The small runs of a curve: every size with every number of steps.

    Attributes:
        sizes: from small to large.
        steps: optimizer steps, from few to many.
        batch: samples of a step.
        foreseen: what they take, by quantity, comparisons of rates and batches included.
    """

    sizes: tuple[Size, ...]
    steps: tuple[int, ...]
    batch: int
    foreseen: dict[Quantity, float]


def lay_out(
    family: Iterable[Size],
    price: RunPrice,
    limits: Amounts,
    *,
    batch: int,
    samples: int,
    unit: int,
    aim: Callable[[Size], float],
) -> Layout:
    """Choose the small runs: those that lie best of all that fit.

    Of four sizes in a row each, the most steps that fit are found; the four are taken whose largest has the data a
    parameter that the budget itself is guessed to buy.

    Args:
        family: sizes from small to large.
        price: of a run.
        limits: what all of them may take.
        batch: samples of a step.
        samples: that there are to learn from.
        unit: what a sample counts for in an amount of data, such as its tokens.
        aim: FLOPs that the whole budget buys, by what a size reaches.

    Raises:
        DataError: there are too few samples for the shortest runs.
        BudgetError: the shortest runs of the smallest sizes take more; it says what they take.
    """
    most_steps = MOST_PASSES * samples // batch
    shortest = tuple(LEAST_STEPS << at for at in range(LENGTHS))
    if most_steps < shortest[-1]:
        raise DataError(
            f"{samples:,} samples are too few for a curve: in steps of {batch:,} and {MOST_PASSES} passes they give "
            f"{most_steps:,}, and the longest of the small runs has {shortest[-1]:,} at least",
            mend=f"Set train.batch to {max(1, MOST_PASSES * samples // shortest[-1]):,} or less, or give more data.",
        )
    found: list[tuple[float, Layout]] = []
    window: list[Size] = []
    least: Amounts = {}
    for size in family:
        window = [*window, size][-SIZES:]
        if len(window) < SIZES:
            continue
        steps, fitting = shortest, None
        while steps[-1] <= most_steps:
            try:
                amounts = total(window, steps, price)
            except BudgetError:
                if not found:
                    raise
                break  # it does not fit the memory
            least = least or amounts
            if not within(amounts, limits):
                break
            fitting = Layout(sizes=tuple(window), steps=steps, batch=batch, foreseen=dict(amounts))
            steps = tuple(2 * each for each in steps)
        if fitting is None:
            break
        ratio = fitting.steps[-1] * batch * unit / size.parameters
        wanted = _ratio(aim(size), MOST_PASSES * samples * unit)
        found.append((abs(math.log(ratio / wanted)), fitting))
        if ratio <= wanted:
            break  # of larger ones it is less
    if not found:
        raise _too_small(window, shortest, price, limits, least)
    return min(found, key=lambda pair: pair[0])[1]


def _ratio(flops: float, most_data: float) -> float:
    """Data a parameter that so many FLOPs would buy by the first guess: 6 N D of them, no more data than there is."""
    parameters = math.sqrt(flops / (6 * FIRST_RATIO))
    if FIRST_RATIO * parameters <= most_data:
        return FIRST_RATIO
    return most_data / (flops / (6 * most_data))


def total(sizes: Sequence[Size], steps: Sequence[int], price: RunPrice) -> dict[Quantity, float]:
    """Add up what all the small runs of a layout take."""
    runs = [(size, each) for size in sizes for each in steps]
    runs += [(sizes[0], steps[0])] * RATE_RUNS_NARROW + [(sizes[-1], steps[0])] * RATE_RUNS_WIDE
    runs += [(sizes[0], steps[-1])] * BATCH_RUNS
    amounts: dict[Quantity, float] = {}
    for size, each in runs:
        for quantity, amount in price(size, each).items():
            amounts[quantity] = amounts.get(quantity, 0.0) + amount
    return amounts


def within(amounts: Amounts, limits: Amounts) -> bool:
    """Whether amounts keep every limit that there is."""
    return all(amounts.get(quantity, 0.0) <= limit for quantity, limit in limits.items())


def _too_small(
    window: Sequence[Size], steps: Sequence[int], price: RunPrice, limits: Amounts, least: Amounts
) -> BudgetError:
    quantity, limit = max(limits.items(), key=lambda pair: least.get(pair[0], 0.0) / pair[1])
    show, one = FORMATS[quantity], price(window[0], steps[0]).get(quantity, 0.0)
    return BudgetError(
        f"{show(limit)} is too little for the small runs: one of the smallest ({window[0].model}, {steps[0]} steps) "
        f"takes about {show(one)}, and the {_count(window, steps)} that tell a curve {show(least.get(quantity, 0.0))}",
        mend="Raise --budget or --fit, or shorten data.length, or take a smaller model of the family.",
    )


def _count(window: Sequence[Size], steps: Sequence[int]) -> int:
    return len(list(islice(window, SIZES))) * len(steps) + RATE_RUNS_NARROW + RATE_RUNS_WIDE + BATCH_RUNS
