"""Turn the seconds of a layout on a cluster into a `Cost`: energy and money with it, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping

from thrifty.spec import Cluster, Cost, Interval, Layout

# Energy from declared power x time was 27 to 37 % off metered energy of whole nodes (arXiv 2506.14551)
_WATTS_DOUBT = 0.3
# the least and the most a device draws, as a share of its way from idle to busy: waiting, and computing all the time
_FLOPS_DOUBT = 0.05
# terms of a step in which arithmetic keeps a device at full power; in the others it waits or moves data
_BUSY_TERMS = ("matmul", "attention", "other", "optimizer")
# a device that waits for messages spins its kernels: between idle and busy
_WAITING = 0.5


def cluster_cost(
    seconds: Interval, peak: Interval, flops: float, terms: Mapping[str, float], layout: Layout, cluster: Cluster
) -> Cost:
    """Return the cost of a training.

    Args:
        seconds: of all steps.
        peak: bytes of one device.
        flops: of all steps, the model's own.
        terms: seconds of a step by what they go to.
        layout: its devices may be fewer than the cluster's.
        cluster: its watts and prices.
    """
    whole = sum(terms.values())
    busy = sum(terms.get(name, 0.0) for name in _BUSY_TERMS) / whole
    utilisation = busy + _WAITING * (1 - busy)
    nodes = -(-layout.devices // cluster.per_node)
    machine = cluster.device.watts(utilisation) * layout.devices + cluster.host_watts.value * nodes
    watts = machine * cluster.pue.value
    hourly = cluster.usd_per_hour.value * layout.devices
    return Cost(
        seconds=seconds,
        peak_bytes=peak,
        joules=Interval(
            low=seconds.low * watts * (1 - _WATTS_DOUBT),
            value=seconds.value * watts,
            high=seconds.high * watts * (1 + _WATTS_DOUBT),
            method=f"time x {watts:,.0f} W: devices at {utilisation:.0%} of the way from idle to busy, "
            f"{nodes:,} hosts of {cluster.host_watts.value:,.0f} W, times a PUE of {cluster.pue.value:g}",
        ),
        usd=Interval(
            low=seconds.low * hourly / 3600,
            value=seconds.value * hourly / 3600,
            high=seconds.high * hourly / 3600,
            method=f"time x ${hourly:,.2f} an hour ({cluster.usd_per_hour.source})",
        ),
        flops=Interval(low=flops * (1 - _FLOPS_DOUBT), value=flops, high=flops, method="matrix products of the model"),
    )
