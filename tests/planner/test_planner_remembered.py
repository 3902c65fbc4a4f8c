"""Plans of like models share their traces where that is asked for, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from made_devices import device
from thrifty.cost import Trace
from thrifty.planner import declared_dataset, remembered
from thrifty.planner.learning import decide
from thrifty.planner.local import Local
from thrifty.planner.remembered import hearsay, remembering
from thrifty.planner.rules import Reasons
from thrifty.spec import DeclaredData, parse_job

WAY = {"precision": "fp32", "memory_format": "contiguous", "checkpointing": "none", "micro_batch": 1}


@pytest.fixture(autouse=True)
def nothing_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that remembers nothing."""
    monkeypatch.setattr(remembered, "_MEMORY", ContextVar("none", default=None))


def here(model: str = "gpt-nano@2x32x2", **train: Any) -> Local:
    data = {"kind": "language", "tokens": 10_000, "vocabulary": 300, "length": 16}
    job = parse_job({"name": "a", "data": data, "model": model, "train": {"batch": 2, "steps": 50, **train}})
    assert isinstance(job.data, DeclaredData)
    dataset = declared_dataset(job.data)
    return Local(job, decide(job, dataset, Reasons([])), dataset, device())


@pytest.mark.slow
def test_a_step_is_traced_once_for_plans_that_differ_in_what_no_trace_tells() -> None:
    apart = here().trace(WAY)
    with remembering():
        first = here().trace(WAY)
        assert first is not apart and first.ops == apart.ops
        for other in (here(steps=70), here(learning_rate=0.5), here(batch=8)):
            assert other.trace({**WAY, "micro_batch": 1}) is not None
        assert here(steps=70).trace(WAY) is first
        assert here(learning_rate=0.5).trace(WAY) is first
    assert here().trace(WAY) is not first


OTHERS: dict[str, Callable[[], Trace]] = {
    "samples": lambda: here().trace({**WAY, "micro_batch": 2}),
    "precision": lambda: here().trace({**WAY, "precision": "bf16"}),
    "checkpointing": lambda: here().trace({**WAY, "checkpointing": "full"}),
    "optimizer": lambda: here(optimizer="sgd").trace(WAY),
    "clipping": lambda: here(clip=0).trace(WAY),
    "width": lambda: here("gpt-nano@2x48x2").trace(WAY),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", OTHERS)
def test_a_step_that_differs_is_traced_for_itself(what: str) -> None:
    with remembering():
        first, other = here().trace(WAY), OTHERS[what]()
        assert other is not first
        assert OTHERS[what]() is other
        assert here().trace(WAY) is first


NET = """
from torch import nn

def net(vocabulary, length):
    return nn.Sequential(nn.Embedding(vocabulary, 8), nn.Linear(8, vocabulary))
"""


@pytest.mark.slow
def test_models_of_others_are_traced_anew(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(NET)
    with remembering():
        assert here(f"{tmp_path}/nets:net").trace(WAY) is not here(f"{tmp_path}/nets:net").trace(WAY)


def test_what_dry_runs_tell_each_other_is_kept_as_long() -> None:
    learning = here().learning
    other = replace(learning, model=here("gpt-nano@2x48x2").learning.model)
    with hearsay(learning) as told:
        told.tell({"a": 1}, listeners=0)
    with remembering():
        with hearsay(learning) as told:
            assert told.told_before() == {}, "that was told to nobody else"
            told.tell({"b": 2}, listeners=0)
        with remembering(), hearsay(learning) as again:
            assert again.told_before() == {"b": 2}
        with hearsay(other) as told:
            assert told.told_before() == {}
        with hearsay(learning) as again:
            assert again.told_before() == {"b": 2}
