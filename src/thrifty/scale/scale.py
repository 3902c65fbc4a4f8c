"""The main path of `thrifty scale`: price small runs, make them, fit the curve, and say what the budget should buy."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from thrifty import hardware
from thrifty.data import prepare
from thrifty.errors import JobError
from thrifty.files import hold, write_atomic
from thrifty.hardware import find_cluster
from thrifty.hardware.pages import settled
from thrifty.ledger import Meter, add_spent
from thrifty.names import check_names
from thrifty.planner import Seen
from thrifty.planner.learning import Learning, decide
from thrifty.planner.remembered import remembering
from thrifty.planner.rules import Reasons
from thrifty.planner.widths import STEPS
from thrifty.report.scale_page import write_scaled
from thrifty.scale.buy import Bought, buy
from thrifty.scale.curve import Point, fit
from thrifty.scale.family import Family, shapes_of
from thrifty.scale.layout import SIZES, Amounts, Layout, lay_out
from thrifty.scale.notes import notes_of
from thrifty.scale.price import DOUBT, Prices, sample_on
from thrifty.scale.rates import ALIKE, carry, compare, rounded
from thrifty.scale.small import Runner, SmallRuns
from thrifty.spec import Dataset, Device, Interval, Job, Pins, Spent, raw_data
from thrifty.spec.events import Emit, StageDone, StageStarted
from thrifty.spec.folders import cache_folder
from thrifty.spec.plain import Plain
from thrifty.spec.scaling import Buy, Carried, Curve, Purse, Quantity, Scaled, Size, SmallRun
from thrifty.spec.units import format_count

# of a budget for the small runs where nothing else is said, and no longer than this here
FIT_SHARE, FIT_SECONDS = 0.25, 3600.0
SMALL = "small"


class _Begun(Plain):
    """What was decided before the first run, kept so that a search that was cut off goes on with the same runs."""

    key: str
    layout: Layout
    pins: Pins


def scale(
    job: Job,
    budget: Purse,
    *,
    key: str,
    run: Runner,
    runs: Path,
    emit: Emit,
    limit: Purse | None = None,
    on: str = "",
    history: Callable[[Device], Sequence[Seen]] = lambda device: (),
) -> Scaled:
    """Say which model size, how much data and which batch a budget should buy, from small runs of the job's family.

    Small runs are priced before they start, and found again where they were made before; the test split tells nothing
    here.

    Args:
        job: what the runs are like.
        budget: in all.
        key: content key of job, data and code.
        run: carries out a small run, or finds it done.
        runs: the answer lies in ``<runs>/<name>-scale``.
        emit: is told what happens.
        limit: what the small runs may take; a quarter of the budget and an hour, where nothing is said.
        on: a device or cluster of the catalogue that the budget is spent on; this machine when left out.
        history: earlier runs on a device, by which predictions are corrected.

    Raises:
        JobError: the family cannot be had at other sizes, or a name is in no table.
        DataError: there is too little data, or a small run ended at no number.
        BudgetError: the budget, or the limit, is smaller than the least that tells a curve.
    """
    shapes_of(job)
    check_names(job)
    cluster = find_cluster(on) if on else None
    folder = runs / f"{job.name}-scale"
    # sizes are few, and runs of each are planned again and again
    with hold(folder, "search"), remembering(), contextlib.ExitStack() as stack:
        device = hardware.here(kind=job.plan.device)
        stack.enter_context(settled())
        desk = _Desk(job, folder, emit, Meter(device))
        with desk.stage("prepare") as says:
            store = prepare(raw_data(job), seed=job.train.seed, cache=cache_folder(), emit=emit)
            dataset = store.dataset
            unit = dataset.length if dataset.kind == "language" else 1
            learning = decide(job, dataset, Reasons([]))
            family = Family(job, dataset)
            says.append(f"{format_count(dataset.counts['train'] * unit)} {_unit(dataset)} to learn from")
        prices = Prices(job, dataset, device, learning.size, list(history(device)))
        elsewhere = sample_on(job, dataset, cluster, learning.size) if cluster else None
        sample = elsewhere or (prices.sample if budget.quantity != "flops" else lambda size: {"flops": size.flops})
        if cluster and elsewhere and elsewhere(next(iter(family))) is None:
            raise JobError(
                f"no way was found to take steps of {learning.size:,} samples on {cluster.name}",
                mend=f"Set train.batch to a multiple of its {cluster.devices:,} devices, or name fewer.",
            )
        with desk.stage("price") as says:
            begun = _begin(desk, family, prices, budget, limit, elsewhere, unit, _key(key, budget, limit, on))
            layout = begun.layout
            says.append(_foreseen(layout).method)
        init, no_mup = _initial(job, dataset, layout.sizes[0])
        small = SmallRuns(job, run, emit, begun.pins, init, unit, _count(layout))
        carried = _rates(small, layout, learning, init, no_mup)
        for size in layout.sizes:
            for steps in layout.steps:
                small.make(size, steps, layout.batch, carried.at(size.width))
        batch, factor = _batch(small, layout, learning, carried) if job.train.batch is None else (layout.batch, 1.0)
        with desk.stage("fit") as says:
            points = [Point(each.size.parameters, each.data, each.loss) for each in small.of_curve()]
            curve = fit(points, dataset.counts["train"] * unit, seed=job.train.seed)
            taken = _taken(small.made, desk.spent, budget.quantity) if not cluster else 0.0
            left = budget.model_copy(update={"amount": budget.amount - taken})
            rates = carried.model_copy(update={"rate": carried.rate * factor})
            bought = _offered(family, layout, sample, left, curve, rates, batch=batch, unit=unit)
            says.append(f"{len(points)} runs; a run lies {curve.noise:.1%} about the curve".replace("%", " %"))
        scaled = Scaled(
            job=job.name,
            unit=_unit(dataset),
            budget=budget,
            left=left,
            where=f"{cluster.devices:,} x {cluster.device.name}" if cluster else f"this machine: {device.name}",
            runs=tuple(small.made),
            carried=carried,
            curve=curve,
            offers=bought.offers,
            best=bought.best,
            parameters=bought.parameters,
            determined=bought.determined,
            foreseen=_foreseen(layout),
            spent=add_spent(*(each.spent for each in small.made if each.fresh)),
            reused=add_spent(*(each.spent for each in small.made if not each.fresh)),
            fit=desk.spent,
            notes=(),
            best_job=str(folder / "best.yaml"),
            page=str(folder / "scale.html"),
        )
        scaled = scaled.model_copy(update={"notes": notes_of(scaled, layout.batch, on=bool(cluster))})
        _keep(folder, job, scaled, init)
    return scaled


def _offered(
    family: Family,
    layout: Layout,
    sample: Callable[[Size], Amounts | None],
    left: Purse,
    curve: Curve,
    rates: Carried,
    *,
    batch: int,
    unit: int,
) -> Bought:
    """What the rest of the budget buys of each size that is no smaller than the smallest run."""
    return buy(
        (each for each in family if each.parameters >= layout.sizes[0].parameters),
        sample,
        left,
        curve,
        rates,
        batch=batch,
        unit=unit,
        least_data=layout.steps[0] * layout.batch * unit,
        largest=layout.sizes[-1].parameters,
    )


@dataclass
class _Desk:
    """Meters what the search does beside its runs, and tells of it."""

    job: Job
    folder: Path
    emit: Emit
    meter: Meter
    spent: Spent = field(default_factory=Spent)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[list[str]]:
        """Meter a stage; what is put on the list is said when it ends."""
        says: list[str] = []
        self.emit(StageStarted(name))
        with self.meter.stage() as stage:
            yield says
        took = stage.spent()
        self.spent = add_spent(self.spent, took)
        self.emit(StageDone(name, "; ".join(says), took))


def _key(key: str, budget: Purse, limit: Purse | None, on: str) -> str:
    asked = "\n".join((key, budget.model_dump_json(), limit.model_dump_json() if limit else "", on))
    return hashlib.sha256(asked.encode()).hexdigest()[:20]


def _begin(
    desk: _Desk,
    family: Family,
    prices: Prices,
    budget: Purse,
    limit: Purse | None,
    elsewhere: Callable[[Size], Amounts | None] | None,
    unit: int,
    key: str,
) -> _Begun:
    """The small runs to make: as they were decided before the search was cut off, else decided now."""
    path = desk.folder / "layout.json"
    with contextlib.suppress(ValueError, OSError):
        begun = _Begun.model_validate_json(path.read_bytes())
        if begun.key == key:
            return begun
    layout = lay_out(
        family,
        prices.run,
        _limits(budget, limit, here=elsewhere is None),
        batch=prices.batch,
        samples=prices.dataset.counts["train"],
        unit=unit,
        aim=lambda size: _aim(size, budget, prices, elsewhere),
    )
    begun = _Begun(key=key, layout=layout, pins=prices.settled())
    write_atomic(path, begun.model_dump_json(indent=1), purpose="the small runs")
    return begun


def _limits(budget: Purse, limit: Purse | None, *, here: bool) -> dict[Quantity, float]:
    """What the small runs may take: as asked, else a quarter of a budget that is spent here, and an hour."""
    if limit is not None:
        return {limit.quantity: limit.amount}
    limits: dict[Quantity, float] = {"seconds": FIT_SECONDS}
    if here or budget.quantity == "flops":
        limits[budget.quantity] = min(FIT_SHARE * budget.amount, limits.get(budget.quantity, math.inf))
    return limits


def _aim(size: Size, budget: Purse, prices: Prices, elsewhere: Callable[[Size], Amounts | None] | None) -> float:
    """FLOPs that the budget buys by what a size reaches."""
    if budget.quantity == "flops":
        return budget.amount
    amounts = elsewhere(size) if elsewhere else None
    amounts = amounts or prices.run(size, 1_000)
    return budget.amount / max(amounts[budget.quantity], 1e-30) * amounts["flops"]


def _count(layout: Layout) -> int:
    # what `lay_out` priced: rates are compared at three values each at least
    return len(layout.sizes) * len(layout.steps) + 2 * 2 + 2


def _foreseen(layout: Layout) -> Interval:
    seconds = layout.foreseen["seconds"]
    sizes = f"{format_count(layout.sizes[0].parameters)} to {format_count(layout.sizes[-1].parameters)} parameters"
    method = (
        f"{_count(layout)} small runs and more where rates want it: {SIZES} sizes of {sizes}, {layout.steps[0]:,} to "
        f"{layout.steps[-1]:,} steps of {layout.batch:,}; by this machine's rates"
    )
    return Interval.around(seconds, DOUBT, method)


def _initial(job: Job, dataset: Dataset, size: Size) -> tuple[str | dict[str, str] | None, str]:
    """Initial weights of the small runs, and why they are not muP's; an empty string where they are."""
    asked = job.train.init
    if asked not in (None, "mup"):
        return asked, f"train.init is {asked}, with which rates do not go by width"
    train = job.train.model_copy(update={"init": "mup"})
    try:
        decide(job.model_copy(update={"model": size.model, "train": train}), dataset, Reasons([]))
    except JobError as error:
        if asked == "mup":
            raise
        return None, error.what
    return "mup", ""


