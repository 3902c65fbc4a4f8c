"""Linear layers laid out for speed compute what plain ones do, and a row the same bits among any number of rows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from thrifty.models.gpt import FeedForward
from thrifty.models.reordered import Reordered, can_reorder, reordered


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
def test_the_product_is_that_of_a_plain_layer(dtype: torch.dtype, bias: bool) -> None:
    plain = nn.Linear(48, 80, bias=bias).to(dtype)
    x = torch.randn(2, 5, 48).to(dtype)
    with torch.inference_mode():
        torch.testing.assert_close(Reordered(plain.weight, plain.bias)(x), plain(x))
        torch.testing.assert_close(Reordered(plain.weight, plain.bias)(x[0, 0]), plain(x[0, 0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", [(48, 80), (768, 100), (100, 33)], ids=str)
def test_a_row_has_the_same_bits_among_any_number_of_rows(dtype: torch.dtype, sizes: tuple[int, int]) -> None:
    layer = nn.Linear(*sizes).to(dtype)
    x = torch.randn(67, sizes[0]).to(dtype)
    with torch.inference_mode():
        fast = Reordered(layer.weight, layer.bias)
        whole = fast(x)
        for rows in (1, 2, 3, 7, 16, 17, 33, 64):
            assert torch.equal(fast(x[:rows]), whole[:rows]), rows


def test_the_given_model_stays_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Sequential(nn.Linear(8, 4)))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x = torch.randn(3, 8)
    with torch.inference_mode():
        fast = reordered(model)
        torch.testing.assert_close(fast(x), model(x))
    assert isinstance(fast[0], Reordered) and type(model[0]) is nn.Linear  # type: ignore[index]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_gelu_within_the_kernel_is_the_one_that_follows(dtype: torch.dtype) -> None:
    plain = FeedForward(32).to(dtype)
    x = torch.randn(5, 32).to(dtype)
    with torch.inference_mode():
        fast = reordered(plain)
        # within the kernel nothing is rounded before it
        torch.testing.assert_close(fast(x), plain(x), rtol=0.02, atol=0.01 if dtype == torch.bfloat16 else 1e-5)
        assert dtype == torch.float64 or torch.equal(fast(x[:1]), fast(x)[:1])


def test_types_without_such_kernels_stay_plain() -> None:
    assert not can_reorder(torch.zeros(2, 2, dtype=torch.float64))
