"""Jobs on several devices of one machine: what is refused, in which words; what a rank gets, and what the plan says."""

from __future__ import annotations

from typing import Any

import pytest

from thrifty.errors import JobError
from thrifty.hardware import find_device
from thrifty.planner.devices import check_devices, share_of
from thrifty.spec import Device, Job, with_devices


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
