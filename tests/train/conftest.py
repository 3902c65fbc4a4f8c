"""Small plans over real digits, for the tests of the loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from thrifty.data import Store, prepare
from thrifty.models import resolve
from thrifty.spec import BatchPlan, Cost, ImageData, Interval, OptimPlan, Plan, StopPlan

NOTHING = Interval(low=0, value=0, high=0, method="a test")
PlanFactory = Callable[..., Plan]


@pytest.fixture(scope="session")
def store(digits: Path, own_cache: Path) -> Store:
    data = ImageData(kind="image", path=digits, size=8, color="gray")
    return prepare(data, seed=0, cache=own_cache, emit=lambda event: None)


@pytest.fixture(scope="session")
def make_plan(store: Store) -> PlanFactory:
    """Return a function that makes a plan; keywords change fields of its optimizer, its stop, or itself."""

    def make(model: str = "mlp-small", *, size: int = 64, micro: int = 64, steps: int = 20, **changes: Any) -> Plan:
        per_epoch = math.ceil(store.dataset.counts["train"] / size)
        optim: dict[str, Any] = {
            "optimizer": "adamw", "schedule": "cosine", "learning_rate": 1e-3, "momentum": 0.9, "betas": (0.9, 0.999),
            "eps": 1e-8, "weight_decay": 0.01, "warmup_steps": 2, "total_steps": steps, "steps_per_epoch": per_epoch,
            "decay": 0.5, "plateau_patience": 1, "clip": math.inf,
        }  # fmt: skip
        stop: dict[str, Any] = {
            "steps": steps, "metric": "accuracy", "higher_is_better": True, "target": math.inf, "patience": 0,
            "seconds": math.inf, "joules": math.inf, "usd": math.inf,
        }  # fmt: skip
        own: dict[str, Any] = {"evaluate_every": 5, "checkpoint_seconds": 0.0, "precision": "fp32"}
        for key, value in changes.items():
            place = optim if key in optim else stop if key in stop else own
            place[key] = value
        return Plan(
            job="test", key="test", task="classify", model=resolve(model, store.dataset), init="default",
            optim=OptimPlan(**optim), stop=StopPlan(**stop),
            batch=BatchPlan(size=size, micro=micro, accumulation=math.ceil(size / micro), evaluation=64),
            device="cpu", threads=1, memory_format="contiguous", seed=0,
            cost=Cost(seconds=NOTHING, peak_bytes=NOTHING, joules=NOTHING, usd=NOTHING, flops=NOTHING), why=(), **own,
        )  # fmt: skip

    return make
