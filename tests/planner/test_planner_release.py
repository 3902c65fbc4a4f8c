"""Gradient release is priced, refused beside what needs all gradients, and told of where it would save memory."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn

from made_devices import device
from thrifty import optim
from thrifty.cost import Trace, heap_peak, peak_bytes, trace_step
from thrifty.cost.timeline import timeline
from thrifty.errors import BudgetError, JobError
from thrifty.planner import declared_dataset, plan
from thrifty.planner.cluster import work_of
from thrifty.planner.explore import explore
from thrifty.planner.here import propose_here
from thrifty.planner.learning import decide
from thrifty.planner.local import Local
from thrifty.planner.rules import Reasons
from thrifty.spec import DeclaredData, Job, Plan, Spent, parse_job

LAYERS, WIDTH, ROWS = 12, 256, 2
# bytes of the weights, and so of all gradients, and of those of one layer
WEIGHTS, LAYER = 4 * LAYERS * WIDTH * (WIDTH + 1), 4 * WIDTH * (WIDTH + 1)


def job(*, clip: float | None = 0, batch: int = 8, train: dict[str, Any] | None = None, **pins: Any) -> Job:
    asked = {"batch": batch, "steps": 50, **({} if clip is None else {"clip": clip}), **(train or {})}
    return parse_job(
        {
            "name": "a",
            "data": {"kind": "language", "tokens": 1_000_000, "vocabulary": 300, "length": 64},
            "model": "gpt-nano",
            "train": asked,
            "plan": {"gradient_release": True, "precision": "fp32", **pins},
        }
    )


def local(asked: Job) -> Local:
    assert isinstance(asked.data, DeclaredData)
    dataset = declared_dataset(asked.data)
    return Local(asked, decide(asked, dataset, Reasons([])), dataset, device())


def planned(asked: Job) -> Plan:
    assert isinstance(asked.data, DeclaredData)
    return plan(asked, declared_dataset(asked.data), device(), key="k", spent=Spent())


def chain() -> nn.Module:
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)))


def mean(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
    return model(batch["x"]).square().mean(), 1


def traced(optimizer: str, *, release: bool, clip: bool = False) -> Trace:
    return trace_step(
        chain,
        mean,
        {"x": ((ROWS, WIDTH), "float32")},
        precision="fp32",
        optimizer=optim.by_name(optimizer),
        clip=clip,
        release=release,
    )


@pytest.mark.parametrize(("optimizer", "states"), [("sgd", 0), pytest.param("adamw", 2, marks=pytest.mark.slow)])
def test_a_trace_holds_the_gradients_of_a_layer_at_a_time(optimizer: str, states: int) -> None:
    kept, released = (traced(optimizer, release=release) for release in (False, True))
    assert kept.gradient_bytes == released.gradient_bytes == WEIGHTS
    assert abs(released.optimizer_bytes - states * WEIGHTS) < 1000
    assert kept.live_peak_bytes >= WEIGHTS and released.live_peak_bytes < 3 * LAYER
    assert timeline(released).holds["gradients"] <= 2 * LAYER < WEIGHTS == timeline(kept).holds["gradients"]
    phases = [op.phase for op in released.ops]
    assert phases.index("optimizer") < len(phases) - 1 - phases[::-1].index("backward"), "they take turns"
    work = [sorted(op.flops for op in trace.ops if op.flops) for trace in (kept, released)]
    assert work[0] == work[1]
    for kind in ("cpu", "cuda"):
        saved = peak_bytes(kept, device_kind=kind).value - peak_bytes(released, device_kind=kind).value
        assert saved > 0.7 * WEIGHTS


@pytest.mark.slow
@pytest.mark.own_process
def test_a_dry_run_does_too() -> None:
    def grown(release: bool) -> int:
        found = heap_peak(
            chain,
            mean,
            {"x": ((ROWS, WIDTH), "float32")},
            precision="fp32",
            optimizer=optim.by_name("sgd"),
            release=release,
        )
        if found is None:
            pytest.skip("this C library does not tell of its heap")
        return found.step

    # states that are made between gradients take the holes that these leave: without states it shows
    assert grown(release=False) - grown(release=True) > 0.5 * WEIGHTS


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"clip": None}, r"gradients are clipped at 1 by rule.*train\.clip: 0"),
    ({"clip": 0.5}, r"train\.clip is 0\.5.*train\.clip: 0"),
    ({"micro_batch": 4}, r"plan\.micro_batch is 4 of a batch of 8.*train\.batch"),
    ({"data": 2}, r"plan\.data is 2.*one device"),
    ({"precision": "bf16_stochastic"}, r"drawn in the order.*bf16_compensated"),
    ({"compile": "whole"}, r"compiled whole hands out all gradients.*blocks"),
]


@pytest.mark.parametrize(("asked", "says"), REFUSED)
def test_what_would_be_learned_otherwise_is_refused(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(JobError, match=f"plan.gradient_release is true, and .*{says}"):
        local(job(**asked))


def test_on_a_cluster_it_has_no_price() -> None:
    asked = job()
    assert isinstance(asked.data, DeclaredData)
    dataset = declared_dataset(asked.data)
    with pytest.raises(JobError, match=r"this machine alone.*without --on"):
        work_of(asked, decide(asked, dataset, Reasons([])), dataset)


@pytest.mark.slow
def test_a_plan_takes_the_whole_batch_and_says_why(no_dry_run: None) -> None:
    decided = planned(job())
    assert decided.gradient_release and decided.batch.micro == decided.batch.size == 8
    (line,) = [line for line in decided.why if line.field == "gradient_release"]
    assert (line.source, line.value) == ("job", "in the backward pass") and "go back" in line.doubt
    kept = planned(job(gradient_release=False))
    assert not kept.gradient_release and "gradient_release" not in [line.field for line in kept.why]
    assert decided.cost.peak_bytes.value < kept.cost.peak_bytes.value


@pytest.mark.slow
def test_where_the_whole_batch_does_not_fit_nothing_less_is_taken(no_dry_run: None) -> None:
    """Blocks are computed again where that is enough; else the budget is too small, however few samples would fit."""
    settings = {"precision": "fp32", "memory_format": "contiguous", "micro_batch": 64}
    place = local(job(batch=64))
    plain, full = (place.peak({**settings, "checkpointing": how}).high for how in ("none", "full"))
    for memory, expected in (((plain + full) / 2, "full"), (0.8 * full, "")):
        asked = job(batch=64).model_copy(update={"budget": parse_job_budget(memory)})
        if expected:
            choice = explore(local(asked)).choice
            assert choice is not None
            assert choice.settings["micro_batch"] == 64 and choice.settings["checkpointing"] != "none"
        else:
            with pytest.raises(BudgetError, match="64 samples at a time need"):
                explore(local(asked))


def parse_job_budget(memory: float) -> Any:
    return job().budget.model_copy(update={"memory": int(memory)})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clip", "pins", "says"),
    [
        (0, {"gradient_release": None}, "plan: {gradient_release: true}"),
        (None, {"gradient_release": None}, "with train: {clip: 0}: gradients are clipped at 1 now"),
        (0, {"gradient_release": True}, ""),
        (0, {"gradient_release": None, "micro_batch": 1}, ""),
    ],
)
def test_a_proposal_tells_what_it_would_save(
    clip: float | None, pins: dict[str, Any], says: str, no_dry_run: None
) -> None:
    asked = job(clip=clip, batch=2, **pins).model_copy(update={"model": "gpt-small"})
    assert isinstance(asked.data, DeclaredData)
    proposal = propose_here(asked, declared_dataset(asked.data), device(), key="k")
    lines = [line for line in proposal.cheaper_still if "gradient_release: true" in line]
    assert len(lines) == bool(says)
    assert all(says in line and "less memory, about" in line for line in lines)
