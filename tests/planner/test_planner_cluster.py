"""Layouts on a cluster: bounds are bounds, the batch is kept, limits hold, degrees that do not divide are told."""

from __future__ import annotations

import random
from typing import Any

import pytest

from thrifty.errors import JobError
from thrifty.hardware.cluster import find_cluster
from thrifty.planner.cluster import work_of
from thrifty.planner.declared import declared_dataset
from thrifty.planner.ground import Ground
from thrifty.planner.learning import decide
from thrifty.planner.propose import cluster_plan
from thrifty.planner.rules import Reasons
from thrifty.planner.space import layout_of
from thrifty.spec import DeclaredData, Job, parse_job
from thrifty.spec.proposal import Proposal

# each plan traces and runs dry a real model
pytestmark = pytest.mark.slow


def job(model: str = "gpt3-13b", batch: int = 96, **changes: Any) -> Job:
    data = {"kind": "language", "tokens": 10**9, "vocabulary": 51200, "length": 2048}
    return parse_job({"name": "a", "data": data, "model": model, "train": {"batch": batch}, **changes})


def place(wanted: Job, where: str) -> Ground:
    assert isinstance(wanted.data, DeclaredData)
    dataset = declared_dataset(wanted.data)
    return work_of(wanted, decide(wanted, dataset, Reasons([])), dataset).ground(find_cluster(where))


def planned(wanted: Job, where: str, **options: Any) -> Proposal:
    assert isinstance(wanted.data, DeclaredData)
    return cluster_plan(wanted, declared_dataset(wanted.data), find_cluster(where), what_if=False, **options)


@pytest.mark.parametrize("where", ["a100-80g:8x4", "h100:8", "v100:8x2"])
def test_bounds_are_never_above_the_price(where: str) -> None:
    ground_ = place(job(), where)
    ways = list(ground_.space.candidates())
    for settings in random.Random(0).sample(ways, min(300, len(ways))):
        price = ground_.price(settings)
        for bound in ground_.bounds:
            below = bound(settings)
            for name in ("usd", "seconds", "joules", "peak_bytes"):
                assert getattr(below, name) <= getattr(price, name) * (1 + 1e-9), (name, settings)


def test_every_layout_computes_the_same_batch_on_all_devices() -> None:
    ground_ = place(job(), "a100-80g:8x4")
    for settings in ground_.space.candidates():
        layout = layout_of(settings, 96)
        assert layout.batch == 96
        assert layout.devices == 32


def test_the_choice_fits_the_memory_and_the_front_is_sorted() -> None:
    proposal = planned(job(), "a100-80g:8x4")
    chosen = proposal.chosen
    assert chosen is not None
    (memory,) = proposal.limits
    assert chosen.cost.peak_bytes.high <= memory.limit
    dollars = [offer.cost.usd.value for offer in proposal.front]
    assert dollars == sorted(dollars)
    assert chosen.cost.usd.value <= dollars[0] * 1.01
    assert {"precision", "tensor", "data", "learning_rate"} <= {line.field for line in proposal.why}
    assert Proposal.model_validate_json(proposal.model_dump_json()) == proposal


def test_nothing_that_changes_what_is_learned_unless_asked() -> None:
    plain = planned(job(), "h100:8x4")
    assert {offer.settings["precision"] for offer in plain.front} <= {"fp32", "bf16"}
    asked = planned(job(), "h100:8x4", allowed=("fp8",))
    assert asked.chosen is not None and plain.chosen is not None
    assert asked.chosen.cost.seconds.value <= plain.chosen.cost.seconds.value * 1.01


def test_pins_are_kept() -> None:
    chosen = planned(job(plan={"tensor": 8, "checkpointing": "full"}), "a100-80g:8x4").chosen
    assert chosen is not None
    assert (chosen.settings["tensor"], chosen.settings["checkpointing"]) == (8, "full")


def test_what_would_fit_is_said_when_nothing_does() -> None:
    proposal = planned(job("gpt3-175b", budget={"memory": "20GiB"}), "a100-80g:8")
    assert proposal.chosen is None
    said = " ".join(proposal.would_fit)
    assert "memory a device of" in said
    assert "instead of 20.0 GiB" in said
    assert "devices instead of 8" in said


def test_a_time_budget_that_no_way_keeps_names_the_least_time() -> None:
    proposal = planned(job(budget={"time": "1min"}), "a100-80g:8x4")
    assert proposal.chosen is None
    assert any(line.startswith("time of ") and "instead of 1m 00s" in line for line in proposal.would_fit)


PINS = [
    ({"tensor": 3}, 96, "plan.tensor is 3, but tensor divides the 40 heads. These would do: 1, 2, 4, 8"),
    ({"pipeline": 3}, 96, "pipeline divides the 40 layers"),
    ({"data": 5}, 96, "plan.data is 5, but data divides the batch of 96"),
    ({"data": 3}, 96, "plan.data is 3, which does not divide the devices. These would do: 1, 2, 4, 8, 16, 32"),
    ({"precision": "fp8"}, 96, "must be allowed by name"),
    ({"tensor": 8, "pipeline": 4, "data": 4}, 96, "data x tensor x pipeline x context is the 32 devices"),
    ({}, 7, "a batch of 7 cannot be cut into equal parts"),
]


@pytest.mark.parametrize(("pins", "batch", "said"), PINS, ids=[row[2][:40] for row in PINS])
def test_degrees_that_do_not_divide_are_told(pins: dict[str, Any], batch: int, said: str) -> None:
    wanted = job("gpt3-13b" if batch > 7 else "gpt2", batch, plan=pins)
    with pytest.raises(JobError) as caught:
        planned(wanted, "a100-80g:8x4")
    assert said in str(caught.value)
