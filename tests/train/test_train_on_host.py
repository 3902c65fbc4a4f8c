"""Optimizer states in the processor's memory, in the loop: the same run to the bit, which goes on with or without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from short_runs import Killed, go, same

from thrifty.data import Store
from thrifty.spec import Plan
from thrifty.spec.events import Evaluated, Event, Resumed, StepDone
from thrifty.train import probe_steps

PlanFactory = Callable[..., Plan]


def told(events: list[Event]) -> list[object]:
    return [
        (each.step, each.loss, each.gradient_norm) if isinstance(each, StepDone) else each.metrics
        for each in events
        if isinstance(each, StepDone | Evaluated)
    ]


@pytest.mark.parametrize(
    ("optimizer", "precision"),
    [
        ("adamw", "fp32"),
        pytest.param("momentum", "bf16", marks=pytest.mark.slow),
        pytest.param("muon", "bf16", marks=pytest.mark.slow),
        pytest.param("schedule_free", "fp32", marks=pytest.mark.slow),
        pytest.param("adamw_8bit", "fp32", marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_a_run_is_the_same_and_goes_on_with_or_without(
    optimizer: str, precision: str, make_plan: PlanFactory, store: Store, tmp_path: Path
) -> None:
    here = make_plan("mlp-small", steps=8, evaluate_every=4, optimizer=optimizer, precision=precision)
    there = here.model_copy(update={"offload": True})
    plain, expected = go(here, store, tmp_path / "here")
    moved, events = go(there, store, tmp_path / "there")
    assert same(plain, moved) and told(events) == told(expected)
    for first, then in ((here, there), (there, here), (there, there)):
        folder = tmp_path / f"{first.offload}-{then.offload}"
        with pytest.raises(Killed):
            go(first, store, folder, die_at=6)
        resumed, later = go(then, store, folder)
        assert [each.step for each in later if isinstance(each, Resumed)] == [5]
        assert same(plain, resumed)


def test_a_probe_takes_real_steps(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    probed = probe_steps(make_plan(offload=True), store, tmp_path, seconds=0.1)
    assert probed.step_s
