"""Linear layers in whole numbers: near what they round, exact in their sums, and each row by itself to the bit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from small_models import drawn, small_plan

import thrifty.models.quantised as module
from thrifty.models.generate import generate
from thrifty.models.quantised import LARGEST, Quantised, quantised, rounded, whole_names


def layer(inputs: int = 96, outputs: int = 40, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs).requires_grad_(False)


def by_hand(linear: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """The same in whole numbers that no float rounds."""
    whole_OC, scale_O = rounded(linear.weight)
    scale_R1 = x.abs().amax(-1, keepdim=True) / LARGEST
    sums_RO = (x / scale_R1).round().long() @ whole_OC.long().T
    return (sums_RO.double() * scale_O.double() * scale_R1.double() + linear.bias.double()).float()


@settings(max_examples=5, deadline=None)
@given(rows=st.integers(1, 20), inputs=st.integers(1, 300), outputs=st.integers(1, 90), seed=st.integers(0, 9))
def test_a_row_is_computed_in_whole_numbers_and_by_itself(rows: int, inputs: int, outputs: int, seed: int) -> None:
    linear = layer(inputs, outputs, seed)
    whole = Quantised(linear.weight, linear.bias)
    x = torch.randn(rows, inputs) * 10 ** torch.randn(rows, 1)
    found = whole(x)
    torch.testing.assert_close(found, by_hand(linear, x), rtol=1e-4, atol=1e-4 * float(x.abs().max()))
    for row in {0, rows // 2, rows - 1}:
        assert torch.equal(whole(x[row : row + 1])[0], found[row])


def test_the_error_is_that_of_seven_bits_and_shapes_stay() -> None:
    linear = layer(768, 256)
    whole = Quantised(linear.weight, linear.bias)
    x = torch.randn(2, 5, 768)
    found, expected = whole(x), linear(x)
    assert found.shape == expected.shape
    assert (found - expected).norm() / expected.norm() < 0.02
    assert Quantised(linear.weight, dtype=torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16
    assert torch.equal(whole(torch.zeros(3, 768)), linear.bias.expand(3, -1))


def test_other_kernels_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    linear, x = layer(), torch.randn(7, 96)
    expected = Quantised(linear.weight, linear.bias)(x)
    monkeypatch.setattr(module, "has_kernel", lambda: False)
    torch.testing.assert_close(Quantised(linear.weight, linear.bias)(x), expected, rtol=1e-5, atol=1e-5)


def test_what_is_no_number_stays_none_in_its_row_alone() -> None:
    linear, x = layer(), torch.randn(4, 96)
    x[1, 5], x[2, 7] = float("nan"), float("inf")
    finite = Quantised(linear.weight, linear.bias)(x).isfinite().all(-1)
    assert finite.tolist() == [True, False, False, True]


def test_weights_that_are_rounded_stay_what_they_are() -> None:
    whole_OC, scale_O = rounded(layer().weight)
    again_OC, again_O = rounded(whole_OC.float() * scale_O[:, None])
    assert torch.equal(again_OC, whole_OC)
    torch.testing.assert_close(again_O, scale_O, rtol=1e-6, atol=0)


@pytest.mark.parametrize("family", ["gpt", "llama"])
def test_a_model_writes_in_whole_numbers_and_stays_near(family: str) -> None:
    model = drawn(small_plan(family)).requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    whole = quantised(model)
    x = torch.randint(32, (2, 12), generator=torch.Generator().manual_seed(0))
    found, expected = whole(x).float(), model(x)
    assert (found - expected).abs().max() / expected.abs().max() < 0.1
    assert not any(type(each) is nn.Linear for each in whole.modules())
    assert len(generate(whole, [1, 2, 3], max_tokens=6, temperature=0)) == 6
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    names = whole_names(model)
    assert ("wte.weight" if family == "gpt" else "tokens.weight") in names and "wpe.weight" not in names
