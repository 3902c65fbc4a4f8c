"""What is compiled: by request, where it pays back, and never silently not."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

import thrifty.planner.rules as rules
from made_devices import device
from thrifty.errors import JobError
from thrifty.planner import declared_dataset, plan
from thrifty.planner.compilable import check_compile
from thrifty.planner.compiling import with_compile
from thrifty.planner.learning import decide
from thrifty.planner.local import Local
from thrifty.planner.rules import Reasons
from thrifty.spec import AdaptPlan, Decision, DeclaredData, Interval, Job, Plan, Spent, parse_job


def job(model: str = "gpt-nano", steps: int = 50, **pins: Any) -> Job:
    data = {"kind": "language", "tokens": 1_000_000, "vocabulary": 300, "length": 128}
    train = {"batch": 2, "steps": steps}
    return parse_job({"name": "a", "data": data, "model": model, "train": train, "plan": {"precision": "fp32", **pins}})


def planned(asked: Job) -> Plan:
    assert isinstance(asked.data, DeclaredData)
    return plan(asked, declared_dataset(asked.data), device(), key="k", spent=Spent())


@pytest.mark.parametrize(
    ("pins", "repeats", "said"),
    [
        ({"compile": "blocks"}, False, r"no repeated blocks.*'whole'"),
        ({"compile": "blocks", "checkpointing": "selective"}, True, r"does not go with.*'none' or 'full'"),
        ({"compile": "whole", "checkpointing": "full"}, True, r"does not go with.*'none'"),
    ],
)
def test_what_cannot_be_is_told(pins: dict[str, Any], repeats: bool, said: str) -> None:
    with pytest.raises(JobError, match=said):
        check_compile(job(**pins), "cpu", repeats=repeats)


def test_a_missing_compiler_is_told_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    check_compile(job(), "cpu", repeats=True)
    check_compile(job(compile="none"), "cpu", repeats=True)
    with pytest.raises(JobError, match=r"needs a C\+\+ compiler.*Install it"):
        check_compile(job(compile="blocks"), "cpu", repeats=True)


def test_it_pays_back_after_the_steps_that_its_seconds_take() -> None:
    gain, takes = Interval.around(0.01, 0.5, "a test"), Interval.around(20.0, 0.5, "a test")
    assert rules.compile_pays(gain, takes, 2001)[0]
    pays, said = rules.compile_pays(gain, takes, 2000)
    assert not pays
    assert "10 ms a step" in said
    assert "after 2,000 steps, the job has 2,000" in said
    none = Interval(low=0, value=0, high=0, method="a test")
    assert rules.compile_pays(none, takes, 10**9) == (
        False,
        "it saves 0 ms a step and takes 20.0 s: which never comes back",
    )


@pytest.mark.slow
@pytest.mark.usefixtures("no_dry_run")
def test_a_cpu_compiles_by_request_alone() -> None:
    usual, asked = planned(job(steps=10**6)), planned(job(compile="blocks"))
    assert usual.compile == "none"
    assert {line.field: line.source for line in usual.why}["compile"] == "measured"
    assert asked.compile == "blocks"
    assert {line.field: line.source for line in asked.why}["compile"] == "job"
    plain = planned(job(compile="none"))
    assert plain.compile == "none"
    # so few steps never earn it back, and the plan says what they cost
    assert asked.cost.seconds.value > plain.cost.seconds.value + 5
    assert "to compile" in asked.cost.seconds.method
    assert asked.cost.usd.value > plain.cost.usd.value
    assert asked.cost.peak_bytes.value > plain.cost.peak_bytes.value + (32 << 20)


@pytest.mark.slow
@pytest.mark.usefixtures("no_dry_run")
def test_a_gpu_compiles_where_that_pays_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = job(steps=10**6)
    plain = planned(asked)
    assert isinstance(asked.data, DeclaredData)
    dataset = declared_dataset(asked.data)
    local = Local(asked, decide(asked, dataset, Reasons([])), dataset, device())
    settings = {"precision": "fp32", "memory_format": "contiguous", "checkpointing": "none", "micro_batch": 2}
    way = local.way(settings)
    # what was traced is kept: this machine needs no GPU to price it for one
    local.device = device(kind="cuda")

    def decided(draft: Plan) -> tuple[Plan, Decision]:
        why = Reasons([])
        found = with_compile(draft, local, way, why)
        (line,) = why.lines
        return found, line

    if not importlib.util.find_spec("triton"):
        found, line = decided(plain)
        assert found.compile == "none"
        assert "needs Triton" in line.reason
        (tmp_path / "triton.py").touch()
        monkeypatch.syspath_prepend(tmp_path)
    found, line = decided(plain)
    assert found.compile == "blocks"
    assert "back after" in line.reason
    assert found.cost.seconds.value < plain.cost.seconds.value
    assert found.cost.joules.value < plain.cost.joules.value
    few = plain.model_copy(update={"stop": plain.stop.model_copy(update={"steps": 5})})
    assert decided(few)[0].compile == "none"
    adapted = plain.model_copy(update={"adapt": AdaptPlan(kind="lora", rank=8)})
    assert "without adapters" in decided(adapted)[1].reason
    again = plain.model_copy(update={"checkpointing": "selective"})
    assert "selective checkpointing" in decided(again)[1].reason
