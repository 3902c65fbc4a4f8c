"""`Scaled`: what small runs of a family say of a budget: the curve of the loss, and which model on how much data."""

from __future__ import annotations

import math
from typing import Literal

from thrifty.errors import JobError
from thrifty.spec.cost import Interval, Spent
from thrifty.spec.job import parse_budget
from thrifty.spec.plain import Plain
from thrifty.spec.units import (
    FLOPS,
    JOULES,
    SECONDS,
    USD,
    format_flops,
    format_joules,
    format_seconds,
    format_usd,
    parse_flops,
)

Quantity = Literal["flops", "seconds", "joules", "usd"]
FORMATS = {"flops": format_flops, "seconds": format_seconds, "joules": format_joules, "usd": format_usd}
# Passes after the first that are worth as many fresh ones at most: Muennighoff et al. 2023 (arXiv 2305.16264, appendix
# A) fit 15.4 to text of the web; of other data it may be another number, so that it is drawn between half and twice it.
REPEATS = 15.4


class Purse(Plain):
    """One amount that may be spent: FLOPs, seconds, joules or US dollars."""

    quantity: Quantity
    amount: float

    @property
    def says(self) -> str:
        """The amount with its unit."""
        return FORMATS[self.quantity](self.amount)


def parse_purse(text: str) -> Purse:
    """Read one amount of FLOPs, time, energy or money, told apart by its unit.

    >>> parse_purse("1e18flop").amount, parse_purse("3EFLOP").says, parse_purse("10h").quantity
    (1e+18, '3.0 EFLOP', 'seconds')

    Raises:
        JobError: it is none of them.
    """
    try:
        return Purse(quantity="flops", amount=parse_flops(text))
    except ValueError:
        pass
    try:
        budget = parse_budget(text)
    except JobError:
        units = ", ".join((*FLOPS, *SECONDS, *JOULES, *USD))
        raise JobError(
            f"{text!r} is no amount of FLOPs, time, energy or money",
            mend=f"Write it like '1e18flop' or '10h'. Units: {units}.",
        ) from None
    amounts: dict[Quantity, float | None] = {"seconds": budget.time, "joules": budget.energy, "usd": budget.money}
    quantity, amount = next((name, value) for name, value in amounts.items() if value is not None)
    return Purse(quantity=quantity, amount=amount)


class Size(Plain):
    """One size of a family.

    Attributes:
        model: its name, such as ``gpt-nano@3x96x6``.
        layers, width: of it.
        parameters: those that are no table of vectors looked up; by them the curve goes (Kaplan et al. 2020).
        whole: all of them.
        flops: to learn from one sample once, forward and backward.
    """

    model: str
    layers: int
    width: int
    parameters: int
    whole: int
    flops: float


class SmallRun(Plain):
    """A small run, and the loss that it reached.

    Attributes:
        size: of its model.
        use: what it is for: the ``curve``, a comparison of each ``rate``, or of each ``batch``.
        steps, batch: optimizer steps, and samples of each.
        data: samples learned from, or tokens of texts to continue; those seen again are counted again.
        learning_rate: the highest.
        loss: on the validation split, at its end.
        spent: what it took, whenever it ran.
        fresh: it ran for this; what ran before is not run again.
        folder: of the run.
    """

    size: Size
    use: Literal["curve", "rate", "batch"]
    steps: int
    batch: int
    data: float
    learning_rate: float
    loss: float
    spent: Spent
    fresh: bool
    folder: str


def worth(data: float, unique: float, repeats: float = REPEATS) -> float:
    """Return how much fresh data is worth as much as data of which there are only so many different.

    Formula: ``U + U R (1 - exp(-r / R))`` for r passes after the first (Muennighoff et al. 2023, equation 5).

    >>> worth(100, 100), round(worth(400, 100), 1)
    (100, 372.6)
    """
    if data <= unique:
        return data
    again = data / unique - 1
    return unique * (1 + repeats * -math.expm1(-again / repeats))


class Law(Plain):
    """``L(N, D) = E + A / N^a + B / D^b`` (Hoffmann et al. 2022), D what the data are `worth`.

    Attributes:
        floor: E, that no model and no data get below.
        size_factor, size_power: A and a.
        data_factor, data_power: B and b.
        repeats: passes after the first that are worth as many fresh ones at most.
    """

    floor: float
    size_factor: float
    size_power: float
    data_factor: float
    data_power: float
    repeats: float = REPEATS

    def loss(self, parameters: float, data: float, unique: float = math.inf) -> float:
        """Return the loss of a model of so many parameters after so much data, of which so much is different."""
        fresh = worth(data, unique, self.repeats)
        return float(
            self.floor + self.size_factor / parameters**self.size_power + self.data_factor / fresh**self.data_power
        )


