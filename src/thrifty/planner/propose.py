"""Plan a job on a cluster: search its layouts, and say what to take, why, what limits it, and what would be cheaper."""

from __future__ import annotations

import time
from collections.abc import Collection

from thrifty.errors import JobError
from thrifty.hardware.cluster import find_cluster
from thrifty.planner.cluster import work_of
from thrifty.planner.explain import decisions, quote_of, words
from thrifty.planner.ground import PAYS, Ground, Work
from thrifty.planner.learning import Learning, decide
from thrifty.planner.moves import check_allowed, off_unless_asked
from thrifty.planner.offers import FORMATS, NAMES, front_offers, limits_beside, offer
from thrifty.planner.rules import Reasons
from thrifty.planner.search import Found, Relaxation, Way, over, relax, search
from thrifty.planner.whatif import doublings
from thrifty.spec import Cluster, Dataset, Job
from thrifty.spec.proposal import Offer, Proposal
from thrifty.spec.units import format_bytes

OBJECTIVES = ("usd", "seconds", "peak_bytes")
# What most people run, the first that can: plain copies in mixed precision, else fully sharded ones as PyTorch and
# Hugging Face set them up, else what Megatron's papers use (Narayanan et al. 2021, section 3): tensor within the node,
# pipeline beyond it.
USUAL = (
    {"precision": "bf16", "zero": 0, "tensor": 1, "pipeline": 1, "context": 1, "checkpointing": "none"},
    {"precision": "fp16", "zero": 0, "tensor": 1, "pipeline": 1, "context": 1, "checkpointing": "none"},
    {"precision": "bf16", "zero": 3, "tensor": 1, "pipeline": 1, "context": 1, "checkpointing": "full"},
    {"precision": "fp16", "zero": 3, "tensor": 1, "pipeline": 1, "context": 1, "checkpointing": "full"},
    {"precision": "bf16", "zero": 0, "virtual_stages": 1, "context": 1, "micro_batch": 1, "checkpointing": "full"},
    {"precision": "fp16", "zero": 0, "virtual_stages": 1, "context": 1, "micro_batch": 1, "checkpointing": "full"},
)
USUAL_ELSEWHERE = {"offload": False, "state_bytes": 4, "memory_format": "contiguous"}
# moves that are off are told of when they save this much
WORTH_TELLING = 0.02


def cluster_plan(
    job: Job, dataset: Dataset, cluster: Cluster, *, allowed: Collection[str] = (), top: int = 4, what_if: bool = True
) -> Proposal:
    """Plan a job on a cluster.

    Args:
        job: what is wanted.
        dataset: prepared, or declared.
        cluster: where.
        allowed: names of marked moves that may be taken.
        top: rows of the table, beside the usual way.
        what_if: price the job on devices with twice of each number, too.

    Raises:
        JobError: names that are in no table, degrees that do not divide.
    """
    began = time.perf_counter()
    check_allowed(allowed)
    why = Reasons([])
    learning = decide(job, dataset, why)
    work = work_of(job, learning, dataset, allowed)
    place = work.ground(cluster, allowed)
    found = place.search(*OBJECTIVES)
    chosen = found.choice
    usual = _usual(place)
    pins = [name for name in place.space.dimensions if getattr(job.plan, name, None) is not None]
    offers = front_offers(found, top)
    if usual is not None:
        offers.append(_usual_offer(usual, place))
    quote = quote_of(chosen) if chosen else None
    memory = (place.limits["peak_bytes"], f"{format_bytes(cluster.device.memory_bytes)} of a {cluster.device.name}")
    reasons = (
        decisions(chosen, place.space, place.price, limits=place.limits, bounds=place.bounds, fixed=pins)
        if chosen
        else []
    )
    return Proposal(
        job=job.name,
        model=learning.model.name,
        where=f"{cluster.name}: {cluster.devices:,} x {cluster.device.name}",
        parameters=learning.parameters,
        steps=learning.stop.steps,
        batch=learning.size,
        length=dataset.length,
        offers=tuple(offers),
        front=tuple(offer(way, "front") for way in found.front),
        why=(*reasons, *why.lines),
        time_goes=dict(quote.time_goes) if quote else {},
        memory_holds=dict(quote.memory_holds) if quote else {},
        limits=limits_beside(quote.cost, job.budget, memory) if quote else (),
        would_fit=() if chosen else _would_fit(work, learning, place, allowed),
        cheaper_still=(
            *(_fewer(work, place, allowed, chosen) if what_if else ()),
            *_cheaper(job, work, place, allowed, chosen),
        )
        if chosen
        else (),
        limited_by=doublings(work, place, allowed, chosen) if chosen and what_if else (),
        notes=tuple(note for note in (quote.note, *place.notes(chosen)) if note) if quote and chosen else (),
        candidates=found.candidates,
        priced=found.priced,
        planning_seconds=time.perf_counter() - began,
    )


