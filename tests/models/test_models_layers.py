"""Every way of computing attention gives the same values and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from thrifty.errors import JobError
from thrifty.models import layers
from thrifty.models.gpt import GPT
from thrifty.models.layers import ATTENTION, WRITTEN_OUT_LENGTH, AttentionKernel, fastest_attention, use_attention


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


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_chunks_of_queries_are_the_whole(causal: bool, padded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "QUERIES_AT_ONCE", 5)
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(3, 2, 3, 13, 8, dtype=torch.float64, generator=generator, requires_grad=True)
    bias = torch.zeros(2, 1, 1, 13, dtype=torch.float64)
    bias[1, ..., 9:] = -math.inf
    found = []
    for name in ("written_out", "in_chunks"):
        out = ATTENTION[name](*qkv.unbind(0), causal, bias if padded else None)
        found.append((out, *torch.autograd.grad(out.square().sum(), qkv)))
    torch.testing.assert_close(found[1], found[0])


def test_a_table_decides_by_dtype_and_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    def noting(name: str, way: AttentionKernel) -> AttentionKernel:
        return lambda *args: called.append(name) or way(*args)  # type: ignore[func-returns-value]

    for name, way in list(ATTENTION.items()):
        monkeypatch.setitem(ATTENTION, name, noting(name, way))
    model = GPT(vocabulary=9, length=4, layers=1, width=8, heads=2)
    use_attention(model, {"float32 training": "written_out", "float32 evaluation": "in_chunks"})
    tokens_BT = torch.zeros(1, 4, dtype=torch.int64)
    model(tokens_BT)
    with torch.no_grad():
        model(tokens_BT)
    model.double()(tokens_BT)
    assert called == ["written_out", "in_chunks", "sdpa"]


def test_an_unknown_way_is_named() -> None:
    with pytest.raises(JobError, match=r"unknown way of attention 'sdp'.*'sdpa'"):
        use_attention(GPT(vocabulary=9, length=4, layers=1, width=8, heads=2), {"float32 training": "sdp"})


def test_the_choice() -> None:
    def chosen(dtype: torch.dtype, length: int) -> str:
        return fastest_attention(torch.empty(1, 1, length, 8, dtype=dtype))

    assert chosen(torch.bfloat16, 128) == "written_out"
    assert chosen(torch.bfloat16, WRITTEN_OUT_LENGTH + 1) == "sdpa"
    assert chosen(torch.float32, 128) == "sdpa"
    with torch.no_grad():
        assert chosen(torch.bfloat16, 128) == "sdpa"
