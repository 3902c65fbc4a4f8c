"""Seconds of collectives over the links of a cluster, by how far a group of devices reaches.

Units: ``bytes`` are those of the whole tensor that a collective gathers, sums or exchanges; ``_s`` seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from thrifty.cost.calibrations import Calibration
from thrifty.spec import Cluster
from thrifty.spec.device import Link


@dataclass(frozen=True)
class Links:
    """What the links of a cluster carry under one calibration.

    Attributes:
        per_node: devices a node.
        intra, inter: bytes a second that one device sends, within its node and to another.
        exchange: share of both that all-to-alls reach.
        messages: bytes a second of one device's messages to the next pipeline stage on another node.
        intra_latency_s, inter_latency_s: of one step of a collective.
    """

    per_node: int
    intra: float
    inter: float
    messages: float
    exchange: float
    intra_latency_s: float
    inter_latency_s: float


def links_of(cluster: Cluster, calibration: Calibration) -> Links:
    """Take what a cluster's links carry at the shares a calibration gives."""
    inter = cluster.inter.bytes_per_second.value
    return Links(
        per_node=cluster.per_node,
        intra=cluster.intra.bytes_per_second.value * calibration.intra,
        inter=inter * calibration.inter,
        messages=inter * calibration.pipeline,
        exchange=calibration.exchange,
        intra_latency_s=calibration.latency_s,
        inter_latency_s=calibration.latency_s + cluster.inter.latency_s.value,
    )


def links_between(link: Link, members: int) -> Links:
    """Take what was measured between so many devices of one node."""
    rate, latency_s = link.bytes_per_second.value, link.latency_s.value
    return Links(members, rate, rate, rate, 1.0, latency_s, latency_s)


@lru_cache(maxsize=16_384)
def group_bandwidth(links: Links, members: int, stride: int) -> float:
    """Return bytes a second at which a ring of ``members`` devices, every ``stride``-th one, passes data on.

    Within a node it is the inner link's. Across nodes the ring leaves each node once, and the devices of a node that
    belong to it (``per_node / stride`` of them) share their network for it: ``min(intra, inter x those)``.

    >>> links = Links(8, intra=300e9, inter=25e9, messages=25e9, exchange=1, intra_latency_s=0, inter_latency_s=0)
    >>> group_bandwidth(links, 64, 1) / 1e9, group_bandwidth(links, 16, 8) / 1e9
    (200.0, 25.0)
    """
    if members * stride <= links.per_node:
        return links.intra
    inside = max(1, min(members, links.per_node // stride))
    return min(links.intra, links.inter * inside)


def _latency(links: Links, members: int, stride: int) -> float:
    inside = max(1, min(members, links.per_node // stride))
    across = math.ceil(members / inside)
    return links.intra_latency_s * math.log2(max(2, inside)) + links.inter_latency_s * math.log2(max(1, across))


def gather_seconds(links: Links, moved: float, members: int, stride: int = 1) -> float:
    """All-gather or reduce-scatter of ``moved`` bytes in all: ``(n-1)/n x bytes / bandwidth``, and latency.

    The latency is that of a tree, ``log2(n)`` steps, as the library takes for messages that latency rules.
    """
    if members <= 1 or moved <= 0:
        return 0.0
    share = (members - 1) / members * moved
    return share / group_bandwidth(links, members, stride) + _latency(links, members, stride)


def reduce_seconds(links: Links, moved: float, members: int, stride: int = 1) -> float:
    """All-reduce: a reduce-scatter and an all-gather, ``2 (n-1)/n x bytes / bandwidth``."""
    if members <= 1 or moved <= 0:
        return 0.0
    share = 2 * (members - 1) / members * moved
    return share / group_bandwidth(links, members, stride) + _latency(links, members, stride)


def exchange_seconds(links: Links, moved: float, members: int, stride: int = 1) -> float:
    """All-to-all in which each device sends ``moved`` bytes, evenly to all members, itself included.

    What stays in the node goes over the inner link, the rest over the device's own share of the network; the two
    proceed at once.
    """
    if members <= 1 or moved <= 0:
        return 0.0
    inside = max(1, min(members, links.per_node // stride))
    near = moved * (inside - 1) / members / links.intra
    far = moved * (members - inside) / members / links.inter
    return max(near, far) / links.exchange + _latency(links, members, stride)


def message_seconds(links: Links, moved: float, stride: int) -> float:
    """One message of ``moved`` bytes to the device ``stride`` further, as between pipeline stages."""
    if moved <= 0:
        return 0.0
    if stride < links.per_node:
        return moved / links.intra + links.intra_latency_s
    return moved / links.messages + links.inter_latency_s
