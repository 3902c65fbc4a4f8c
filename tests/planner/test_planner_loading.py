"""When batches are made beside the steps: by rule of the device, as pinned, and what of memory that takes."""

from __future__ import annotations

from pathlib import Path

import pytest

import thrifty.planner.rules as rules
from thrifty.data import STEPS_AHEAD, Store, prepare
from thrifty.errors import JobError
from thrifty.hardware import find_device
from thrifty.planner import plan
from thrifty.spec import Device, Plan, Quantity, Spent, parse_job

JOB = {"name": "a", "data": {"kind": "image", "path": "x", "size": 8}, "model": "mlp-small"}


def processor(cores: int = 2) -> Device:
    def q(value: float) -> Quantity:
        return Quantity(value=value, source="made for a test")

    return Device(
        name="test", kind="cpu", cores=cores, isa=(), cache_bytes={}, memory_bytes=2**33, memory_source="test",
        flops_per_second={"fp32": q(1e11)}, bytes_per_second=q(2e10), datasheet_flops_per_second={},
        datasheet_bytes_per_second={}, idle_watts=q(10), busy_watts=q(50), usd_per_hour=q(0.1),
        measured_on="2026-11-23",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "cores", "expected"),
    [
        ({}, 2, "between"),
        ({"plan": {"threads": 1}}, 2, "beside"),
        ({"plan": {"threads": 2}}, 2, "between"),
        ({"plan": {"threads": 1}, "budget": {"memory": "1 GB"}}, 2, "between"),
    ],
)
def test_on_a_processor_a_core_must_be_free(changes: dict[str, object], cores: int, expected: str) -> None:
    how, said = rules.loading(parse_job({**JOB, **changes}), processor(cores))
    assert how == expected and said


def test_a_gpu_leaves_the_processor_free() -> None:
    assert rules.loading(parse_job(JOB), find_device("h100"))[0] == "beside"


@pytest.fixture(scope="module")
def images(digits: Path, own_cache: Path) -> Store:
    job = parse_job({**JOB, "data": {"kind": "image", "path": str(digits), "size": 8}})
    return prepare(job.data, seed=0, cache=own_cache, emit=lambda event: None)


@pytest.mark.slow
@pytest.mark.usefixtures("no_dry_run")
def test_what_waits_is_in_the_predicted_memory_and_is_told(images: Store) -> None:
    def planned(how: str, **changes: object) -> Plan:
        job = parse_job({**JOB, "train": {"batch": 64}, "plan": {"loading": how, "micro_batch": 16}, **changes})
        return plan(job, images.dataset, processor(), key="k", spent=Spent())

    beside, between = planned("beside"), planned("between")
    assert (beside.loading, between.loading) == ("beside", "between")
    pixels = 64 * 4 * images.dataset.shape[0] * 8 * 8
    more = beside.cost.peak_bytes.value - between.cost.peak_bytes.value
    assert more == pytest.approx((STEPS_AHEAD + 1) * (pixels + 64 * 8))
    (line,) = [line for line in beside.why if line.field == "loading"]
    assert line.source == "job" and "of the processor's memory" in line.reason
    with pytest.raises(JobError, match=r"plan.loading is beside, and budget.memory is 1.0 GiB"):
        planned("beside", budget={"memory": "1 GiB"})
