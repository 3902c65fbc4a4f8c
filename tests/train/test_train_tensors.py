"""Copies share what was shared; what is written as safetensors is read back by the package as it was."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load
from torch import nn

from thrifty.train.tensors import Copies, own_weights, write_safetensors

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool,
]  # fmt: skip


def written(weights: dict[str, torch.Tensor]) -> bytes:
    file = io.BytesIO()
    write_safetensors(file, weights)
    return file.getvalue()


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=4)),
        max_size=5,
    )
)
def test_what_is_written_is_read_back(kinds: dict[str, Any]) -> None:
    weights = {name: torch.randn(shape).mul(3).to(dtype) for name, (dtype, shape) in kinds.items()}
    found = load(written(weights))
    assert found.keys() == weights.keys()
    for name, value in weights.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name


def test_any_layout_is_written_in_order(tmp_path: Any) -> None:
    weight = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    weights = {"last": weight, "turned": torch.randn(3, 2).T, "part": torch.randn(8)[2:5], "one": torch.tensor(7.0)}
    (tmp_path / "file").write_bytes(written(weights))
    with safe_open(tmp_path / "file", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        for name, value in weights.items():
            assert torch.equal(file.get_tensor(name), value)


def test_tied_weights_are_copied_once_and_named_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    copied = Copies().of(model.state_dict())
    assert copied["0.weight"] is copied["1.weight"]
    assert own_weights(model).keys() == {"0.weight", "0.bias", "1.bias"}
    with torch.no_grad():
        model[0].weight.zero_()
    assert copied["0.weight"].any()


def test_what_was_copied_already_is_not_copied_again() -> None:
    model = nn.Linear(4, 4)
    first = Copies()
    weights = first.of(model.state_dict())
    again = Copies(first).of({"model": model.state_dict(), "step": torch.tensor(1.0)})
    assert again["model"]["weight"] is weights["weight"]


@pytest.mark.parametrize("tree", [{}, [], (), 3, "x", None, {"a": [1, (2.5, None)]}])
def test_what_holds_no_tensor_comes_back_as_it_is(tree: Any) -> None:
    assert Copies().of(tree) == tree


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_goes_on_while_its_copies_travel() -> None:
    weight = torch.ones(1 << 22, device="cuda")
    copies = Copies()
    copied = copies.of({"weight": weight})["weight"]
    weight.zero_()
    copies.wait()
    assert copied.device.type == "cpu" and bool((copied == 1).all())
