"""Ground of the search's tests: digits prepared and planned once, and training that only counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from tuning_ground import Counting, Ground, silent

from thrifty import hardware
from thrifty.data import prepare
from thrifty.spec import parse_job, raw_data
from thrifty.spec.folders import cache_folder
from thrifty.tune import best as best_module
from thrifty.tune.pricing import Pricer
from thrifty.tune.trial import Runner


@pytest.fixture(scope="session")
def ground(digits: Path) -> Ground:
    """Digits prepared, and a plan of them: some seconds, so those who ask for it are slow tests."""
    pins = {"precision": "fp32", "memory_format": "contiguous", "checkpointing": "none", "compile": "none"}
    job = parse_job(
        {
            "name": "digits",
            "data": {"kind": "image", "path": str(digits)},
            "model": "mlp-small",
            "train": {"epochs": 9, "batch": 32},
            "plan": pins,
            "budget": {"memory": "4GiB", "time": "1h"},
        }
    )
    store = prepare(raw_data(job), seed=0, cache=cache_folder(), emit=silent)
    device = hardware.here(kind="cpu")
    pricer = Pricer(job, store, device, probe=None)
    pricer.plan({})
    return Ground(job, store, device, pricer)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    """Training is counted, and bundles are not written."""
    counting = Counting()
    monkeypatch.setattr(Runner, "run", lambda runner, *rest: counting.run(runner, *rest))
    monkeypatch.setattr(
        best_module.BestBundle, "keep", lambda bundle, model, plan, record, good, spent: counting.kept.append(good)
    )
    return counting
