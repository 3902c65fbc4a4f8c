"""Documents told apart: foreseen by what windows cut of them, priced, and decided with a reason."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_devices import device
from thrifty.data.documents.prepare import pieces_by_length
from thrifty.data.texts.packing import places_of
from thrifty.errors import JobError
from thrifty.models import traits
from thrifty.planner.learning import decide
from thrifty.planner.lengths import packed_largest, packed_met, packed_shape
from thrifty.planner.local import Local
from thrifty.planner.rules import Reasons
from thrifty.planner.steps import batch_of
from thrifty.spec import Cleaning, Dataset, parse_job

LENGTH = 64
SETTINGS = {"precision": "fp32", "memory_format": "contiguous", "checkpointing": "none", "micro_batch": 4}


def corpus(sizes: list[int], length: int = LENGTH) -> Dataset:
    """Documents of so many tokens, end tokens included."""
    begins, tokens = np.cumsum([0, *sizes[:-1]]), sum(sizes)
    lengths = pieces_by_length(begins, tokens, length)
    return Dataset(
        kind="language", task="language", key="k", counts={"train": tokens // length + 1, "validation": 9, "test": 9},
        labels=(), label_counts={}, shape=(length,), mean=(), std=(), crop="none", vocabulary=300,
        tokens={"train": tokens}, text_bytes={}, source_bytes=0, stored_bytes=0, lengths={"train": lengths},
        cleaning=Cleaning(seen=0, kept=0, rejected={}, duplicates=0, across_splits=0),
    )  # fmt: skip


def local(dataset: Dataset, documents: str | None, model: str = "gpt-nano") -> tuple[Local, Reasons]:
    data = {"kind": "language", "path": "x", **({"documents": documents} if documents else {})}
    job, why = parse_job({"name": "a", "data": data, "model": model}), Reasons([])
    return Local(job, decide(job, dataset, why), dataset, device()), why


@given(sizes=st.lists(st.integers(1, 200), min_size=1, max_size=60))
@settings(max_examples=30, deadline=None)
def test_pieces_are_those_that_windows_cut(sizes: list[int]) -> None:
    stream = np.concatenate([[0, *[1] * (size - 1)] for size in sizes])
    found = []
    for at in range(0, len(stream), LENGTH):
        window = stream[at : at + LENGTH]
        begins = np.union1d([0], np.flatnonzero(window == 0))
        found += np.diff(begins, append=len(window)).tolist()
    counted = np.bincount((np.array(found) - 1) // 8, minlength=LENGTH // 8)
    dataset = corpus(sizes)
    assert dataset.lengths["train"] == tuple(counted.tolist())
    assert dataset.piece == pytest.approx(np.mean(found))


@given(sizes=st.lists(st.integers(1, 200), min_size=20, max_size=60), micro=st.integers(1, 16))
@settings(max_examples=10, deadline=None)
def test_rows_of_documents_are_foreseen(sizes: list[int], micro: int) -> None:
    data = corpus(sizes)
    mean, largest = (found(data, batch=micro, micro=micro) for found in (packed_shape, packed_largest))
    assert mean.tokens == largest.tokens == micro * LENGTH
    assert [each.tokens for each in packed_met(data, batch=micro, micro=micro)] == [mean.tokens]
    assert sum(n for n, _ in largest.grids) >= sum(n for n, _ in mean.grids)
    assert largest.grids[-1][1] == LENGTH
    batch = batch_of(data, micro, mean)
    assert batch["x"] == batch["y"] == ((1, micro * LENGTH), "int64")


def test_what_is_foreseen_is_what_is_made() -> None:
    sizes = np.random.default_rng(0).integers(5, 40, 3000).tolist()
    data = corpus(sizes)
    begins = np.union1d(np.cumsum([0, *sizes[:-1]]), np.arange(0, sum(sizes), LENGTH))
    lengths = np.diff(begins[begins <= 16 * LENGTH])
    made = [each.shape for each in places_of(lengths).values()]
    mean = packed_shape(data, batch=16, micro=16)
    assert len(made) == len(mean.grids)
    for (many, longest), (wanted, padded) in zip(made, mean.grids, strict=True):
        assert abs(many - wanted) <= 4 and abs(longest - padded) <= 8


@pytest.mark.slow
def test_documents_apart_are_priced_as_they_are_computed() -> None:
    data = corpus([12] * 400, 256)
    apart, joined = local(data, "apart")[0], local(data, "joined")[0]
    assert apart.dimensions()["batching"] == ("packed",) and "batching" not in joined.dimensions()
    packed = {**SETTINGS, "batching": "packed"}
    one, other = (
        sum(op.flops for op in each.typical(way).ops if op.kind == "attention")
        for each, way in ((apart, packed), (joined, SETTINGS))
    )
    assert 0 < one < other / 8
    priced = apart.price(packed), joined.price(SETTINGS)
    assert min(each.seconds for each in priced) > 0
    assert priced[0].peak_bytes == pytest.approx(priced[1].peak_bytes, rel=0.5)


def test_who_cannot_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    data = corpus([12] * 400)
    monkeypatch.setitem(traits.FAMILIES, "gpt", traits.Traits(attends=True))
    with pytest.raises(
        JobError, match=r"data\.documents is apart, and model 'gpt-nano' takes whole windows alone.*llama"
    ):
        local(data, "apart")
    found, why = local(data, None)
    assert not found.learning.apart
    (line,) = [each for each in why.lines if each.field == "documents"]
    assert (line.value, line.reason) == ("joined", "the model takes whole windows alone")
