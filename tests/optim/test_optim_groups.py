"""Every parameter has the kind of the module that holds it, and every kind its rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from references import Net
from torch import nn

from thrifty.models.gpt import GPT
from thrifty.optim import OPTIMIZERS, tell_rules
from thrifty.optim.groups import RULES as KINDS
from thrifty.optim.groups import sort_parameters

MODELS: dict[str, tuple[Callable[[], nn.Module], dict[str, int]]] = {
    "gpt": (
        lambda: GPT(vocabulary=16, length=8, layers=1, width=8, heads=2),
        {"vector": 10, "embedding": 2, "matrix": 4},
    ),
    "net": (Net, {"vector": 5, "embedding": 1, "convolution": 1, "matrix": 1, "head": 1}),
    "mlp": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), {"vector": 2, "matrix": 1, "head": 1}),
    "convolutions": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3), nn.Linear(3, 2)),
        {"vector": 5, "input": 1, "convolution": 1, "head": 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_each_parameter_has_the_kind_of_its_module(name: str) -> None:
    make, expected = MODELS[name]
    model = make()
    found = sort_parameters(model).by_kind
    assert {kind: len(each) for kind, each in found.items() if each} == expected
    assert sum(map(len, found.values())) == len(list(model.parameters()))


def test_the_head_tied_to_an_embedding_is_one() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5, bias=False))
    model[2].weight = model[0].weight
    found = sort_parameters(model).by_kind
    assert [id(each) for each in found["embedding"]] == [id(model[0].weight)]
    assert found["head"] == [] and len(found["matrix"]) == 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_rules_are_told(name: str) -> None:
    value, reason = tell_rules(name, 0.1)
    assert all(kind in value for kind in KINDS) and "vector: norms and biases" in reason
    assert ("adamw: vector" in value) == (name in {"muon", "soap"})
    assert tell_rules("sgd", 0.0) == ("no decay", "all kinds of parameters are treated alike")
