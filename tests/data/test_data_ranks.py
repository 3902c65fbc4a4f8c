"""Steps dealt to ranks: every sample once, as many micro-batches on each, whatever the sizes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from thrifty.data.order import deal


@given(
    samples=st.integers(1, 40),
    micro=st.integers(1, 12),
    ranks=st.integers(1, 5),
    by_length=st.booleans(),
    data=st.data(),
)
def test_ranks_share_a_step(samples: int, micro: int, ranks: int, by_length: bool, data: st.DataObject) -> None:
    lengths = np.array(data.draw(st.lists(st.integers(1, 99), min_size=50, max_size=50))) if by_length else None
    step = np.random.default_rng(samples).permutation(50)[:samples]
    parts = deal(step, micro, lengths, ranks)
    assert sorted(np.concatenate(parts)) == sorted(step)
    shares = [parts[rank::ranks] for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1
    assert max(map(len, parts)) <= micro
    sizes = [sum(map(len, share)) for share in shares]
    assert max(sizes) - min(sizes) <= len(shares[0])
    # no more micro-batches than there must be
    assert len(shares[0]) == -(-samples // (micro * ranks))


@given(samples=st.integers(1, 40), micro=st.integers(1, 12), ranks=st.integers(2, 5))
def test_ranks_together_compute_the_micro_batches_of_one_that_takes_as_many(
    samples: int, micro: int, ranks: int
) -> None:
    step = np.arange(samples)
    parts = deal(step, micro, ranks=ranks)
    together = [np.concatenate(parts[at : at + ranks]).tolist() for at in range(0, len(parts), ranks)]
    assert together == [part.tolist() for part in deal(step, micro * ranks)]
