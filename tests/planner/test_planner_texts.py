"""Texts: memory by the longest batch, time by the mean length, and the way of batching chosen by its price."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_devices import device
from thrifty.data.texts.packing import row_size
from thrifty.errors import JobError
from thrifty.planner import plan
from thrifty.planner.explore import explore
from thrifty.planner.learning import decide
from thrifty.planner.lengths import (
    PackedShape,
    evaluation_ratio,
    lengths_met,
    mean_length,
    packed_largest,
    packed_met,
    packed_shape,
)
from thrifty.planner.local import Local
from thrifty.planner.rules import Reasons
from thrifty.planner.steps import batch_of
from thrifty.spec import LENGTH_MULTIPLE, Cleaning, Dataset, Plan, Spent, parse_job

COUNTS = st.lists(st.integers(0, 60), min_size=1, max_size=12).filter(sum).map(tuple)


def texts(counts: tuple[int, ...] = (3000, 2000, 600, 200, 80, 40, 20, 10)) -> Dataset:
    held_out = tuple(-(-count // 10) for count in counts)
    lengths = {"train": counts, "validation": held_out, "test": held_out}
    return Dataset(
        kind="text", key="k", counts={part: sum(each) for part, each in lengths.items()}, labels=("bad", "good"),
        label_counts={}, shape=(len(counts) * LENGTH_MULTIPLE,), mean=(), std=(), crop="none", vocabulary=500,
        tokens={}, text_bytes={}, source_bytes=0, stored_bytes=0, lengths=lengths,
        cleaning=Cleaning(seen=0, kept=0, rejected={}, duplicates=0, across_splits=0),
    )  # fmt: skip


@given(counts=COUNTS, batch=st.integers(1, 40), micro=st.integers(1, 40))
def test_like_lengths_together_are_never_padded_more(counts: tuple[int, ...], batch: int, micro: int) -> None:
    data = texts(counts)
    grouped, padded = (mean_length(data, batch=batch, micro=micro, batching=how) for how in ("by_length", "padded"))
    mean = np.average(LENGTH_MULTIPLE * np.arange(1, len(counts) + 1), weights=counts)
    assert mean - LENGTH_MULTIPLE < grouped <= padded + LENGTH_MULTIPLE
    assert padded <= data.shape[0]
    assert grouped % LENGTH_MULTIPLE == padded % LENGTH_MULTIPLE == 0


def test_a_batch_is_of_the_longest_texts_or_of_a_length() -> None:
    assert batch_of(texts(), 4) == {"x": ((4, 64), "int64"), "y": ((4,), "int64")}
    assert batch_of(texts(), 4, 24)["x"] == ((4, 24), "int64")


def test_rules_of_texts() -> None:
    why = Reasons([])
    job = parse_job({"name": "a", "data": {"kind": "text", "path": "x"}, "model": "bert-tiny"})
    learning = decide(job, texts(), why)
    assert (learning.task, learning.size, learning.optim.optimizer) == ("classify", 32, "adamw")
    assert (learning.optim.learning_rate, learning.optim.clip) == (5e-4, 1.0)
    assert learning.model.arguments["classes"] == 2
    assert learning.stop.metric == "accuracy"


def test_several_labels_are_planned_as_they_are_learned() -> None:
    data = texts().model_copy(update={"task": "tag", "labels": ("a", "b", "c")})
    assert batch_of(data, 4, 24) == {"x": ((4, 24), "int64"), "y": ((4, 3), "float32")}
    assert batch_of(data, 4, PackedShape(64, ((2, 24), (3, 8))))["y"] == ((5, 3), "float32")
    asked = {"name": "a", "data": {"kind": "text", "path": "x"}, "task": "tag", "model": "bert-tiny"}
    learning = decide(parse_job(asked), data, Reasons([]))
    assert (learning.task, learning.stop.metric, learning.stop.higher_is_better) == ("tag", "micro_f1", True)
    assert learning.model.arguments["classes"] == 3
    with pytest.raises(JobError, match="of several labels each is told by itself"):
        decide(parse_job({**asked, "train": {"label_smoothing": 0.1}}), data, Reasons([]))
    with pytest.raises(JobError, match="task 'tag' has no target 'accuracy'"):
        parse_job({**asked, "target": {"accuracy": 0.9}})


def here(**pins: Any) -> Local:
    job = parse_job(
        {
            "name": "a",
            "data": {"kind": "text", "path": "x"},
            "model": "bert-tiny",
            "train": {"epochs": 2},
            "plan": {"precision": "fp32", **pins},
        }
    )
    data = texts()
    return Local(job, decide(job, data, Reasons([])), data, device())


@pytest.mark.slow
@pytest.mark.usefixtures("no_dry_run")
def test_weights_in_bf16_are_trained_in_all_rows() -> None:
    job = {"name": "a", "data": {"kind": "text", "path": "x"}, "model": "bert-tiny", "train": {"epochs": 2}}
    data = texts().model_copy(update={"vocabulary": 30_000})

    def decided(**pins: Any) -> Plan:
        wanted = parse_job({**job, "plan": {"batching": "padded", **pins}})
        return plan(wanted, data, device(), key="k", spent=Spent())

    assert decided(precision="bf16").rows == "used"
    found = decided(precision="bf16_compensated")
    assert found.rows == "all"
    (line,) = [line for line in found.why if line.field == "rows"]
    assert (line.value, "float32" in line.reason) == ("all", True)
    with pytest.raises(JobError, match=r"plan\.rows is used"):
        decided(precision="bf16_stochastic", rows="used")


@pytest.mark.slow
def test_memory_goes_by_the_longest_and_time_by_the_mean() -> None:
    local = here()
    way = {"precision": "fp32", "memory_format": "contiguous", "checkpointing": "none", "micro_batch": 32}
    grouped, padded = ({**way, "batching": how} for how in ("by_length", "padded"))
    assert (local.length(grouped), local.length(padded)) == (16, 40)
    assert local.trace(grouped) is local.trace(padded)
    assert local.trace(grouped).forward_flops > 3 * local.typical(grouped).forward_flops
    cheap, dear = local.price(grouped), local.price(padded)
    assert cheap.seconds < 0.8 * dear.seconds
    assert cheap.peak_bytes == dear.peak_bytes


@pytest.mark.slow
def test_packed_texts_take_time_and_memory_by_their_tokens() -> None:
    local = here()
    way = {"precision": "fp32", "memory_format": "contiguous", "checkpointing": "none", "micro_batch": 32}
    packed, padded = (local.price({**way, "batching": how}) for how in ("packed", "padded"))
    assert packed.seconds < 0.6 * padded.seconds
    assert packed.peak_bytes < padded.peak_bytes
    assert local.length({**way, "batching": "packed"}) == 11


@pytest.mark.slow
@pytest.mark.usefixtures("no_dry_run")
@pytest.mark.parametrize("pin", [None, "padded", "packed"])
def test_the_way_of_batching_is_chosen_by_its_price(pin: str | None) -> None:
    local = here(**({"batching": pin} if pin else {}))
    decided: Plan = plan(local.job, local.dataset, local.device, key="k", spent=Spent())
    (line,) = [line for line in decided.why if line.field == "batching"]
    ways = explore(local).feasible
    if pin:
        assert (decided.batch.batching, line.reason) == (pin, "asked for in the job")
        assert {way.settings["batching"] for way in ways} == {pin}
        assert decided.batch.evaluation == (decided.batch.micro if pin == "packed" else 64)
        return
    cheapest = min(ways, key=lambda way: way.price.seconds)
    assert decided.batch.batching == cheapest.settings["batching"] == "packed", "lengths differ much, batches are small"
    assert line.reason.startswith("by-length would take ")
    assert "each attends to itself alone (Krell et al. 2021)" in line.reason
    assert "tokens that a text takes in the mean: padded 40, packed 11, by-length 16" in line.reason


def test_a_model_that_cannot_is_not_offered_packed_texts() -> None:
    local = here()
    learning = replace(local.learning, traits=replace(local.learning.traits, packs=False))
    assert local.dimensions()["batching"] == ("padded", "packed", "by_length")
    assert replace(local, learning=learning).dimensions()["batching"] == ("padded", "by_length")
    pinned = here(batching="packed")
    assert pinned.dimensions()["batching"] == ("packed",)
    with pytest.raises(JobError, match=r"model 'bert-tiny' takes no packed texts\. It takes: padded, by_length\."):
        replace(pinned, learning=learning)


@given(counts=COUNTS, batch=st.integers(1, 40), micro=st.integers(1, 40))
def test_packed_rows_are_foreseen(counts: tuple[int, ...], batch: int, micro: int) -> None:
    data = texts(counts)
    mean, largest = (found(data, batch=batch, micro=micro) for found in (packed_shape, packed_largest))
    met = packed_met(data, batch=batch, micro=micro)
    assert [each.tokens for each in met] == sorted({each.tokens for each in met})
    assert min(each.tokens for each in met) <= mean.tokens <= largest.tokens
    assert max(each.tokens for each in met) <= largest.tokens <= row_size(micro * data.shape[0])
    assert largest.grids[-1][1] == data.shape[0]
    ratio = evaluation_ratio(data, 8, batch=batch, micro=micro, batching="packed")
    assert ratio == 8 * data.shape[0] / largest.tokens
    assert evaluation_ratio(data, 8, batch=batch, micro=micro, batching="padded") == 8 / micro


def test_a_packed_batch_has_the_places_of_its_groups() -> None:
    batch = batch_of(texts(), 4, PackedShape(104, ((3, 8), (2, 40))))
    assert batch == {
        "x": ((1, 104), "int64"), "y": ((5,), "int64"), "places0": ((3, 8), "int64"), "places1": ((2, 40), "int64"),
    }  # fmt: skip


def test_other_data_has_one_way_of_batching() -> None:
    job = parse_job(
        {
            "name": "a",
            "data": {"kind": "image", "path": "x"},
            "model": "mlp-small",
            "plan": {"batching": "by_length"},
        }
    )
    images = texts().model_copy(update={"kind": "image", "shape": (1, 8, 8), "mean": (0.5,), "std": (0.5,)})
    with pytest.raises(JobError, match="samples of data of kind 'image' are all of one size"):
        Local(job, decide(job, images, Reasons([])), images, device())


def test_lengths_that_batches_have() -> None:
    data = texts((40, 0, 30, 0, 10))
    assert lengths_met(data, batch=4, micro=4, batching="by_length") == (8, 24, 40)
    assert set(lengths_met(data, batch=80, micro=80, batching="padded")) == {40}
    with pytest.raises(KeyError):
        lengths_met(data.model_copy(update={"lengths": {}}), batch=4, micro=4, batching="padded")


def heap_by_lengths() -> None:
    """What oneDNN compiles for each shape stays: a dry run of the longest batch alone would miss it."""
    local = here(precision="bf16")
    way = {"precision": "bf16", "memory_format": "contiguous", "checkpointing": "none", "micro_batch": 32}
    found = [local.dry_run({**way, "batching": how}, 32).heap for how in ("by_length", "padded")]
    if None in found:
        return
    longest = replace(local, dataset=local.dataset.model_copy(update={"lengths": {"train": (0,) * 7 + (64,)}}))
    alone = longest.dry_run({**way, "batching": "padded"}, 32).heap
    assert alone is not None and found[0] is not None
    assert found[0].step > alone.step


@pytest.mark.slow
def test_the_heap_holds_what_each_length_leaves() -> None:
    # in a process of its own: the heap of one that ran other tests has holes of its own
    paths = [str(Path(__file__).parent), *sys.path]
    program = f"import sys; sys.path[:0] = {paths!r}; import test_planner_texts as t; t.heap_by_lengths()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