class Curve(Plain):
    """A law fitted to small runs, with laws that would explain other noise of the same size as well.

    Attributes:
        law: that fits best.
        draws: fitted to what the best law says plus noise as large as its residuals.
        noise: of a run's loss about the law, as a share of it.
        unique: samples or tokens that there are to learn from.
        points: runs it was fitted to.
        floor, size_power, data_power: of the laws, nine times in ten.
        bounds: what of the best law lies at the end of what is searched, so that the runs do not tell it.
    """

    law: Law
    draws: tuple[Law, ...]
    noise: float
    unique: float
    points: int
    floor: Interval
    size_power: Interval
    data_power: Interval
    bounds: tuple[str, ...] = ()

    def losses(self, parameters: float, data: float) -> tuple[float, ...]:
        """Return what each of the draws says, the least first."""
        return tuple(sorted(law.loss(parameters, data, self.unique) for law in self.draws))

    def loss(self, parameters: float, data: float) -> Interval:
        """Return the loss that a run would reach nine times in ten; the noise of one run is in it."""
        said = self.losses(parameters, data)
        value = self.law.loss(parameters, data, self.unique)
        half = math.hypot(math.log(quantile(said, 0.95) / quantile(said, 0.05)) / 2, 1.645 * self.noise)
        middle = math.log(quantile(said, 0.5))
        low, high = math.exp(middle - half), math.exp(middle + half)
        return spanned(low, value, high, f"a curve through {self.points} small runs, {len(self.draws)} draws")


def quantile(ordered: tuple[float, ...], share: float) -> float:
    """Return the value below which a share of ordered ones lies, between the two nearest.

    >>> quantile((1.0, 2.0, 4.0), 0.75)
    3.0
    """
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def spanned(low: float, value: float, high: float, method: str) -> Interval:
    """Make an interval that holds its value."""
    return Interval(low=min(low, value), value=value, high=max(value, high), method=method)


class Carried(Plain):
    """How a learning rate goes from small models to large ones.

    Attributes:
        how: ``mup``, by muP alone, which two widths agreed on; ``rule``, by a power of the width that was measured.
        rate: at the narrowest size.
        width: of that size.
        power: of the width, that the rate goes by beside it; 0 where one rate is the best for both.
        init: initial weights of all runs.
        says: what was compared, and what came of it.
    """

    how: Literal["mup", "rule"]
    rate: float
    width: int
    power: float
    init: str | dict[str, str] | None
    says: str

    def at(self, width: int) -> float:
        """Return the rate for a width, of three digits."""
        return float(f"{self.rate * (width / self.width) ** self.power:.3g}")


class Buy(Plain):
    """What a budget would buy with one size of model.

    Attributes:
        size: of the model.
        steps, batch: optimizer steps, and samples of each.
        data: samples or tokens learned from.
        epochs: passes over the data there is.
        learning_rate: the highest.
        loss: that it should reach.
        flops, seconds, joules, usd: that it takes; 0 where it was not priced.
        share: of the draws in which no other size is better.
        data_bound: the data there is ends it before the budget does.
    """

    size: Size
    steps: int
    batch: int
    data: float
    epochs: float
    learning_rate: float
    loss: Interval
    flops: float
    seconds: float = 0.0
    joules: float = 0.0
    usd: float = 0.0
    share: float = 0.0
    data_bound: bool = False


class Scaled(Plain):
    """The answer to `thrifty scale`.

    Attributes:
        job: its name.
        unit: of data: ``tokens`` or ``samples``.
        budget: what may be spent in all; ``left`` after the small runs.
        where: what the budget is spent on.
        runs: small runs, in the order they were made.
        carried: how learning rates go by width.
        curve: fitted to them.
        offers: what each size would reach, from small to large.
        best: place of the one to buy in ``offers``.
        parameters: that the best size has nine times in ten.
        determined: the small runs say which size; where not, ``parameters`` is all that is known.
        foreseen: what the small runs were priced at before they began; of those still to run.
        spent: by the small runs that ran for this.
        reused: by those that had run before.
        fit: by deciding, fitting and pricing.
        notes: what else a reader must know.
        best_job: a job file of the best size; run it next.
        page: the picture.
    """

    job: str
    unit: str
    budget: Purse
    left: Purse
    where: str
    runs: tuple[SmallRun, ...]
    carried: Carried
    curve: Curve
    offers: tuple[Buy, ...]
    best: int
    parameters: Interval
    determined: bool
    foreseen: Interval
    spent: Spent
    reused: Spent
    fit: Spent
    notes: tuple[str, ...]
    best_job: str = ""
    page: str = ""
