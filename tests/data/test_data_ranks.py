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


@given(samples=st.integers(1, 40), micro=st.integers(1, 12))
def test_one_rank_computes_the_same_micro_batches_as_two_where_they_come_out_even(samples: int, micro: int) -> None:
    step = np.arange(samples)
    one, two = deal(step, micro), deal(step, micro, ranks=2)
    if len(one) % 2 == 0:
        assert [part.tolist() for part in one] == [part.tolist() for part in two]
