"""A job on several devices of this machine: what each may take, whether the loop can, and what the plan then says.

One rank is planned as a run of its own on its share of the machine, with its share of each step's samples; what ranks
tell each other comes on top (`thrifty.planner.between`).
"""

from __future__ import annotations

from torch import nn

from thrifty import hardware, models
from thrifty.cost import Trace
from thrifty.cost.replica_memory import StepMemory, Units
from thrifty.errors import JobError
from thrifty.hardware.runtime import runtime_bytes
from thrifty.models.recompute import repeated_blocks
from thrifty.models.traits import Traits
from thrifty.planner.between import Compared
from thrifty.planner.learning import Learning
from thrifty.planner.rules import Reasons
from thrifty.spec import AdaptPlan, Device, DeviceKind, Interval, Job, Layout, Plan, Quantity
from thrifty.spec.device import KernelPoint
from thrifty.spec.units import format_bytes

# They step over whole matrices, or keep states of other shapes than the weights': parts of them are not enough.
WHOLE = ("muon", "soap", "adafactor", "adamw_8bit")
# An operator over fewer bytes runs on one thread: torch cuts work into no less than 32,768 numbers (at::GRAIN_SIZE).
ONE_THREAD_BYTES = 4 * 32_768


def ranks_of(job: Job) -> int:
    """Devices that a job asks to run on."""
    return job.plan.data or 1


def check_devices(job: Job, device: Device) -> None:
    """Refuse a number of devices, or a way of sharing out, that this machine or the loop has not.

    Raises:
        JobError: with what would do.
    """
    ranks, zero = ranks_of(job), job.plan.zero or 0
    if zero not in (0, 3):
        raise JobError(
            f"plan.zero is {zero}, which this machine's loop does not run",
            mend="It runs 0, a copy of the model on each device, and 3, all shared out.",
        )
    if zero and ranks == 1:
        raise JobError(
            f"plan.zero is {zero}, and one device has nobody to share with",
            mend="Leave it out, or say over how many: --devices 2.",
        )
    most, what = _devices_here(device)
    if ranks > most:
        near = f"Give {most} or fewer" if most > 1 else "Leave it out"
        raise JobError(
            f"the run is to take {ranks} devices, and this machine has {what}",
            mend=f"{near}, or plan on others: thrifty plan JOB --on h100:{ranks}.",
        )


def check_learning(job: Job, learning: Learning) -> None:
    """Refuse what cannot be learned on several devices.

    Raises:
        JobError: with what would do.
    """
    ranks, zero = ranks_of(job), job.plan.zero or 0
    if ranks > learning.size:
        raise JobError(
            f"a step of {learning.size:,} samples cannot be shared by {ranks} devices",
            mend=f"Give train.batch {ranks} or more, or {learning.size} devices.",
        )
    if zero and learning.optim.optimizer in WHOLE:
        raise JobError(
            f"plan.zero is {zero}, and {learning.optim.optimizer} steps over whole matrices",
            mend="Leave plan.zero out (a copy of the model on each device), or train by another one, such as adamw.",
        )
    if zero and learning.adapt != AdaptPlan():
        raise JobError(
            f"plan.zero is {zero}, and a part of this model stays as it is (train.freeze, train.adapter)",
            mend="Leave plan.zero out: gradients of what is trained alone are summed.",
        )


