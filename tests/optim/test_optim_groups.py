"""Every parameter has the kind of the module that holds it, and every kind its rule."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from references import Net
from torch import nn

from thrifty import optim
from thrifty.models.gpt import GPT
from thrifty.models.wav2vec2 import Wav2Vec2
from thrifty.optim import OPTIMIZERS, tell_rules
from thrifty.optim.groups import RULES as KINDS
from thrifty.optim.groups import rate_of, sort_parameters
from thrifty.optim.release import Release
from thrifty.spec import OptimPlan

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
    # two convolutions after the first and the directions of positions; a join, four of each block, a projector
    "wav2vec2": (
        lambda: Wav2Vec2(
            channels=[4, 4, 4], kernels=[10, 3, 2], strides=[5, 2, 2], norm="group", bias=False, window=6, groups=2,
            layers=2, width=8, heads=2, stable=False, projected=6, outputs=3, transcribes=False,
        ),
        {"vector": 27, "input": 1, "convolution": 3, "matrix": 10, "head": 1},
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


@pytest.mark.parametrize("name", ["adamw", "sgd", "nadam"])
@pytest.mark.parametrize("precision", ["fp32", "bf16_compensated"])
def test_a_share_of_the_rate_is_as_that_rate(name: str, precision: str) -> None:
    """One parameter at a quarter of the rate goes where it goes at a quarter of it for all, decay as for the others."""

    def stepped(rate: float, decay: float, shares: dict[str, float]) -> list[torch.Tensor]:
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        with torch.no_grad():
            for number, each in enumerate(model.parameters()):
                each.copy_(torch.linspace(-1, 2 + number, each.numel()).view_as(each))
        if precision != "fp32":
            model.bfloat16()
        optimizer = optim.build(model, plan_of(name, rate, decay, shares), precision)
        for _ in range(3):
            for each in model.parameters():
                each.grad = each.detach() ** 2 + 1
            for group in optimizer.param_groups:
                group["lr"] = rate_of(group, rate)
            optimizer.step()
        return [each.detach() for each in model.parameters()]

    whole, shared = stepped(0.01, 0.1, {}), stepped(0.01, 0.1, {"0.weight": 0.25})
    quarter = stepped(0.0025, 0.4, {})
    assert torch.equal(shared[0], quarter[0]) and not torch.equal(shared[0], whole[0])
    assert all(torch.equal(one, other) for one, other in zip(shared[1:], whole[1:], strict=True))


def test_released_gradients_are_stepped_at_their_share() -> None:
    one, other = (nn.Parameter(torch.ones(1)) for _ in range(2))
    optimizer = torch.optim.SGD([{"params": [one]}, {"params": [other], "share": 0.5}], lr=1.0)
    release = Release(optimizer)
    release.backward((one + other).sum(), 1.0, 0.1)
    release.remove()
    assert (one.item(), other.item()) == (pytest.approx(0.9), pytest.approx(0.95))


def test_without_shares_there_are_two_groups() -> None:
    model = Net()
    assert [set(group) for group in sort_parameters(model).groups(0.1)] == [{"params", "weight_decay"}] * 2
    groups = sort_parameters(model, {"*.weight": 0.5}).groups(0.1)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert {(group.get("share"), group["weight_decay"]) for group in groups} >= {(0.5, 0.2), (None, 0.1), (None, 0.0)}


def plan_of(name: str, rate: float, decay: float, shares: dict[str, float]) -> OptimPlan:
    return OptimPlan(
        optimizer=name, schedule="fixed", learning_rate=rate, momentum=0, betas=(0.9, 0.999), eps=1e-8,
        weight_decay=decay, warmup_steps=0, total_steps=9, steps_per_epoch=9, decay=1, plateau_patience=0,
        clip=math.inf, shares=shares,
    )  # fmt: skip
