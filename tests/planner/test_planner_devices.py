"""Jobs on several devices of one machine: what is refused, in which words; what a rank gets, and what the plan says."""

from __future__ import annotations

from typing import Any

import pytest

from thrifty.cost import Trace
from thrifty.cost.allocations import Allocations
from thrifty.errors import JobError
from thrifty.hardware import find_device
from thrifty.hardware.messages import assumed
from thrifty.planner.between import AGREED, Between, Compared
from thrifty.planner.devices import check_devices, share_of
from thrifty.spec import Device, Interval, Job, with_devices
from thrifty.spec.device import KernelPoint


def job(**pins: Any) -> Job:
    values = {"name": "a", "data": {"kind": "image", "path": "x"}, "model": "resnet8", "plan": pins}
    return Job.model_validate(values)


@pytest.fixture(scope="module")
def two_cores() -> Device:
    return find_device("h100").model_copy(update={"kind": "cpu", "cores": 2, "host_cores": 0, "name": "a processor"})


@pytest.mark.parametrize(
    ("pins", "said"),
    [
        ({"data": 3}, "3 devices, and this machine has 2 cores. Give 2 or fewer, or plan on others"),
        ({"data": 2, "zero": 1}, "plan.zero is 1, which this machine's loop does not run. It runs 0"),
        ({"zero": 3}, "plan.zero is 3, and one device has nobody to share with. Leave it out, or say over how many"),
    ],
)
def test_what_cannot_be_is_said_with_what_can(pins: dict[str, Any], said: str, two_cores: Device) -> None:
    with pytest.raises(JobError, match=said.replace(".", r"\.")):
        check_devices(job(**pins), two_cores)


@pytest.mark.parametrize("pins", [{}, {"data": 1}, {"data": 2}, {"data": 2, "zero": 0}, {"data": 2, "zero": 3}])
def test_what_can_be_is_let_through(pins: dict[str, Any], two_cores: Device) -> None:
    check_devices(job(**pins), two_cores)


def test_the_command_line_says_it_in_the_jobs_place() -> None:
    assert with_devices(job(data=4, zero=3), 2).plan.data == 2
    assert with_devices(job(data=4, zero=3), None).plan.data == 4
    with pytest.raises(JobError, match="0 devices are none"):
        with_devices(job(), 0)


def test_what_one_thread_does_takes_no_longer_on_fewer_cores(two_cores: Device) -> None:
    point = KernelPoint(
        name="add", dtype="fp32", shapes="[8]", layouts="c", tensors=3, moved_bytes=1 << 20, warm_s=2e-5, cold_s=4e-5,
        spread=0.0,
    )  # fmt: skip
    small, beside = (point.model_copy(update=change) for change in ({"moved_bytes": 64 << 10}, {"shapes": ""}))
    shared = share_of(two_cores.model_copy(update={"kernels": (point, small, beside)}), 2).kernels
    assert (shared[0].warm_s, shared[0].cold_s) == (4e-5, 8e-5)
    assert shared[1:] == (small, beside)


def trace(**changes: Any) -> Trace:
    sizes = {"parameters": 1, "parameter_tensors": 1, "buffer_bytes": 0, "input_bytes": 0}
    none = Allocations((), ())
    return Trace((), none, none, "contiguous", parameter_sizes=(), **sizes, **changes)


def test_messages_take_their_bytes_and_their_number(two_cores: Device) -> None:
    step = trace(parameter_bytes=100 << 20, gradient_bytes=100 << 20)
    messages = assumed("cpu", 2, "a test")
    summed, gathered, scattered = (
        ((100 << 20) / each.bytes_per_second.value, each.latency_s.value) for each in messages.links.values()
    )
    latency_s, gathers_s = summed[1], AGREED * gathered[1]

    def seconds(zero: int = 0, sent: int = 1, channels: tuple[int, ...] = (), parts: int = 1) -> float:
        found = Between(messages, zero, sent, channels).seconds(step, parts, two_cores)
        assert found.low < found.value < found.high and "assumed: a test" in found.method
        return found.value

    assert seconds() == pytest.approx(sum(summed) + gathers_s)
    # copies are summed once a step; what is shared out travels for each micro-batch, thrice
    assert seconds(parts=3) == seconds()
    passed_s = 2 * (gathered[0] / 2 + gathered[1]) + scattered[0] / 2 + scattered[1]
    assert seconds(zero=3, parts=3) == pytest.approx(3 * passed_s + gathers_s)
    assert seconds(sent=5) == pytest.approx(seconds() + 4 * latency_s)
    assert seconds(channels=(8, 8), parts=3) > seconds() + 3 * 2 * (latency_s + gathered[1])


def test_the_slower_way_is_told() -> None:
    between = Interval(low=0.1, value=0.2, high=0.3, method="timed")
    slower, faster = Compared(0.5, between, 0.6), Compared(0.5, between, 0.8)
    said = "a step takes 500 ms without messages between ranks, 700 ms with them; on one device "
    assert slower.says.startswith(said) and slower.says.endswith(": --devices 1 is predicted to be faster")
    assert faster.says.startswith(said) and "--devices" not in faster.says


def test_ranks_share_a_processor_and_have_a_gpu_each(two_cores: Device) -> None:
    rank = share_of(two_cores, 2)
    assert (rank.cores, rank.memory_bytes) == (1, two_cores.memory_bytes // 2)
    assert 2 * rank.bytes_per_second.value == two_cores.bytes_per_second.value
    assert (rank.busy_watts, rank.usd_per_hour) == (two_cores.busy_watts, two_cores.usd_per_hour)
    gpu = find_device("h100")
    other = share_of(gpu, 4)
    assert (other.memory_bytes, other.flops_per_second) == (gpu.memory_bytes, gpu.flops_per_second)
    assert other.busy_watts.value == 4 * gpu.busy_watts.value
    assert share_of(gpu, 1) == gpu