def _usual(place: Ground) -> Way | None:
    """The first of the usual recipes that the cluster can lay out; with the most samples at once that fit."""
    for recipe in USUAL:
        dimensions = place.space.dimensions
        wanted = {name: value for name, value in {**USUAL_ELSEWHERE, **recipe}.items() if name in dimensions}
        ways = [Way(each, place.price(each)) for each in place.restricted(wanted).candidates()]
        if not ways:
            continue
        fitting = [way for way in ways if not over(way.price, {"peak_bytes": place.limits["peak_bytes"]})]
        if fitting:
            # the fewest stages and devices to a copy, then the largest micro-batch: what recipes say
            return min(
                fitting,
                key=lambda way: (way.settings["pipeline"], -way.settings["tensor"], -way.settings["micro_batch"]),
            )
    return None


def _usual_offer(usual: Way, place: Ground) -> Offer:
    return offer(usual, "usual", remark="as most people run it", fits=not over(usual.price, place.limits))


def _would_fit(work: Work, learning: Learning, place: Ground, allowed: Collection[str]) -> tuple[str, ...]:
    """What would let some way in: one limit at a time, one marked move at a time, twice and more of the devices."""
    lines = []
    for move in off_unless_asked(place.cluster.device, allowed):
        found = work.ground(place.cluster, (*allowed, move.name)).search("seconds")
        if found.choice:
            lines.append(
                f"--allow {move.name} ({move.does}; may change what is learned): {words(found.choice.settings)}"
            )
    for nodes in (2 * place.cluster.nodes, 4 * place.cluster.nodes, 8 * place.cluster.nodes):
        grown = _search_on(work, place.cluster.model_copy(update={"nodes": nodes}), allowed)
        if grown and grown.choice:
            devices = nodes * place.cluster.per_node
            lines.append(f"{devices:,} devices instead of {place.cluster.devices:,}: {words(grown.choice.settings)}")
            break
    steps = relax(place.space, place.price, limits=place.limits, bounds=place.bounds)
    return (*map(_relaxed, steps), *_fewer_steps(learning, place), *lines)


def _fewer_steps(learning: Learning, place: Ground) -> list[str]:
    """How much of the training the budget holds, where memory is not what stands against it."""
    memory = {"peak_bytes": place.limits["peak_bytes"]}
    found = search(place.space, place.price, limits=memory, bounds=place.bounds, objectives=("seconds",))
    if found.choice is None:
        return []
    price = found.choice.price
    share = min(most / getattr(price, name) for name, most in place.limits.items() if name != "peak_bytes")
    steps = int(learning.stop.steps * share)
    return [f"{steps:,} of the {learning.stop.steps:,} steps: {words(found.choice.settings)}"] if steps else []


def _search_on(work: Work, cluster: Cluster | str, allowed: Collection[str]) -> Found | None:
    try:
        there = find_cluster(cluster) if isinstance(cluster, str) else cluster
        return work.ground(there, allowed).search("seconds")
    except JobError:
        return None  # no such number in nodes, or a batch that so many devices cannot share


def _relaxed(step: Relaxation) -> str:
    show = FORMATS[step.quantity]
    what = "memory a device" if step.quantity == "peak_bytes" else NAMES[step.quantity]
    return f"{what} of {show(step.needed)} instead of {show(step.limit)}: {words(step.way.settings)}"


def _fewer(work: Work, place: Ground, allowed: Collection[str], chosen: Way) -> tuple[str, ...]:
    """The number of devices from which on more do not pay, where the cluster has more than those."""
    kept: Way | None = None
    name, last, devices = place.cluster.name, chosen, place.cluster.devices
    while devices % 2 == 0:
        devices //= 2
        smaller = f"{place.cluster.name.rpartition(':')[0]}:{devices}"
        found = _search_on(work, smaller, allowed)
        if found is None or found.choice is None or found.choice.price.seconds >= PAYS * last.price.seconds:
            break
        name, kept = smaller, found.choice
        last = kept
    if kept is None:
        return ()
    longer = kept.price.seconds / chosen.price.seconds
    saved = 1 - kept.price.usd / chosen.price.usd if chosen.price.usd else 0.0
    money = f" for {100 * saved:.0f} % less money" if saved > 0 else ""
    return (f"{name} would take {longer:.2f} times as long{money}: from there on twice the devices give under {PAYS}x",)


def _cheaper(job: Job, work: Work, place: Ground, allowed: Collection[str], chosen: Way) -> list[str]:
    """What each marked move that is off would save."""
    lines = []
    for move in off_unless_asked(place.cluster.device, allowed):
        if getattr(job.plan, move.field, None) is not None:
            continue
        other = work.ground(place.cluster, (*allowed, move.name))
        only = other.restricted({move.field: move.value})
        found = search(only, other.price, limits=other.limits, bounds=other.bounds, objectives=("seconds",))
        saved = 1 - found.choice.price.seconds / chosen.price.seconds if found.choice else 0.0
        if saved >= WORTH_TELLING:
            lines.append(f"{move.name} would save {saved:.0%} (may change what is learned: --allow {move.name})")
    return lines
