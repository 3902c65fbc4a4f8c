"""Turn seconds on a device or a cluster into joules, carbon and dollars, each with the source of its watts or price.

Power is by use, not rated power times hours: a device draws

    idle + (busy - idle) x min(1, awake + arithmetic + 0.35 memory + 0.1 network)

where ``arithmetic`` and ``memory`` are the shares of the datasheet's peaks that a run reaches and ``network`` the share
of time its links are busy. ``docs/energy.md`` sets it beside measured energy of others.
"""

from __future__ import annotations

from typing import NamedTuple

from thrifty.spec import Cluster, Device, Interval

# Energy from declared power x time was 27 to 37 % off metered energy of whole nodes (arXiv 2506.14551)
_WATTS_DOUBT = 0.3
# of the rated range while training: every thread of a CPU works or spins; GPUs averaged 76 % (arXiv 2506.14551)
UTILISATION = {"cpu": 0.95, "cuda": 0.76, "rocm": 0.76, "tpu": 0.76}

# What moves a device from idle to busy. Declared from what boards show, not fitted to the runs it is checked with:
# clocks and schedulers that run at all take a quarter of the range; large matrix products hold a board at its limit
# from some three quarters of its peak; a plain copy at full bandwidth stands at about three fifths; links add little.
AWAKE, ARITHMETIC, MEMORY, NETWORK = 0.25, 1.0, 0.35, 0.1

_JOULES_PER_KWH = 3.6e6
# a grid's hours differ more from its year than years from each other
_GRID_DOUBT = 0.3


class Use(NamedTuple):
    """How hard a run works a device, each from 0 to 1.

    Attributes:
        arithmetic: FLOP/s done over the dense peak of the precision used.
        memory: bytes/s moved over the peak bandwidth.
        network: share of the time in which its links are busy.
    """

    arithmetic: float
    memory: float
    network: float = 0.0


def power_share(use: Use) -> float:
    """Return how far a device is from idle to busy watts.

    >>> power_share(Use(arithmetic=0.45, memory=0.4))
    0.84
    >>> power_share(Use(arithmetic=0.9, memory=0.5))
    1.0
    """
    arithmetic, memory, network = (min(max(share, 0.0), 1.0) for share in use)
    return min(1.0, AWAKE + ARITHMETIC * arithmetic + MEMORY * memory + NETWORK * network)


def device_watts(device: Device, use: Use) -> float:
    """Return the power of one device; a CPU's threads work or spin whatever they reach."""
    return device.watts(UTILISATION["cpu"] if device.kind == "cpu" else power_share(use))


def cluster_watts(cluster: Cluster, use: Use) -> float:
    """Return the power of all devices and hosts of a cluster, without what their building adds."""
    return cluster.devices * device_watts(cluster.device, use) + cluster.nodes * cluster.host_watts.value


def cluster_joules(seconds: Interval, cluster: Cluster, use: Use) -> Interval:
    """Predict the energy that the meter of the building would show for a run on all of a cluster.

    >>> from thrifty.hardware import find_cluster
    >>> hour = cluster_joules(Interval.around(3600, 0, "timed"), find_cluster("h100:8"), Use(0.4, 0.35))
    >>> 9 < hour.value / 3.6e6 < 13
    True
    """
    device, hosts = cluster.device, cluster.nodes * cluster.host_watts.value
    each = device_watts(device, use)
    watts = cluster_watts(cluster, use) * cluster.pue.value
    work = "working or spinning" if device.kind == "cpu" else f"{use.arithmetic:.0%} of peak arithmetic"
    moved = "" if device.kind == "cpu" else f", {use.memory:.0%} of bandwidth, network {use.network:.0%} of the time"
    return Interval(
        low=seconds.low * watts * (1 - _WATTS_DOUBT),
        value=seconds.value * watts,
        high=seconds.high * watts * (1 + _WATTS_DOUBT),
        method=f"time x {watts:,.0f} W: ({cluster.devices:,} devices of {each:.0f} W ({work}{moved}; "
        f"{device.idle_watts.value:.0f} W idle, {device.busy_watts.value:.0f} W busy) + {hosts:,.0f} W of hosts) x "
        f"PUE {cluster.pue.value:g} ({cluster.pue.source}); ±{_WATTS_DOUBT:.0%} because they are declared",
    )


