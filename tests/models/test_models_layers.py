"""Every way of computing attention gives the same values and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from thrifty.models.layers import ATTENTION, WRITTEN_OUT_LENGTH, fastest_attention


def by_hand(q_TD: Tensor, k_SD: Tensor, v_SD: Tensor) -> Tensor:
    """One head by the definition (Vaswani et al. 2017, section 3.2.1), a token at a time."""
    rows = []
    for t in range(len(q_TD)):
        seen = t + 1 + len(k_SD) - len(q_TD)
        weights = (k_SD[:seen] @ q_TD[t] / math.sqrt(q_TD.shape[1])).softmax(0)
        rows.append(weights @ v_SD[:seen])
    return torch.stack(rows)


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize(("tokens", "seen"), [(1, 1), (7, 7), (33, 33), (1, 9)])
def test_values_and_gradients(name: str, tokens: int, seen: int) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(2, 3, n, 8, dtype=torch.float64, generator=generator, requires_grad=True)
        for n in (tokens, seen, seen)
    )
    out = ATTENTION[name](q, k, v, tokens > 1)
    heads = [[by_hand(q[b, h], k[b, h], v[b, h]) for h in range(3)] for b in range(2)]
    expected = torch.stack([torch.stack(row) for row in heads])
    torch.testing.assert_close(out, expected)
    pull = torch.randn(out.shape, dtype=torch.float64, generator=generator)
    gradients = torch.autograd.grad(out, (q, k, v), pull)
    for got, wanted in zip(gradients, torch.autograd.grad(expected, (q, k, v), pull), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("name", ATTENTION)
def test_bf16_stays_bf16_and_close(name: str) -> None:
    q, k, v = torch.randn(3, 2, 4, 64, 32, generator=torch.Generator().manual_seed(0)).unbind(0)
    out = ATTENTION[name](q.bfloat16(), k.bfloat16(), v.bfloat16(), True)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), ATTENTION[name](q, k, v, True), rtol=0.05, atol=0.02)


def test_the_choice() -> None:
    def chosen(dtype: torch.dtype, length: int) -> str:
        return fastest_attention(torch.empty(1, 1, length, 8, dtype=dtype))

    assert chosen(torch.bfloat16, 128) == "written_out"
    assert chosen(torch.bfloat16, WRITTEN_OUT_LENGTH + 1) == "sdpa"
    assert chosen(torch.float32, 128) == "sdpa"
    with torch.no_grad():
        assert chosen(torch.bfloat16, 128) == "sdpa"
