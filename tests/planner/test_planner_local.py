"""Ways here: blocks are computed again where memory is short, tried only where that can win, and run within budget."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import Tensor, nn

from made_devices import device
from thrifty.cost import HeapPeak
from thrifty.errors import BudgetError, JobError
from thrifty.ledger import Ledger
from thrifty.models.recompute import repeated_blocks
from thrifty.planner import declared_dataset, plan, remembered
from thrifty.planner.explore import explore
from thrifty.planner.here import propose_here
from thrifty.planner.learning import decide
from thrifty.planner.local import Local
from thrifty.planner.rules import Reasons
from thrifty.spec import DeclaredData, Plan, Spent, parse_job
from thrifty.spec.proposal import Doubling

# each plan traces a real model
pytestmark = pytest.mark.slow

MIB = 1 << 20
PLAIN = {"precision": "fp32", "memory_format": "contiguous"}


def here(*, memory: float = 0, batch: int = 1, model: str = "gpt-nano", **pins: Any) -> Local:
    job = parse_job(
        {
            "name": "a",
            "data": {"kind": "language", "tokens": 1_000_000, "vocabulary": 300, "length": 512},
            "model": model,
            "train": {"batch": batch, "steps": 50},
            "budget": {"memory": f"{memory:.0f}B"} if memory else {},
            "plan": {"precision": "fp32", **pins},
        }
    )
    assert isinstance(job.data, DeclaredData)
    dataset = declared_dataset(job.data)
    return Local(job, decide(job, dataset, Reasons([])), dataset, device())


def planned(local: Local) -> Plan:
    return plan(local.job, local.dataset, local.device, key="k", spent=Spent())


def reason(decided: Plan) -> str:
    (line,) = [line for line in decided.why if line.field == "checkpointing"]
    return line.reason


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    def set_to(seconds: float) -> None:
        monkeypatch.setattr("thrifty.planner.explore.LEAST_PATIENCE_SECONDS", seconds)
        monkeypatch.setattr("thrifty.planner.explore.MOST_PATIENCE_SECONDS", seconds)

    return set_to


@pytest.fixture(scope="module")
def highs() -> dict[str, float]:
    """The most that one sample at a time may take, by what is computed again."""
    local = here()
    return {
        how: local.peak({**PLAIN, "checkpointing": how, "micro_batch": 1}).high
        for how in local.dimensions()["checkpointing"]
    }


@pytest.mark.usefixtures("no_dry_run")
def test_a_budget_takes_as_much_checkpointing_as_it_needs(highs: dict[str, float]) -> None:
    assert highs["full"] < highs["selective"] < highs["none"]
    for how, high in highs.items():
        decided = planned(here(memory=1.001 * high))
        assert decided.checkpointing == how
        assert decided.cost.peak_bytes.high <= 1.001 * high
        if how != "none":
            assert reason(decided).startswith("without it one sample at a time needs up to")


def low(how: str) -> float:
    return here().peak({**PLAIN, "checkpointing": how, "micro_batch": 1}).low


@pytest.mark.usefixtures("no_dry_run")
def test_a_refusal_names_what_would_do_with_checkpointing() -> None:
    with pytest.raises(BudgetError, match=r"one sample at a time needs about .*, with full checkpointing. Raise"):
        planned(here(memory=0.99 * low("full")))
    with pytest.raises(BudgetError, match=r"one sample at a time needs about [\d.]+ MiB. Raise"):
        planned(here(memory=0.99 * low("none"), checkpointing="none"))


@pytest.mark.usefixtures("no_dry_run")
def test_a_budget_that_the_leanest_way_may_fit_is_tried_with_it(highs: dict[str, float]) -> None:
    memory = 0.5 * (low("full") + highs["full"])
    decided = planned(here(memory=memory, batch=4))
    assert (decided.checkpointing, decided.batch.micro) == ("full", 1)
    assert decided.memory == pytest.approx(memory, abs=1) and decided.cost.peak_bytes.high > memory
    assert decided.cost.peak_bytes.low < memory


@pytest.mark.usefixtures("no_dry_run")
@pytest.mark.parametrize(("kept_mib", "again_mib", "how"), [(10, 10, "none"), (400, 10, "selective")])
def test_where_no_bound_fits_a_dry_run_tells_which_way_does(
    kept_mib: int, again_mib: int, how: str, highs: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def dry(*_: Any, keeping: str, **__: Any) -> HeapPeak:
        return HeapPeak(step=(kept_mib if keeping == "all" else again_mib) * MIB, evaluation=0)

    monkeypatch.setattr("thrifty.planner.dry.heap_peak", dry)
    memory = 0.99 * highs["full"]
    decided = planned(here(memory=memory, batch=4))
    assert decided.checkpointing == how
    assert decided.cost.peak_bytes.high <= memory


def test_what_is_held_before_the_run_is_taken_off_the_budget() -> None:
    local = replace(here(memory=1000 * MIB), held=100 * MIB)
    assert local.memory == (900 * MIB, "the budget of 1000 MiB less 100 MiB that are held before the run")


@pytest.mark.usefixtures("no_dry_run")
def test_a_pin_is_kept() -> None:
    decided = planned(here(checkpointing="selective"))
    assert (decided.checkpointing, reason(decided)) == ("selective", "asked for in the job")


@pytest.mark.usefixtures("no_dry_run")
def test_a_pinned_micro_batch_is_checkpointed_to_fit() -> None:
    local = here(batch=4, micro_batch=4)
    needed = {
        how: local.peak({**PLAIN, "checkpointing": how, "micro_batch": 4})
        for how in local.dimensions()["checkpointing"]
    }
    decided = planned(here(batch=4, micro_batch=4, memory=1.001 * needed["full"].high))
    assert (decided.checkpointing, decided.batch.micro) == ("full", 4)
    with pytest.raises(BudgetError, match=r"4 samples at a time need about .* checkpointing. Lower plan.micro_batch"):
        planned(here(batch=4, micro_batch=4, memory=0.99 * min(each.low for each in needed.values())))


def test_nothing_is_traced_that_cannot_win_once_patience_is_spent(patience: Callable[[float], None]) -> None:
    patience(0.0)
    assert {way.settings["checkpointing"] for way in explore(here(batch=4)).feasible} == {"none"}


@pytest.mark.usefixtures("no_dry_run")
def test_with_patience_the_table_shows_what_it_saves(patience: Callable[[float], None]) -> None:
    patience(1e9)
    local = here(batch=4)
    proposal = propose_here(local.job, local.dataset, local.device, key="k", top=8)
    chosen = proposal.offers[0]
    assert chosen.settings["checkpointing"] == "none"
    again = [row for row in proposal.offers if row.settings["checkpointing"] == "full"]
    assert again and "checkpointed" in again[0].says
    assert again[0].cost.peak_bytes.value < chosen.cost.peak_bytes.value
    assert again[0].cost.seconds.value > chosen.cost.seconds.value
    (line,) = [line for line in proposal.why if line.field == "checkpointing"]
    assert "less memory; what the backward pass needs fits" in line.reason


def test_where_memory_cuts_the_micro_batch_more_samples_at_once_are_tried(patience: Callable[[float], None]) -> None:
    patience(0.0)
    wide = here(batch=8)
    local = here(batch=8, memory=1.001 * wide.peak({**PLAIN, "checkpointing": "selective", "micro_batch": 8}).high)
    cut = local.largest({**PLAIN, "checkpointing": "none"})
    assert 1 <= cut < 8
    faster = wide.price({**PLAIN, "checkpointing": "none", "micro_batch": 8}).seconds
    assert faster < wide.price({**PLAIN, "checkpointing": "none", "micro_batch": cut}).seconds
    tried = {way.settings["checkpointing"]: way.settings["micro_batch"] for way in explore(local).feasible}
    assert tried["selective"] == 8


def test_a_way_that_proves_too_large_is_halved_then_computes_more_again() -> None:
    local = here(batch=4)
    way = local.way({**PLAIN, "checkpointing": "none", "micro_batch": 4})
    taken = []
    while (smaller := local.smaller(way)) is not None:
        way = smaller
        taken.append((way.settings["checkpointing"], way.settings["micro_batch"]))
    assert taken[:3] == [("none", 2), ("none", 1), ("selective", 4)]
    assert taken[-1] == ("full", 1)
    pinned = here(batch=4, micro_batch=4, checkpointing="full")
    assert pinned.smaller(pinned.way({**PLAIN, "checkpointing": "full", "micro_batch": 4})) is None


def test_a_way_is_priced_as_training_keeps_its_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**PLAIN, "checkpointing": "none", "micro_batch": 4}
    seconds = {}
    for keeps in ("all", "default"):
        # logits of 4 x 512 x 300 in fp32 are mapped for themselves where they are not kept
        monkeypatch.setattr("thrifty.cost.rates._FRESH_BYTES", 1 << 20)
        monkeypatch.setattr("thrifty.planner.local.keeping", lambda *_, keeps=keeps: keeps)
        seconds[keeps] = here(batch=4).price(settings).seconds
    assert seconds["all"] < seconds["default"]


def test_a_dry_run_computes_again_what_the_plan_does(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[nn.Module] = []
    monkeypatch.setattr("thrifty.planner.dry.heap_peak", lambda build, *_, **__: built.append(build()))
    monkeypatch.setattr("thrifty.planner.dry.runtime_bytes", lambda *_: {})
    local = here()
    for how in ("none", "full"):
        local.dry_run({**PLAIN, "checkpointing": how, "micro_batch": 1}, 1)
    own, again = (next(iter(repeated_blocks(model))).forward for model in built)
    assert not hasattr(own, "once") and hasattr(again, "once")


def test_a_validation_that_takes_the_peak_is_cut_before_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def heap(*_: Any, evaluation_batch: dict[str, Any], **__: Any) -> HeapPeak:
        return HeapPeak(step=10 * MIB, evaluation=200 * MIB * evaluation_batch["x"][0][0])

    monkeypatch.setattr("thrifty.planner.dry.runtime_bytes", lambda *_: {})
    monkeypatch.setattr("thrifty.planner.dry.heap_peak", heap)
    wide, tight = planned(here(batch=4)), planned(here(batch=4, memory=2048 * MIB))
    assert (wide.batch.evaluation, tight.batch.evaluation) == (16, 4)
    assert wide.batch.micro == tight.batch.micro == 4
    assert tight.cost.peak_bytes.high <= 2048 * MIB


class Fickle(nn.Module):
    """A block that computes something else every second time."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls = nn.Linear(16, 16), 0

    def forward(self, x_BTC: Tensor) -> Tensor:
        self.calls += 1
        out: Tensor = self.inner(x_BTC)
        return out.sin().exp().sigmoid() if self.calls % 2 else out.sin()


