"""Which machine for a job: its best plan on every device of a catalogue, in any number, time against money."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from thrifty.errors import JobError
from thrifty.hardware.cluster import find_cluster
from thrifty.planner.cluster import work_of
from thrifty.planner.ground import PAYS, Ground, Work
from thrifty.planner.learning import Learning, decide
from thrifty.planner.moves import check_allowed
from thrifty.planner.offers import offer
from thrifty.planner.rules import Reasons
from thrifty.planner.search import Found, Space, Way, search
from thrifty.spec import Cluster, Dataset, Job
from thrifty.spec.proposal import Machine, Proposal
from thrifty.spec.units import format_usd

MOST_DEVICES = 4096
# of a parameter at least: a 16-bit weight and its gradient; fewer devices than hold that are not tried
LEAST_PARAMETER_BYTES = 4


@dataclass(frozen=True)
class _Tried:
    """A machine with the best way on it; ``speedup`` over half as many, 0 for the first that holds the job."""

    cluster: Cluster
    way: Way
    speedup: float

    @property
    def pays(self) -> bool:
        return not self.speedup or self.speedup >= PAYS


def survey(
    job: Job, dataset: Dataset, nodes: Sequence[Cluster], *, allowed: Collection[str] = (), fewest: int = 1
) -> Proposal:
    """Plan a job on every machine of a list, in numbers from one device up to where more stop paying.

    Args:
        job: what is wanted.
        dataset: prepared, or declared.
        nodes: a usual node of each device.
        allowed: names of marked moves that may be taken.
        fewest: devices at least.

    Raises:
        JobError: names that are in no table.
    """
    began = time.perf_counter()
    check_allowed(allowed)
    why = Reasons([])
    learning = decide(job, dataset, why)
    work = work_of(job, learning, dataset, allowed)
    tried: list[_Tried] = []
    unknown: list[str] = []
    counts = [0, 0]
    for node in nodes:
        try:
            for each, found in _grow(work, learning, node, allowed, fewest):
                tried.append(each)
                counts = [counts[0] + found.candidates, counts[1] + found.priced]
        except JobError as error:
            unknown.append(f"{node.device.name}: {error.what}")
    rows = _rows(tried)
    return Proposal(
        job=job.name,
        model=learning.model.name,
        where=f"{len(nodes):,} devices of the catalogue, by ones and in clusters",
        parameters=learning.parameters,
        steps=learning.stop.steps,
        batch=learning.size,
        length=dataset.length,
        offers=(),
        front=tuple(row.offer for row in rows if row.on_front),
        why=tuple(why.lines),
        time_goes={},
        memory_holds={},
        limits=(),
        would_fit=() if rows else ("no machine of the catalogue keeps the budget; raise it, or take a smaller model",),
        cheaper_still=tuple(_advice(rows)),
        machines=rows,
        notes=(f"not surveyed: {len(unknown)} devices, such as {unknown[0]}",) if unknown else (),
        candidates=counts[0],
        priced=counts[1],
        planning_seconds=time.perf_counter() - began,
    )


def _grow(
    work: Work, learning: Learning, node: Cluster, allowed: Collection[str], fewest: int
) -> Iterator[tuple[_Tried, Found]]:
    """Try a device in growing numbers, from the first that holds the job to the first that no longer pays."""
    before: Way | None = None
    for cluster in _sizes(node):
        room = cluster.devices * cluster.device.memory_bytes
        if cluster.devices < fewest or room < LEAST_PARAMETER_BYTES * learning.parameters:
            continue
        try:
            place = work.ground(cluster, allowed)
        except JobError:
            if before is None and cluster.devices == 1:
                raise
            continue  # so many cannot share the batch
        found = _best(place)
        if found.choice is None:
            continue
        speedup = before.price.seconds / found.choice.price.seconds if before else 0.0
        each = _Tried(cluster, found.choice, speedup)
        yield each, found
        if not each.pays:
            return
        before = found.choice


def _best(place: Ground) -> Found:
    kept = {
        name: [value for value in values if name not in place.coarse or value in place.coarse[name]]
        for name, values in place.space.dimensions.items()
    }
    space = Space(
        {name: values or place.space.dimensions[name] for name, values in kept.items()}, place.space.constraints
    )
    return search(space, place.price, limits=place.limits, bounds=place.bounds, objectives=("seconds",))


def _sizes(node: Cluster) -> Iterator[Cluster]:
    """Parts of a node by powers of two, then nodes by powers of two."""
    key = node.name.rpartition(":")[0] or node.name
    part = 1
    while part < node.per_node:
        yield find_cluster(f"{key}:{part}")
        part *= 2
    yield node
    nodes = 2
    while nodes * node.per_node <= MOST_DEVICES:
        yield find_cluster(f"{key}:{node.per_node}x{nodes}")
        nodes *= 2


def _rows(tried: Sequence[_Tried]) -> tuple[Machine, ...]:
    """The machines worth a line: the front of time and money, and each device's cheapest number; the cheapest first."""
    front = [each for each in tried if not any(_beats(other, each) for other in tried)]
    cheapest: dict[str, _Tried] = {}
    for each in sorted(tried, key=_rank):
        cheapest.setdefault(each.cluster.device.name, each)
    shown = {id(each): each for each in (*front, *cheapest.values())}
    return tuple(
        Machine(
            name=each.cluster.name,
            device=each.cluster.device.name,
            devices=each.cluster.devices,
            offer=offer(each.way, "front"),
            speedup_of_doubling=each.speedup,
            pays=each.pays,
            on_front=each in front,
        )
        for each in sorted(shown.values(), key=_rank)
    )


def _rank(one: _Tried) -> tuple[float, float]:
    """Money, then time; a machine that nobody lists a price of comes last."""
    return one.way.price.usd or math.inf, one.way.price.seconds


def _beats(one: _Tried, other: _Tried) -> bool:
    a, b = _rank(one), _rank(other)
    return a[0] <= b[0] and a[1] <= b[1] and a != b


def _advice(rows: Sequence[Machine]) -> Iterator[str]:
    """Say what costs least, where more devices stop paying, and what waiting longer saves."""
    front = [row for row in rows if row.on_front]
    if not front:
        return
    cheap = front[0]
    yield f"rent {cheap.name} to pay least: {cheap.offer.says}; --on {cheap.name} tells more"
    past = [row.name for row in rows if not row.pays]
    if past:
        yield (
            f"more devices stop paying at {', '.join(past[:4])}: twice as many gave less than {PAYS}x, so each one "
            "added gives back less than half of its price"
        )
    priced = [row for row in front if row.offer.cost.usd.value]
    if cheap not in priced:
        return
    # the least of time x money: a little more of the one there saves most of the other
    between = min(priced, key=lambda row: row.offer.cost.usd.value * row.offer.cost.seconds.value)
    fast = min(priced, key=lambda row: row.offer.cost.seconds.value)
    if between not in (cheap, fast):
        yield f"in between, {_hurry(between, cheap)}"
    if fast is not cheap:
        yield f"to wait least, {_hurry(fast, cheap)}"


def _hurry(fast: Machine, cheap: Machine) -> str:
    dearer = fast.offer.cost.usd.value - cheap.offer.cost.usd.value
    hurry = cheap.offer.cost.seconds.value / fast.offer.cost.seconds.value
    return f"{fast.name} is {hurry:.1f}x as fast for {format_usd(dearer)} more"
