"""Seconds a step waits for optimizer states that lie in host memory: gradients down, the update there, weights up."""

from __future__ import annotations

from thrifty.errors import JobError
from thrifty.spec import BF16_HELD, Cluster, Device, Interval, Job
from thrifty.spec.units import format_bytes

# Of one device, in one direction: PCIe 4 x16 moves 25 of its 31.5 GB/s in copies from pinned memory. An H200's link,
# PCIe 5, moved 53, and 16 cores of its host stepped at 92 GB/s: 51 ms for GPT-2 of 124 M, where these say 100.
LINK_BYTES_PER_SECOND = 25e9
# Of one device's share of its host's memory: two sockets of 8 channels DDR4-3200 give 410 GB/s, eight devices share
# them. Assumed for every node; a newer host is up to twice as fast.
HOST_BYTES_PER_SECOND = 50e9
# Bytes of a parameter in host memory: fp32 weight and two states (Ren et al. 2021, section 3).
STATE_BYTES = 12.0
# of a parameter over the link: its 16-bit gradient down, its 16-bit weight up
TRAVEL_BYTES = 4.0
# in our own loop both are of 32 bits
TRAVEL_BYTES_HERE = 8.0
# how many times longer or shorter it may take here, where neither link nor host was timed; assumed
_DOUBT = 3.0


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
    return _seconds(host_bytes / STATE_BYTES, TRAVEL_BYTES)


def offload_here(parameters: float) -> Interval:
    """Predict what it adds to a step of our own loop, of a GPU in this machine.

    Args:
        parameters: that are trained, in float32.
    """
    value, host_bytes = _seconds(parameters, TRAVEL_BYTES_HERE), STATE_BYTES * parameters
    method = (
        f"gradients and weights over a link of {format_bytes(LINK_BYTES_PER_SECOND)}/s, {format_bytes(host_bytes)} "
        f"read and written at {format_bytes(HOST_BYTES_PER_SECOND)}/s: neither was timed here"
    )
    return Interval(low=value / _DOUBT, value=value, high=value * _DOUBT, method=method)


def check_offload(job: Job, device: Device) -> None:
    """Refuse states in host memory where they cannot be had.

    Raises:
        JobError: with what would do.
    """
    if not job.plan.offload:
        return
    out = "leave plan.offload out"
    if device.kind == "cpu":
        raise JobError(
            "plan.offload is true, and the device is the processor: its memory is where states are already",
            mend=f"Take plan.device: cuda, or {out}.",
        )
    hindered = {
        f"plan.data is {job.plan.data}: ranks share states out instead": (job.plan.data or 1) > 1,
        f"plan.precision is {job.plan.precision}: weights held in bf16 are stepped where they lie":
            job.plan.precision in BF16_HELD,
        "so is plan.gradient_release: what was released is not there to be brought down":
            bool(job.plan.gradient_release),
    }  # fmt: skip
    for says in (says for says, there in hindered.items() if there):
        raise JobError(f"plan.offload is true, and {says}", mend=f"Leave one of them out; or {out}.")


def _seconds(parameters: float, travel_bytes: float) -> float:
    host_bytes = STATE_BYTES * parameters
    return parameters * travel_bytes / LINK_BYTES_PER_SECOND + 2 * host_bytes / HOST_BYTES_PER_SECOND
