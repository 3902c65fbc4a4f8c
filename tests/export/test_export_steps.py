"""A traced program as steps: torch, going through them by name, gives what the model gives, at sizes that were open."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from safetensors.numpy import save_file
from torch import Tensor, nn
from torch.export import Dim

from thrifty.errors import BundleError
from thrifty.export.arrays import pack, read_tensors, unpack
from thrifty.export.steps import STEPS, WEIGHTS, write_steps


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 4)
        self.register_buffer("scale", torch.tensor(0.5))

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        x_BTC = self.words(tokens) * self.scale
        places_T = torch.arange(tokens.shape[1], dtype=torch.float32)
        return {"mean": x_BTC.mean(1), "scores": x_BTC @ self.words.weight.t() + places_T[:, None]}


def go_through(folder: Path, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Compute the steps with torch's own operators, by nothing but what is written down."""
    program = json.loads((folder / STEPS).read_text())
    tensors = {name: torch.from_numpy(each.copy()) for name, each in read_tensors(folder / WEIGHTS).items()}
    values: dict[str, Any] = {value: tensors[name] for value, name in program["weights"].items()}
    values |= {each["value"]: given[each["name"]] for each in program["inputs"]}

    def filled(argument: Any) -> Any:
        if isinstance(argument, list):
            return [filled(each) for each in argument]
        if isinstance(argument, dict):
            return values[argument["value"]] if "value" in argument else getattr(torch, argument["type"])
        return argument

    for step in program["steps"]:
        space, name, *overload = step["operator"].split(".")
        function: Callable[..., Any] = (
            getattr(getattr(torch.ops.aten, name), overload[0]) if space == "aten" else getattr(operator, name)
        )
        options = {option: filled(each) for option, each in step["options"].items()}
        values[step["value"]] = function(*map(filled, step["arguments"]), **options)
        if "sizes" in step:
            sizes = zip(step["sizes"], values[step["value"]].shape, strict=True)
            assert all(said in (None, found) for said, found in sizes)
    return {name: filled(value) for name, value in program["outputs"].items()}


@pytest.mark.slow
def test_steps_give_what_the_model_gives(tmp_path: Path) -> None:
    model = Small().eval()
    open_sizes = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    program = torch.export.export(model, (torch.zeros(3, 5, dtype=torch.int64),), dynamic_shapes=(open_sizes,))
    write_steps(program, tmp_path, inputs=["tokens"], outputs=["mean", "scores"])
    said = json.loads((tmp_path / STEPS).read_text())
    assert [(each["name"], each["type"], each["sizes"]) for each in said["inputs"]] == [("tokens", "int64", [None] * 2)]
    assert all("assert" not in step["operator"] for step in said["steps"])
    for rows, length in ((3, 5), (2, 9)):
        tokens = torch.randint(7, (rows, length))
        found, wanted = go_through(tmp_path, {"tokens": tokens}), model(tokens)
        assert found.keys() == wanted.keys()
        assert all(torch.allclose(found[name], wanted[name]) for name in wanted)


def test_an_argument_without_a_form_is_named() -> None:
    from thrifty.export.steps import _argument

    assert _argument([torch.float32, None, 1, torch.device("cpu")]) == [{"type": "float32"}, None, 1, None]
    with pytest.raises(BundleError, match=r"1j.* of complex has no form"):
        _argument(1j)


TYPES = (np.float32, np.float64, np.int64, np.int32, np.uint8, np.bool_)
ARRAYS = st.sampled_from(TYPES).flatmap(
    lambda kind: st_numpy.arrays(kind, st_numpy.array_shapes(min_dims=0, min_side=0))
)


@given(ARRAYS)
def test_what_is_packed_is_unpacked(array: np.ndarray) -> None:
    again = unpack(json.loads(json.dumps(pack(array))))
    assert again.dtype == array.dtype and again.shape == array.shape
    assert again.tobytes() == array.tobytes()


def test_safetensors_are_read_by_numpy_alone(tmp_path: Path) -> None:
    tensors = {kind.__name__: np.arange(6).reshape(2, 3).astype(kind) for kind in TYPES} | {"none": np.zeros((0, 3))}
    save_file(tensors, tmp_path / "x", metadata={"a": "b"})
    found = read_tensors(tmp_path / "x")
    assert found.keys() == tensors.keys()
    assert all(np.array_equal(found[name], each) and found[name].dtype == each.dtype for name, each in tensors.items())
    (tmp_path / "y").write_bytes(b"\xff" * 16)
    with pytest.raises(ValueError, match="'y' is no safetensors file"):
        read_tensors(tmp_path / "y")
