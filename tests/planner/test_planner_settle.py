"""Ways that may be the best are asked about until the best of them was."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

import made_devices
from thrifty import hardware
from thrifty.errors import JobError
from thrifty.hardware.capture import Call, Key
from thrifty.planner import declared_dataset
from thrifty.planner.here import propose_here
from thrifty.planner.learning import decide
from thrifty.planner.local import Local
from thrifty.planner.rules import Reasons
from thrifty.planner.settle import asker_of, settle
from thrifty.spec import parse_job
from thrifty.spec.device import KernelPoint

# each traces real models
pytestmark = pytest.mark.slow

POINT = KernelPoint(
    name="mm", dtype="float32", shapes="8x8,8x8->8x8", layouts="cc>c", tensors=2, moved_bytes=768, warm_s=1e-6,
    cold_s=1e-6, spread=0.0,
)  # fmt: skip


class Says:
    """Stands for a device on which every operator in bf16 takes ten seconds, and any other a millisecond."""

    device = "cpu"

    def __init__(self) -> None:
        self.known: dict[Key, KernelPoint] = {}
        self.asked: list[set[str]] = []

    def ask(self, calls: Mapping[Key, Call], seconds: float) -> None:
        self.asked.append({key.dtype for key in calls})
        for key in calls:
            took = {"warm_s": 10.0, "cold_s": 10.0} if key.dtype == "bfloat16" else {"warm_s": 1e-3, "cold_s": 1e-3}
            self.known[key] = POINT.model_copy(update={**key._asdict(), **took})


def local(device: Any, asker: Any) -> Local:
    job = parse_job(
        {
            "name": "a",
            "data": {"kind": "language", "tokens": 1_000_000, "vocabulary": 300, "length": 64},
            "model": "gpt-nano",
            "train": {"batch": 8, "steps": 50},
        }
    )
    dataset = declared_dataset(job.data)  # type: ignore[arg-type]
    return Local(job, decide(job, dataset, Reasons([])), dataset, device, asker=asker)


def test_a_way_that_proves_slow_gives_way_to_one_that_seemed_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTY_ASK_SECONDS", "60")
    says = Says()
    here = local(made_devices.device(kernels=(POINT,)), says)
    ways = [
        here.way({"precision": precision, "memory_format": "contiguous", "checkpointing": "none", "micro_batch": 8})
        for precision in ("bf16", "fp32")
    ]
    # foreseen to be the best
    here.known = {
        key: replace(way, price=replace(way.price, seconds=1.0 if way is ways[0] else 2.0))
        for key, way in here.known.items()
    }
    settle(here)
    assert "bfloat16" in says.asked[0]
    assert all("bfloat16" not in kinds for kinds in says.asked[1:])
    bf16, fp32 = here.known.values()
    assert fp32.price.seconds < bf16.price.seconds
    assert len(here.device.kernels) == 1 + len(says.known)


def test_without_time_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTY_ASK_SECONDS", "0")
    with asker_of(made_devices.device(kernels=(POINT,))) as asker:
        assert asker is None
    monkeypatch.setenv("THRIFTY_ASK_SECONDS", "soon")
    with (
        pytest.raises(JobError, match="THRIFTY_ASK_SECONDS is 'soon'"),
        asker_of(made_devices.device(kernels=(POINT,))),
    ):
        pass


@pytest.mark.alone
@pytest.mark.usefixtures("no_dry_run")
def test_a_plan_here_says_how_many_operators_were_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTY_ASK_SECONDS", "2")
    device = hardware.here(kind="cpu")
    began = time.perf_counter()
    here = local(device, None)
    proposal = propose_here(here.job, here.dataset, device, key="k")
    assert time.perf_counter() - began < 60
    says = proposal.offers[0].cost.seconds.method
    asked = int(says.split(" as this ")[0].split()[-1])
    assert asked > 20, says
