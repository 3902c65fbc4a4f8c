"""What a world of ranks decides without a message: who measures which batch, which gradients travel together."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thrifty.data import Store
from thrifty.data.batches import Batches
from thrifty.errors import DiskFullError, JobError, SignalledError, ThriftyError
from thrifty.evaluate import evaluate
from thrifty.optim.buckets import LARGE_BYTES, buckets_of
from thrifty.train.ranks import ALONE, World


@given(batches=st.integers(0, 30), ranks=st.integers(1, 6))
def test_batches_are_shared_as_many_to_each(batches: int, ranks: int) -> None:
    made = [{"x": np.array([number]), "y": np.array([number])} for number in range(batches)]
    shares = [list(World(rank, ranks).share(made)) for rank in range(ranks)]
    assert {len(share) for share in shares} == {-(-batches // ranks)}
    counted = [int(batch["y"][0]) for share in shares for batch in share if "y" in batch]
    assert sorted(counted) == list(range(batches))


def test_a_batch_without_answers_is_not_counted() -> None:
    batch = {"x": np.eye(4, dtype=np.float32), "y": np.array([0, 1, 2, 0])}
    model = nn.Identity()
    whole = evaluate(model, [batch], "classify")
    assert evaluate(model, [batch, {"x": batch["x"]}], "classify") == whole
    # as each of two ranks with the same batch would get it
    both = evaluate(model, [batch], "classify", add_up=lambda sums: 2 * sums)
    assert both.metrics["samples"] == 8
    assert (both.metrics["accuracy"], both.metrics["loss"]) == (whole.metrics["accuracy"], whole.metrics["loss"])


def test_a_rank_without_samples_computes_along_with_no_answer(store: Store) -> None:
    shares = [Batches(store, batch=3, micro=1, seed=0, rank=rank, ranks=2, along=True).step(0) for rank in range(2)]
    assert [len(share) for share in shares] == [2, 2]
    answers = [batch["y"].tolist() for share in shares for batch in share]
    assert answers.count([-100]) == 1
    alone = Batches(store, batch=3, micro=1, seed=0).step(0)
    assert sorted(y for y in answers if y != [-100]) == sorted(batch["y"].tolist() for batch in alone)


@given(sizes=st.lists(st.tuples(st.integers(1, 3 * LARGE_BYTES // 4), st.booleans()), max_size=8))
def test_gradients_travel_in_groups_of_a_kind(sizes: list[tuple[int, bool]]) -> None:
    kinds = {True: torch.bfloat16, False: torch.float32}
    parameters = [torch.empty(size, dtype=kinds[half], device="meta") for size, half in sizes]
    buckets = buckets_of(parameters)
    assert sorted(at for bucket in buckets for at in bucket) == list(range(len(parameters)))
    for bucket in buckets:
        assert len({parameters[at].dtype for at in bucket}) == 1
        held = sum(parameters[at].numel() * parameters[at].element_size() for at in bucket)
        assert len(bucket) == 1 or held <= 25 << 20
        assert bucket == sorted(bucket, reverse=True)


def test_one_process_alone_draws_as_it_did() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with ALONE.own_draws():
        assert torch.equal(torch.rand(4), expected)


def test_ranks_draw_numbers_of_their_own_and_go_on_alike() -> None:
    drawn, after = [], []
    for rank in range(2):
        torch.manual_seed(3)
        with World(rank, 2).own_draws():
            drawn.append(torch.rand(4))
        after.append(torch.rand(4))
    assert not torch.equal(*drawn)
    assert torch.equal(*after)


@pytest.mark.parametrize(
    "error",
    [
        JobError("no such thing", mend="Mend it.", nearest="thing"),
        SignalledError("step 3 is saved", signal="SIGTERM", number=15),
        DiskFullError("full"),
    ],
)
def test_errors_reach_another_process_as_they_are(error: ThriftyError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
    assert again.exit_code == error.exit_code