def share_of(device: Device, ranks: int) -> Device:
    """Return what one of so many ranks has of this machine; power and price are those of all of them.

    Ranks on a processor share its cores, its memory and its bandwidth; each has a GPU of its own.

    >>> from thrifty.hardware import find_device
    >>> h100 = find_device("h100")
    >>> share_of(h100, 2).busy_watts.value == 2 * h100.busy_watts.value
    True
    """
    if ranks == 1:
        return device
    if device.kind == "cuda":
        return device.model_copy(
            update={
                "host_cores": max(1, device.host_cores // ranks),
                **{name: _times(getattr(device, name), ranks) for name in ("idle_watts", "busy_watts", "usd_per_hour")},
            }
        )
    return device.model_copy(
        update={
            "cores": max(1, device.cores // ranks),
            "memory_bytes": device.memory_bytes // ranks,
            "flops_per_second": {name: _times(rate, 1 / ranks) for name, rate in device.flops_per_second.items()},
            "bytes_per_second": _times(device.bytes_per_second, 1 / ranks),
            "kernels": tuple(_on_fewer_cores(each, ranks) for each in device.kernels),
        }
    )


def all_of(device: Device, ranks: int) -> Device:
    """Return so many accelerators as one, to be metered: all their power, price and speed; a processor as it is."""
    if ranks == 1 or device.kind == "cpu":
        return device
    rates = {name: _times(rate, ranks) for name, rate in device.flops_per_second.items()}
    return share_of(device, ranks).model_copy(update={"flops_per_second": rates})


def freed_bytes(learning: Learning, trace: Trace, kind: DeviceKind, ranks: int, zero: int) -> float:
    """Bytes that a rank needs less than one device alone, by `thrifty.cost.replica_memory`; below 0 for more.

    Args:
        learning: what is learned.
        trace: of a micro-batch.
        kind: of the devices.
        ranks, zero: how many there are, and what they share out.
    """
    if ranks == 1:
        return 0.0
    model = models.build(learning.model, "meta")
    whole, *blocks = (_weight_bytes(each) for each in (model, *repeated_blocks(model)))
    units = Units(max(blocks), whole - sum(blocks)) if blocks else Units(whole)
    memory = StepMemory(trace, kind, units)
    spread = Layout.model_validate({"data": ranks, "zero": zero})
    return memory.held(Layout()).total.value - memory.held(spread).total.value


def on_ranks(
    plan: Plan, learning: Learning, trace: Trace, freed: float, device: Device, step: Compared, why: Reasons
) -> Plan:
    """Make the plan of one rank that of the run: its cost is all ranks', and it says what is not in it.

    Args:
        plan: of one rank, with its devices and what they share out.
        learning: what is learned.
        trace: of a micro-batch.
        freed: as `freed_bytes`.
        device: what a rank has of the machine.
        step: beside one of one device.
        why: gets the lines of ``devices`` and ``zero``.
    """
    ranks, cost = plan.devices, plan.cost
    rank = _moved(cost.peak_bytes, -freed, 1)
    peak, parent = rank, 0.0
    if device.kind == "cpu":
        parent = sum(runtime_bytes(device.cores).values()) + 4.0 * learning.parameters
        peak = _moved(rank, parent / ranks, ranks)
    travels = trace.gradient_bytes if not plan.zero else 2 * trace.parameter_bytes + trace.gradient_bytes
    often = "a step" if not plan.zero else "a micro-batch"
    say_devices(plan, rank.value, f"{format_bytes(travels)} {often}", learning.traits, device, step, why)
    method = f"{ranks} ranks of {format_bytes(rank.value)}; {cost.peak_bytes.method}"
    return plan.model_copy(
        update={
            "cost": cost.model_copy(
                update={
                    "peak_bytes": peak.model_copy(update={"method": method}),
                    "flops": _moved(cost.flops, 0.0, ranks),
                }
            )
        }
    )


def say_devices(
    plan: Plan, rank_bytes: float, travels: str, traits: Traits, device: Device, step: Compared, why: Reasons
) -> None:
    """Say over how many devices a step goes, what of it is predicted, and what is not."""
    ranks = plan.devices
    each = f"threads of each: {plan.threads}" if device.kind == "cpu" else "a GPU each"
    why.say(
        "devices",
        ranks,
        f"asked for; {each}, a share of every step's samples; predicted for each rank: {format_bytes(rank_bytes)}; "
        f"{step.says}; what travels is {travels}, {step.between.method}",
        "job",
        "not predicted: the seconds in which ranks start",
    )
    said = (
        "weights, gradients and optimizer states are shared out" if plan.zero else "each rank has a copy of the model"
    )
    together = f"{plan.batch.micro * ranks:,} samples that {ranks} ranks compute at once"
    norm = f"; batch norm takes its statistics over the {together}" if traits.batch_norm else ""
    why.say("zero", plan.zero, said + norm, "job" if plan.zero else "rule")


def _devices_here(device: Device) -> tuple[int, str]:
    if device.kind == "cpu":
        return device.cores, f"{device.cores} cores" if device.cores > 1 else "one core"
    gpus = sum(gpu.name == device.name for gpu in hardware.probe().gpus)
    return gpus, f"{gpus} GPUs of the kind {device.name}" if gpus > 1 else f"one GPU of the kind {device.name}"


def _on_fewer_cores(point: KernelPoint, ranks: int) -> KernelPoint:
    """What an operator takes on one of so many shares of the cores; what one thread does alone takes as long."""
    if not point.shapes or point.moved_bytes < ONE_THREAD_BYTES:
        return point
    return point.model_copy(update={"warm_s": point.warm_s * ranks, "cold_s": point.cold_s * ranks})


def _times(quantity: Quantity, factor: float) -> Quantity:
    return quantity.model_copy(update={"value": quantity.value * factor})


def _moved(interval: Interval, by: float, times: float) -> Interval:
    """An interval moved, and then stretched."""
    bounds = {name: max(0.0, getattr(interval, name) + by) * times for name in ("low", "value", "high")}
    first = max(0.0, interval.first + by) * times if interval.first else 0.0
    return interval.model_copy(update={**bounds, "first": first})


def _weight_bytes(module: nn.Module) -> float:
    return float(sum(each.numel() * each.element_size() for each in module.parameters()))
