"""Tokens are chosen by a text's own wishes and numbers: by the probabilities, and whatever the neighbours are."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thrifty.models.drawing import choose
from thrifty.models.wishes import Wishes

WISHES = st.builds(
    Wishes,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    top_k=st.sampled_from([None, 1, 2, 5, 40, 5000]),
    top_p=st.sampled_from([1.0, 0.9, 0.5, 0.01]),
)


def expected(logits_V: torch.Tensor, wish: Wishes) -> torch.Tensor:
    """The probability of each token, by the definition."""
    if wish.temperature == 0:
        return torch.nn.functional.one_hot(logits_V.argmax(), len(logits_V)).double()
    shares_V = (logits_V.double() / wish.temperature).softmax(-1)
    best_V, index_V = shares_V.sort(descending=True)
    keep_V = torch.arange(len(best_V)) < (wish.top_k or len(best_V))
    best_V = best_V * keep_V / (best_V * keep_V).sum()
    best_V = best_V * (best_V.cumsum(0) - best_V < wish.top_p)
    return torch.zeros_like(best_V).scatter_(0, index_V, best_V / best_V.sum())


@settings(max_examples=60, deadline=None)
@given(wish=WISHES, seed=st.integers(0, 9), vocabulary=st.sampled_from([3, 300, 1500]))
def test_draws_are_by_the_probabilities(wish: Wishes, seed: int, vocabulary: int) -> None:
    logits_V = 3 * torch.randn(vocabulary, generator=torch.Generator().manual_seed(seed))
    numbers = [(each + 0.5) / 200 for each in range(200)]
    drawn = choose(logits_V.expand(200, -1).contiguous(), [wish] * 200, numbers)
    share_V = torch.bincount(torch.tensor(drawn), minlength=vocabulary) / 200
    # numbers that are evenly spread meet each token's share to within one of them at each end
    assert float((share_V - expected(logits_V, wish)).abs().max()) <= 2 / 200


@settings(max_examples=40, deadline=None)
@given(wishes=st.lists(WISHES, min_size=1, max_size=6), seed=st.integers(0, 9), flat=st.booleans())
def test_neighbours_do_not_matter(wishes: list[Wishes], seed: int, flat: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits_BV = torch.randn(len(wishes), 1500, generator=generator) * (0.01 if flat else 4)
    numbers = torch.rand(len(wishes), generator=generator).tolist()
    together = choose(logits_BV, wishes, numbers)
    assert together == [
        choose(logits_BV[at : at + 1], [wish], [number])[0]
        for at, (wish, number) in enumerate(zip(wishes, numbers, strict=True))
    ]


@pytest.mark.parametrize("wish", [Wishes(), Wishes(top_k=3), Wishes(top_p=0.999)], ids=str)
def test_the_ends_of_the_range_give_a_token(wish: Wishes) -> None:
    logits_BV = torch.tensor([[0.0, 5.0, -float("inf"), 1.0]])
    for number in (0.0, 1 - 2**-53):
        (token,) = choose(logits_BV, [wish], [number])
        assert token in {0, 1, 3}
