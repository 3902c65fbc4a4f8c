"""Optimizer states in the processor's memory: priced, told of where a GPU is too small, refused where that is idle."""

from __future__ import annotations

from typing import Any

import pytest

from made_devices import device
from thrifty.cost import Trace
from thrifty.errors import BudgetError, JobError
from thrifty.hardware.cluster import find_cluster
from thrifty.planner import declared_dataset
from thrifty.planner import local as planner_local
from thrifty.planner.explain import quote_of
from thrifty.planner.explore import explore
from thrifty.planner.learning import decide
from thrifty.planner.local import Local
from thrifty.planner.offload import check_offload, offload_here, offload_seconds
from thrifty.planner.propose import cluster_plan
from thrifty.planner.rules import Reasons
from thrifty.planner.steps import trace_of
from thrifty.spec import Cleaning, Dataset, DeclaredData, Device, Job, parse_job

GPU = device(kind="cuda")
STEPS = 50


@pytest.fixture
def traced_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's steps are traced as a processor's where torch has no GPUs."""

    def trace(*args: Any, **named: Any) -> Trace:
        return trace_of(*args, **{**named, "device": "cpu"})

    monkeypatch.setattr(planner_local, "trace_of", trace)


def job(memory: int | None = None, **pins: Any) -> Job:
    budget = {} if memory is None else {"budget": {"memory": f"{memory}B"}}
    return parse_job(
        {
            "name": "a",
            "data": {"kind": "language", "tokens": 1_000_000, "vocabulary": 300, "length": 64},
            "model": "gpt-nano",
            "train": {"batch": 4, "steps": STEPS},
            "plan": {"precision": "fp32", **pins},
            **budget,
        }
    )


def local(asked: Job, on: Device = GPU) -> Local:
    assert isinstance(asked.data, DeclaredData)
    dataset = declared_dataset(asked.data)
    return Local(asked, decide(asked, dataset, Reasons([])), dataset, on)


@pytest.mark.slow
def test_it_holds_no_states_and_takes_longer(traced_here: None) -> None:
    ways = {}
    for offload in (None, True):
        here = local(job(offload=offload))
        found = explore(here).choice
        assert found is not None
        ways[offload] = found
        parameters = here.learning.parameters
        waits = here.waits(found.settings)
        assert waits == (offload_here(parameters) if offload else None)
    states = 8 * parameters
    less = ways[None].price.peak_bytes - ways[True].price.peak_bytes
    assert 0.9 * states < less < 1.1 * states
    assert "optimizer states" not in quote_of(ways[True]).memory_holds
    assert ways[True].price.seconds > STEPS * offload_here(parameters).value


@pytest.mark.slow
def test_where_a_gpu_is_too_small_it_is_told_of(traced_here: None) -> None:
    here = local(job())
    settings = {field: each[0] for field, each in here.dimensions().items()} | {"micro_batch": 1}
    asks = [each.peak({**settings, "checkpointing": "full"}).high for each in (here, local(job(offload=True)))]
    assert asks[1] < 0.9 * asks[0]
    between = int(sum(asks) / 2)
    with pytest.raises(BudgetError) as caught:
        explore(local(job(between)))
    assert "Set plan.offload: true (it needs" in str(caught.value.mend)
    found = explore(local(job(between, offload=True))).choice
    assert found is not None and found.price.risk_bytes <= between
    with pytest.raises(BudgetError) as caught:
        explore(local(job(int(asks[1] / 2))))
    assert "offload" not in str(caught.value.mend)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"data": 2}, r"plan\.data is 2"),
    ({"precision": "bf16_compensated"}, "weights held in bf16"),
    ({"gradient_release": True}, "gradient_release"),
]


@pytest.mark.parametrize(("pins", "says"), REFUSED)
def test_what_does_not_go_with_it_is_refused(pins: dict[str, Any], says: str) -> None:
    with pytest.raises(JobError, match=f"plan.offload is true, and .*{says}"):
        check_offload(job(offload=True, **pins), GPU)


def test_a_processor_has_them_already() -> None:
    with pytest.raises(JobError, match="the device is the processor"):
        local(job(offload=True), device())
    assert local(job(offload=False), device()).job.plan.offload is False
    assert local(job(), device()).offloading() is None


def test_all_rows_are_trained_then() -> None:
    texts = Dataset(
        kind="text", key="k", counts={"train": 1000, "validation": 10, "test": 10}, labels=("bad", "good"),
        label_counts={}, shape=(8,), mean=(), std=(), crop="none", vocabulary=30_000, tokens={}, text_bytes={},
        source_bytes=0, stored_bytes=0, lengths=dict.fromkeys(("train", "validation", "test"), (1000,)),
        cleaning=Cleaning(seen=0, kept=0, rejected={}, duplicates=0, across_splits=0),
    )  # fmt: skip

    def decided(**pins: Any) -> str:
        asked = {"name": "a", "data": {"kind": "text", "path": "x"}, "model": "bert-tiny", "train": {"batch": 4}}
        return decide(parse_job({**asked, "plan": pins}), texts, Reasons([])).rows

    assert (decided(), decided(offload=True)) == ("used", "all")
    with pytest.raises(JobError, match=r"plan\.rows is used"):
        decided(offload=True, rows="used")


def test_our_loop_sends_twice_what_a_cluster_does() -> None:
    parameters = 10**8
    there = offload_seconds(12 * parameters, find_cluster("h100:8"))
    here = offload_here(parameters)
    assert there < here.value < 2 * there
    assert here.low < here.value < here.high and "neither was timed here" in here.method


def test_a_pin_holds_on_a_cluster_too() -> None:
    for offload in (False, True):
        asked = job(offload=offload)
        asked = asked.model_copy(update={"model": "gpt2", "plan": asked.plan.model_copy(update={"precision": "bf16"})})
        assert isinstance(asked.data, DeclaredData)
        found = cluster_plan(asked, declared_dataset(asked.data), find_cluster("h100:4"))
        assert {offer.settings["offload"] for offer in found.offers} == {offload}
