"""Seconds a step waits for optimizer states that lie in host memory: gradients down, the update there, weights up."""

from __future__ import annotations

from thrifty.spec import Cluster

# Of one device, in one direction: PCIe 4 x16 moves 25 of its 31.5 GB/s in copies from pinned memory.
LINK_BYTES_PER_SECOND = 25e9
# Of one device's share of its host's memory: two sockets of 8 channels DDR4-3200 give 410 GB/s, eight devices share
# them. Assumed for every node; a newer host is up to twice as fast.
HOST_BYTES_PER_SECOND = 50e9
# Bytes of a parameter in host memory: fp32 weight and two states (Ren et al. 2021, section 3).
STATE_BYTES = 12.0
# of a parameter over the link: its 16-bit gradient down, its 16-bit weight up
TRAVEL_BYTES = 4.0


def offload_seconds(host_bytes: float, cluster: Cluster) -> float:
    """Predict what offloading adds to a step; nothing of it is hidden.

    Formula: parameters = host bytes / 12; each travels with 4 bytes, and its states are read and written once. Where
    host and device are one memory (a CPU) nothing travels, and offloading is pointless.

    Args:
        host_bytes: in host memory, for one device.
        cluster: its device's kind is read.
    """
    if cluster.device.kind == "cpu":
        return float("inf")
    parameters = host_bytes / STATE_BYTES
    return parameters * TRAVEL_BYTES / LINK_BYTES_PER_SECOND + 2 * host_bytes / HOST_BYTES_PER_SECOND
