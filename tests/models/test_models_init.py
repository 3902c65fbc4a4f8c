"""Initial weights have the variance of their formula, and depend on the seed alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from thrifty.errors import JobError
from thrifty.models.gpt import GPT
from thrifty.models.init import INITS, fans, initialise
from thrifty.models.mlp import MLP
from thrifty.models.resnet import ResNet

MODELS = {
    "mlp": lambda: MLP(inputs=400, widths=[300], classes=10),
    "resnet": lambda: ResNet(
        stem="cifar",
        block="bottleneck",
        shortcut="project",
        blocks=[1, 1],
        widths=[32, 64],
        channels=3,
        classes=10,
    ),
    "gpt": lambda: GPT(vocabulary=500, length=64, layers=3, width=64, heads=4),
}
VARIANCES = {
    "he_normal": lambda fan_in, fan_out: 2 / fan_in,
    "he_uniform": lambda fan_in, fan_out: 2 / fan_in,
    "xavier_normal": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "xavier_uniform": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
}


def test_fans_count_the_field() -> None:
    assert fans(torch.empty(8, 4)) == (4, 8)
    assert fans(torch.empty(8, 4, 3, 5)) == (60, 120)


def assert_variance(weight: torch.Tensor, variance: float, *, uniform: bool = False) -> None:
    # the sample variance of n normal draws is off by sqrt(2 / n); four of those, and the mean likewise
    n = weight.numel()
    assert weight.var(correction=0).item() == pytest.approx(variance, rel=4 * math.sqrt(2 / n))
    assert abs(weight.mean().item()) < 4 * math.sqrt(variance / n)
    if uniform:
        bound = math.sqrt(3 * variance)
        assert 0.9 * bound < weight.abs().max().item() <= bound * (1 + 1e-6)
    else:
        # a normal of this many draws passes twice its deviation, a uniform never passes 1.74 of it
        assert weight.abs().max().item() > 2 * math.sqrt(variance)


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("name", VARIANCES)
def test_variance_by_name(name: str, family: str) -> None:
    model = MODELS[family]()
    initialise(model, name, 0)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            assert_variance(module.weight, VARIANCES[name](*fans(module.weight)), uniform="uniform" in name)


def test_resnet_default_is_he_by_fan_out() -> None:
    model = MODELS["resnet"]()
    assert "fan_out" in initialise(model, "default", 0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            assert_variance(module.weight, 2 / fans(module.weight)[1])
    assert_variance(model.fc.weight, 1 / model.fc.in_features)


def test_gpt_default_is_that_of_gpt_2() -> None:
    model = MODELS["gpt"]()
    assert "residual projections by 1 / sqrt(6) less" in initialise(model, "default", 0)
    for block in model.h:
        assert_variance(block.attn.c_attn.weight, 0.02**2)
        assert_variance(block.mlp.c_fc.weight, 0.02**2)
        assert_variance(block.attn.c_proj.weight, 0.02**2 / 6)
        assert_variance(block.mlp.c_proj.weight, 0.02**2 / 6)


@pytest.mark.parametrize("name", [name for name in INITS if name != "own"])
def test_embeddings_are_normal_whatever_the_name(name: str) -> None:
    model = MODELS["gpt"]()
    assert "embeddings normal 0.02" in initialise(model, name, 0)
    assert_variance(model.wte.weight, 0.02**2)
    assert_variance(model.wpe.weight, 0.01**2)


def test_mlp_default_is_he() -> None:
    first, second = MODELS["mlp"](), MODELS["mlp"]()
    assert initialise(first, "default", 3) == initialise(second, "he_normal", 3)
    assert torch.equal(first.fc.weight, second.fc.weight)


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("name", [name for name in INITS if name != "own"])
def test_the_seed_alone_decides(name: str, family: str) -> None:
    first, second, other = MODELS[family](), MODELS[family](), MODELS[family]()
    for value in first.state_dict().values():
        value.fill_(7)
    state = torch.get_rng_state()
    initialise(first, name, 5)
    initialise(second, name, 5)
    initialise(other, name, 6)
    assert torch.equal(torch.get_rng_state(), state)
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key
    assert not torch.equal(first.state_dict()[_first_weight(first)], other.state_dict()[_first_weight(other)])


def _first_weight(model: nn.Module) -> str:
    return next(name for name, p in model.named_parameters() if p.dim() >= 2)


@pytest.mark.parametrize("family", MODELS)
def test_norms_and_biases_start_neutral(family: str) -> None:
    model = MODELS[family]()
    for value in model.state_dict().values():
        value.fill_(7)
    initialise(model, "default", 0)
    for name, value in model.state_dict().items():
        if name.endswith(("bias", "running_mean", "num_batches_tracked")):
            assert not value.any(), name
        elif value.dim() == 1:
            assert torch.equal(value, torch.ones_like(value)), name


def test_an_unknown_name() -> None:
    with pytest.raises(JobError, match=r"unknown initialiser 'he_norml'\. Did you mean 'he_normal'\?"):
        initialise(MODELS["mlp"](), "he_norml", 0)
