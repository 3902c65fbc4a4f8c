"""The chunked loss has the value and the gradients of the whole one, and never holds all logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from thrifty.models import chunked_loss, losses
from thrifty.models.chunked_loss import Pull, chunked_cross_entropy_sum, pull_in_place, pull_of
from thrifty.models.gpt import GPT
from thrifty.models.init import initialise
from thrifty.models.losses import IGNORED, LOSSES


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 20),
    at_once=st.integers(1, 25),
    vocabulary=st.integers(2, 9),
    multiple=st.sampled_from([1, 4, 8]),
    seed=st.integers(0, 99),
)
def test_value_and_gradients_are_those_of_the_whole(
    rows: int, at_once: int, vocabulary: int, multiple: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(vocabulary, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    y = torch.randint(vocabulary, (rows,), generator=generator)
    y[torch.rand(rows, generator=generator) < 0.3] = IGNORED
    whole = F.cross_entropy(hidden @ weight.T, y, ignore_index=IGNORED, reduction="sum")
    chunked, count = chunked_cross_entropy_sum(
        hidden, weight, y, ignored=IGNORED, rows_at_once=at_once, multiple=multiple
    )
    assert int(count) == int((y != IGNORED).sum())
    torch.testing.assert_close(chunked, whole)
    got = torch.autograd.grad(chunked * 0.7, (hidden, weight))
    for mine, wanted in zip(got, torch.autograd.grad(whole * 0.7, (hidden, weight)), strict=True):
        torch.testing.assert_close(mine, wanted)


def test_bf16_is_as_near_as_the_whole_loss_is() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(300, 32, generator=generator, requires_grad=True)
    weight = (torch.randn(500, 32, generator=generator) / 8).requires_grad_()
    y = torch.randint(500, (300,), generator=generator)
    exact = F.cross_entropy(hidden.double() @ weight.double().T, y, reduction="sum")
    wanted = torch.autograd.grad(exact, (hidden, weight))
    with torch.autocast("cpu", torch.bfloat16):
        whole = F.cross_entropy(F.linear(hidden, weight).float(), y, reduction="sum")
        chunked, _ = chunked_cross_entropy_sum(hidden, weight, y, ignored=IGNORED, rows_at_once=128)
    assert chunked.dtype == torch.float32
    usual = torch.autograd.grad(whole, (hidden, weight))
    mine = torch.autograd.grad(chunked, (hidden, weight))
    for got, plain, true in zip(mine, usual, wanted, strict=True):
        assert got.dtype == torch.float32
        assert float((got - true).norm()) < 1.2 * float((plain - true).norm())


@pytest.mark.parametrize("pull", [pull_of, pull_in_place])
def test_words_that_fill_up_have_no_part(pull: Pull) -> None:
    hidden, weight = torch.randn(6, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    y = torch.tensor([0, 4, IGNORED, 1, 2, 3])
    found = [
        chunked_cross_entropy_sum(hidden, weight, y, ignored=IGNORED, pull=pull, multiple=multiple)[0]
        for multiple in (1, 8)
    ]
    torch.testing.assert_close(found[1], found[0])
    gradients = [torch.autograd.grad(each, (hidden, weight)) for each in found]
    for filled, plain in zip(gradients[1], gradients[0], strict=True):
        assert filled.shape == plain.shape
        torch.testing.assert_close(filled, plain)


def test_a_weight_that_is_frozen_gets_no_gradient() -> None:
    hidden, weight = torch.randn(5, 4, requires_grad=True), torch.randn(7, 4)
    loss_sum, _ = chunked_cross_entropy_sum(hidden, weight, torch.arange(5), ignored=IGNORED)
    loss_sum.backward()
    assert hidden.grad is not None and weight.grad is None


class _Largest(TorchDispatchMode):
    """Notes the most elements that any result has."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.elements = max(self.elements, out.numel())
        return out


@contextmanager
def chunks_from(size: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(losses, "LARGE_LOGITS_BYTES", size)
        yield


def test_a_gpt_is_trained_without_its_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary, rows, length = 301, 64, 32
    model = GPT(vocabulary=vocabulary, length=length, layers=1, width=8, heads=2).double()
    initialise(model, "default", 0)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randint(vocabulary, (2, rows, length), generator=generator).unbind(0)
    found = []
    for large in (1 << 40, 0):
        with chunks_from(large, monkeypatch), _Largest() as seen:
            loss_sum, count = LOSSES["language"](model, {"x": x, "y": y})
            gradients = torch.autograd.grad(loss_sum, list(model.parameters()))
        found.append((loss_sum, count, gradients))
        assert (seen.elements >= rows * length * vocabulary) == (large > 0)
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("multiple", [1, 64])
def test_without_gradients_the_logits_are_not_made_either(multiple: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary, rows, length = 301, 64, 32
    model = GPT(vocabulary=vocabulary, length=length, layers=1, width=8, heads=2).double()
    initialise(model, "default", 0)
    x, y = torch.randint(vocabulary, (2, rows, length), generator=torch.Generator().manual_seed(0)).unbind(0)
    y[::5] = IGNORED
    monkeypatch.setitem(chunked_loss.MULTIPLES, "cpu", multiple)
    found = []
    for large in (1 << 40, 0):
        with chunks_from(large, monkeypatch), torch.no_grad(), _Largest() as seen:
            found.append(LOSSES["language"](model, {"x": x, "y": y}))
        assert (seen.elements >= rows * length * vocabulary) == (large > 0)
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_learns_by_chunks_what_it_learns_by_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(300, 32, generator=generator, dtype=torch.float64).cuda().requires_grad_()
    weight = torch.randn(501, 32, generator=generator, dtype=torch.float64).cuda().requires_grad_()
    y = torch.randint(501, (300,), generator=generator).cuda()
    whole = F.cross_entropy(hidden @ weight.T, y, reduction="sum")
    chunked, _ = chunked_cross_entropy_sum(hidden, weight, y, ignored=IGNORED, rows_at_once=128)
    torch.testing.assert_close(chunked, whole)
    got = torch.autograd.grad(chunked, (hidden, weight))
    for mine, wanted in zip(got, torch.autograd.grad(whole, (hidden, weight)), strict=True):
        torch.testing.assert_close(mine, wanted)