def carbon_kg(joules: Interval, cluster: Cluster) -> Interval:
    """Predict kilograms of carbon dioxide equivalent: metered energy at the grid's yearly average.

    >>> from thrifty.hardware import find_cluster
    >>> round(carbon_kg(Interval.around(3.6e6, 0, "metered"), find_cluster("h100")).value, 2) > 0
    True
    """
    grid = cluster.grid_kg_per_kwh
    by_joule = grid.value / _JOULES_PER_KWH
    return Interval(
        low=joules.low * by_joule * (1 - _GRID_DOUBT),
        value=joules.value * by_joule,
        high=joules.high * by_joule * (1 + _GRID_DOUBT),
        method=f"energy x {grid.value:g} kg/kWh ({grid.source}), ±{_GRID_DOUBT:.0%}: hours differ from the year",
    )


def cluster_usd(seconds: Interval, cluster: Cluster, *, spot: bool = False) -> Interval:
    """Predict money for all devices of a cluster, billed by the second.

    Args:
        seconds: that the cluster is held.
        cluster: with its prices.
        spot: at the price of capacity that can be taken away; what is lost then is not counted.

    >>> from thrifty.hardware import find_cluster
    >>> cluster = find_cluster("h100:8")
    >>> bill = cluster_usd(Interval.around(3600, 0, "timed"), cluster)
    >>> bill.value == 8 * cluster.usd_per_hour.value
    True
    """
    price = cluster.spot_usd_per_hour if spot else cluster.usd_per_hour
    per_second = price.value * cluster.devices / 3600
    return Interval(
        low=seconds.low * per_second,
        value=seconds.value * per_second,
        high=seconds.high * per_second,
        method=f"time x {cluster.devices:,} devices x ${price.value:.4g} an hour ({price.source})",
    )


def joules(seconds: Interval, device: Device, utilisation: float) -> Interval:
    """Predict energy: seconds at the power of a utilisation from 0 to 1, on the line from idle to busy watts.

    >>> from thrifty.spec import Quantity
    >>> device = Device.model_construct(
    ...     idle_watts=Quantity(value=10, source="declared"), busy_watts=Quantity(value=50, source="declared")
    ... )
    >>> joules(Interval.around(60, 0, "timed"), device, 0.5).value
    1800.0
    """
    watts = device.watts(utilisation)
    return Interval(
        low=seconds.low * watts * (1 - _WATTS_DOUBT),
        value=seconds.value * watts,
        high=seconds.high * watts * (1 + _WATTS_DOUBT),
        method=f"time x {watts:.3g} W: {utilisation:.0%} of the way from {device.idle_watts.value:.3g} W idle to "
        f"{device.busy_watts.value:.3g} W busy, ±{_WATTS_DOUBT:.0%} because they are declared",
    )


def usd(seconds: Interval, device: Device) -> Interval:
    """Predict money: seconds at the device's price by the hour, billed by the second.

    >>> from thrifty.spec import Quantity
    >>> device = Device.model_construct(usd_per_hour=Quantity(value=3.6, source="list price"))
    >>> usd(Interval.around(10, 0.1, "timed"), device).high
    0.011
    """
    per_second = device.usd_per_hour.value / 3600
    return Interval(
        low=seconds.low * per_second,
        value=seconds.value * per_second,
        high=seconds.high * per_second,
        method=f"time x ${device.usd_per_hour.value:.4g} an hour ({device.usd_per_hour.source})",
    )