def test_a_model_that_does_not_bear_it_is_planned_without(
    monkeypatch: pytest.MonkeyPatch, patience: Callable[[float], None]
) -> None:
    patience(1e9)
    # what was traced of the model in whose place this one is
    monkeypatch.setattr(remembered, "_MEMORY", ContextVar("none", default=None))
    monkeypatch.setattr(
        "thrifty.planner.local.models.build",
        lambda *_: nn.Sequential(nn.Embedding(300, 16), Fickle(), Fickle(), nn.Linear(16, 300)),
    )
    local = here()
    with pytest.raises(JobError):
        local.trace({**PLAIN, "checkpointing": "full", "micro_batch": 1})
    found = explore(local)
    assert found.choice is not None
    assert {way.settings["checkpointing"] for way in found.feasible} == {"none"}
    with pytest.raises(BudgetError, match="one sample at a time needs about"):
        explore(here(memory=MIB))


DEEP = """
from thrifty.models.gpt import GPT


def deep(vocabulary, length):
    return GPT(vocabulary=vocabulary, length=length, layers=24, width=64, heads=2)
"""


def test_a_run_that_fits_by_checkpointing_alone_stays_within_its_budget(sources: Path, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(DEEP)
    budget = 660 * MIB
    job = {
        "name": "deep",
        "data": {
            "kind": "language",
            "path": str(sources),
            "files": "email/mime/*.py",
            "vocabulary": 300,
            "length": 2048,
        },
        "model": "nets:deep",
        "train": {"steps": 1, "batch": 1, "evaluations": 1},
        "budget": {"memory": f"{budget}B"},
        "plan": {"precision": "fp32", "threads": 1},
    }
    path, runs = tmp_path / "job.yaml", tmp_path / "runs"
    path.write_text(yaml.safe_dump(job))
    command = [sys.executable, "-m", "thrifty", "run", str(path), "--runs", str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (entry,) = Ledger(runs / "ledger.sqlite").entries()
    followed = Plan.model_validate_json(Path(entry.folder, "plan.json").read_text())
    assert followed.checkpointing == "full"
    assert reason(followed).startswith("without it one sample at a time needs up to")
    assert followed.cost.peak_bytes.value <= budget
    assert 0 < entry.total.peak_rss_bytes <= budget


@pytest.mark.usefixtures("no_dry_run")
def test_twice_the_memory_buys_what_memory_cut(highs: dict[str, float]) -> None:
    def memory_row(local: Local) -> Doubling:
        proposal = propose_here(local.job, local.dataset, local.device, key="k")
        assert {row.number for row in proposal.limited_by} == {"arithmetic", "memory bandwidth", "memory"}
        assert all(row.speedup >= 1 for row in proposal.limited_by)
        return next(row for row in proposal.limited_by if row.number == "memory")

    cut = memory_row(here(memory=1.001 * highs["full"]))
    assert cut.speedup > 1.01
    assert cut.says and "full" not in cut.says
    roomy = memory_row(here())
    assert (roomy.speedup, roomy.says) == (1.0, "")