def _rates(
    small: SmallRuns, layout: Layout, learning: Learning, init: str | dict[str, str] | None, no_mup: str
) -> Carried:
    """Compare rates at the smallest and the largest size, over the shortest runs."""
    steps, batch = layout.steps[0], layout.batch

    def losses_of(size: Size, first: float) -> dict[float, float]:
        return compare(first, lambda rate: small.make(size, steps, batch, rate, "rate").loss)

    narrow, wide = layout.sizes[0], layout.sizes[-1]
    here = losses_of(narrow, rounded(learning.optim.learning_rate))
    there = losses_of(wide, min(here, key=here.__getitem__))
    return carry((narrow, here), (wide, there), init=init, mup=no_mup)


def _batch(small: SmallRuns, layout: Layout, learning: Learning, carried: Carried) -> tuple[int, float]:
    """Compare half and twice the batch at the smallest size, over its longest run: the best, and its rate's factor.

    Rates go by the root of the batch where steps have one size (Malladi et al. 2022, arXiv 2205.10287), else by itself.
    """
    size, steps, batch = layout.sizes[0], layout.steps[-1], layout.batch
    power = 1.0 if STEPS.get(learning.optim.optimizer) == "sgd" else 0.5
    rate = carried.at(size.width)
    best, least = (batch, 1.0), small.make(size, steps, batch, rate).loss * (1 - ALIKE)
    for other, as_many in ((batch // 2, 2 * steps), (2 * batch, steps // 2)):
        factor = (other / batch) ** power
        if other and (other > batch or 2 * other == batch):
            loss = small.make(size, as_many, other, rounded(rate * factor), "batch").loss
            if loss < least:
                best, least = (other, factor), loss
    return best


def _taken(made: Sequence[SmallRun], beside: Spent, quantity: Quantity) -> float:
    """What of the budget is spent by now: the small runs, whenever they ran, and what was done beside them."""
    if quantity == "flops":
        return sum(each.size.flops * each.steps * each.batch for each in made)
    spent = add_spent(beside, *(each.spent for each in made))
    return {"seconds": spent.wall_s, "joules": spent.joules, "usd": spent.usd}[quantity]


def _unit(dataset: Dataset) -> str:
    return "tokens" if dataset.kind == "language" else "samples"


def _keep(folder: Path, job: Job, scaled: Scaled, init: str | dict[str, str] | None) -> None:
    """Write the answer, the job of the best size and the page."""
    best = next_job(job, scaled.offers[scaled.best], init)
    text = yaml.safe_dump(best.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True)
    write_atomic(folder / "best.yaml", text, purpose="the best job")
    write_atomic(folder / "scale.json", scaled.model_dump_json(indent=1), purpose="the answer")
    write_scaled(folder / "scale.html", scaled)


def next_job(job: Job, offer: Buy, init: str | dict[str, str] | None) -> Job:
    """The job of an offer: its size, steps, batch and rate; other than that as it was asked."""
    train = job.train.model_copy(
        update={
            "epochs": None,
            "steps": offer.steps,
            "batch": offer.batch,
            "learning_rate": offer.learning_rate,
            "init": init,
        }
    )
    return job.model_copy(update={"model": offer.size.model, "train": train})
