"""What twice one of a device's numbers would buy: the job planned anew on a device that has it."""

from __future__ import annotations

from collections.abc import Callable, Collection

from thrifty.planner.explain import words
from thrifty.planner.ground import Ground, Work
from thrifty.planner.search import Way
from thrifty.spec import Cluster, Device, Link, Quantity
from thrifty.spec.proposal import Doubling

# a plan of another shape is worth naming when it is this much of the gain
NAMED_ABOVE = 1.01


def doublings(work: Work, place: Ground, allowed: Collection[str], chosen: Way) -> tuple[Doubling, ...]:
    """Plan the job on devices with twice the arithmetic, memory bandwidth, memory and network; the greatest gain first.

    Prices and watts stay: it says what the number is worth, not what it would cost. The plan may change with it.
    """
    rows = []
    for number, change in CHANGES.items():
        if number == "network" and place.cluster.devices == 1:
            continue
        other = work.ground(change(place.cluster), allowed)
        best = other.search("seconds").choice
        # a search may pick what is slower and safer in memory; doubling a number can only help
        way = best if best and best.price.seconds < chosen.price.seconds else chosen
        again = other.price(way.settings)
        changed = way.settings != chosen.settings
        rows.append(
            Doubling(
                number=number,
                seconds=again.seconds,
                speedup=chosen.price.seconds / again.seconds,
                says=words(way.settings, than=chosen.settings) if changed else "",
            )
        )
    return tuple(sorted(rows, key=lambda row: -row.speedup))


def twice(quantity: Quantity) -> Quantity:
    """Return twice a number, and say so in its source."""
    return Quantity(value=2 * quantity.value, source=f"twice: {quantity.source}")


def _on_device(change: Callable[[Device], dict[str, object]]) -> Callable[[Cluster], Cluster]:
    def apply(cluster: Cluster) -> Cluster:
        device = cluster.device.model_copy(update=change(cluster.device))
        return cluster.model_copy(update={"device": device})

    return apply


def _link(link: Link) -> Link:
    return link.model_copy(update={"bytes_per_second": twice(link.bytes_per_second)})


CHANGES: dict[str, Callable[[Cluster], Cluster]] = {
    "arithmetic": _on_device(
        lambda device: {"flops_per_second": {name: twice(rate) for name, rate in device.flops_per_second.items()}}
    ),
    "memory bandwidth": _on_device(lambda device: {"bytes_per_second": twice(device.bytes_per_second)}),
    "memory": _on_device(lambda device: {"memory_bytes": 2 * device.memory_bytes}),
    "network": lambda cluster: cluster.model_copy(
        update={"intra": _link(cluster.intra), "inter": _link(cluster.inter)}
    ),
}
