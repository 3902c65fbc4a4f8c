"""Initial weights have the variance of their formula, and depend on the seed alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from thrifty.errors import JobError
from thrifty.models.bert import BERT
from thrifty.models.fills import CONSTANTS, DISTRIBUTIONS, SPREAD, fans
from thrifty.models.gpt import GPT
from thrifty.models.init import initialise
from thrifty.models.llama import Llama
from thrifty.models.mlp import MLP
from thrifty.models.residuals import residual_ends
from thrifty.models.resnet import ResNet
from thrifty.models.schemes import INITS
from thrifty.models.vit import ViT
from thrifty.models.wav2vec2 import Wav2Vec2

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
    "llama": lambda: Llama(vocabulary=500, length=64, layers=2, width=64, heads=4, kv_heads=2, ffn=128, tied=False),
    "vit": lambda: ViT(patch=4, layers=2, width=64, heads=4, channels=3, side=32, classes=10),
    "bert": lambda: BERT(vocabulary=500, length=64, layers=2, width=64, heads=4, classes=10),
    "wav2vec2": lambda: Wav2Vec2(
        channels=[64, 64],
        kernels=[10, 3],
        strides=[5, 2],
        norm="layer",
        bias=True,
        window=16,
        groups=4,
        layers=2,
        width=64,
        heads=4,
        stable=True,
        projected=32,
        outputs=10,
        transcribes=False,
    ),
}
# of a normal cut at two deviations: 1 - 4 phi(2) / (2 Phi(2) - 1)
CUT = 0.7737


class Drawn(NamedTuple):
    """What a name's draws are known by: the variance by fans, and the bound in deviations where there is one."""

    variance: Callable[[int, int], float]
    bound: float = math.inf


FLAT = math.sqrt(3)
DRAWN = {
    "he_normal": Drawn(lambda ins, outs: 2 / ins),
    "he_uniform": Drawn(lambda ins, outs: 2 / ins, FLAT),
    "he_normal_fan_out": Drawn(lambda ins, outs: 2 / outs),
    "he_uniform_fan_out": Drawn(lambda ins, outs: 2 / outs, FLAT),
    "xavier_normal": Drawn(lambda ins, outs: 2 / (ins + outs)),
    "xavier_uniform": Drawn(lambda ins, outs: 2 / (ins + outs), FLAT),
    "lecun_normal": Drawn(lambda ins, outs: 1 / ins),
    "lecun_uniform": Drawn(lambda ins, outs: 1 / ins, FLAT),
    "normal": Drawn(lambda ins, outs: SPREAD**2),
    "truncated_normal": Drawn(lambda ins, outs: CUT * SPREAD**2, 2 / math.sqrt(CUT)),
}
SCHEMES = [name for name in INITS if name not in {"own", *CONSTANTS}]


def test_fans_count_the_field() -> None:
    assert fans(torch.empty(8, 4)) == (4, 8)
    assert fans(torch.empty(8, 4, 3, 5)) == (60, 120)


def test_every_distribution_is_in_the_table() -> None:
    assert {*DRAWN, "orthogonal"} == set(DISTRIBUTIONS)


def assert_variance(weight: Tensor, variance: float, *, bound: float = math.inf) -> None:
    """Check mean, variance and the largest value; ``bound`` is in deviations."""
    # the sample variance of n normal draws is off by sqrt(2 / n); four of those, and the mean likewise
    n = weight.numel()
    assert weight.var(correction=0).item() == pytest.approx(variance, rel=4 * math.sqrt(2 / n) + 1e-4)
    assert abs(weight.mean().item()) < 4 * math.sqrt(variance / n)
    most = weight.abs().max().item() / math.sqrt(variance)
    # a normal of this many draws passes twice its deviation, a uniform never passes 1.74 of it
    assert (0.9 * bound < most <= bound * 1.001) if math.isfinite(bound) else most > 2


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("name", DRAWN)
def test_variance_by_name(name: str, family: str) -> None:
    model = MODELS[family]()
    initialise(model, name, 0)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            assert_variance(module.weight, DRAWN[name].variance(*fans(module.weight)), bound=DRAWN[name].bound)


@pytest.mark.parametrize("shape", [(48, 48), (20, 60), (60, 20), (16, 8, 3, 3), (200, 8, 3, 3)], ids=str)
def test_orthogonal_rows_or_columns(shape: tuple[int, ...]) -> None:
    weight = torch.empty(shape)
    DISTRIBUTIONS["orthogonal"].fill(weight, torch.Generator().manual_seed(0))
    flat = weight.flatten(1)
    few = flat if flat.shape[0] <= flat.shape[1] else flat.T
    torch.testing.assert_close(few @ few.T, torch.eye(len(few)))


@pytest.mark.parametrize(
    ("family", "ends"), [("resnet", 2), ("vit", 4), ("gpt", 6), ("llama", 4), ("bert", 4), ("wav2vec2", 4)]
)
def test_residual_branches_by_depth_and_from_zero(family: str, ends: int) -> None:
    usual, less, zero = (MODELS[family]() for _ in range(3))
    initialise(usual, "default", 0)
    assert f"1 / sqrt({ends}) less" in initialise(less, "depth_scaled", 0)
    assert f"last layers of {ends} residual branches zero" in initialise(zero, "zero_residual", 0)
    last = {f"{name}.weight" for name in residual_ends(usual)}
    assert len(last) == ends
    for name, weight in usual.named_parameters():
        # GPT, Llama and BERT are scaled by default
        factor = ends**-0.5 if name in last and family in {"resnet", "vit", "wav2vec2"} else 1.0
        torch.testing.assert_close(less.get_parameter(name), factor * weight, rtol=1e-6, atol=0)
        assert torch.equal(zero.get_parameter(name), torch.zeros_like(weight) if name in last else weight)


def test_blocks_that_begin_at_zero_pass_what_they_get() -> None:
    model = MODELS["gpt"]().eval()
    initialise(model, "zero_residual", 0)
    x_BTC = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.h[0](x_BTC), x_BTC)


def test_a_name_for_each_pattern() -> None:
    model, whole = MODELS["gpt"](), MODELS["gpt"]()
    for value in model.state_dict().values():
        value.fill_(7)
    said = initialise(
        model, {"h.0.*.weight": "zeros", "h.*.c_proj.weight": "orthogonal", "*": "he_normal", "ln_f.*": "ones"}, 0
    )
    assert said.startswith(
        "h.0.*.weight: zeros; h.*.c_proj.weight: orthogonal rows or columns; ln_f.*: ones; the rest: He"
    )
    initialise(whole, "he_normal", 0)
    for name, weight in model.named_parameters():
        if name.startswith("h.0.") and name.endswith("weight"):
            assert not weight.any(), name
        elif name.endswith("c_proj.weight"):
            assert_variance(weight, 1 / max(fans(weight)))
        elif name.startswith("ln_f"):
            assert torch.equal(weight, torch.ones_like(weight))
        elif weight.dim() > 1:
            assert weight.std().item() == pytest.approx(whole.get_parameter(name).std().item(), rel=0.1), name
        else:
            assert torch.equal(weight, whole.get_parameter(name)), name


def test_what_no_pattern_matches_stays() -> None:
    model = MODELS["mlp"]()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    assert initialise(model, {"fc.weight": "normal"}, 0) == "fc.weight: normal 0.02; the rest: as its own code has it"
    assert_variance(model.fc.weight, SPREAD**2)
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters() if name != "fc.weight")


def test_parameters_of_no_layer_are_filled_by_pattern_alone() -> None:
    def made() -> nn.Module:
        model = nn.Sequential(nn.Linear(40, 50))
        model.register_parameter("positions", nn.Parameter(torch.ones(60, 50)))
        return model

    model = made()
    initialise(model, "he_normal", 0)
    assert torch.equal(model.positions, torch.ones(60, 50))
    initialise(model, {"positions": "truncated_normal"}, 0)
    assert_variance(model.positions, CUT * SPREAD**2, bound=2 / math.sqrt(CUT))


BROKEN: list[tuple[str, Any, str]] = [
    ("mlp", "he_norml", "unknown initialiser 'he_norml'. Did you mean 'he_normal'?"),
    ("mlp", {"fc.*": "he_norml"}, "unknown initialiser 'he_norml'. Did you mean 'he_normal'?"),
    ("mlp", {"fc.wieght": "zeros"}, "'fc.wieght' matches no parameter of the model. Did you mean 'fc.weight'?"),
    ("mlp", {"hiden.*": "zeros"}, "'hiden.*' matches no parameter of the model. Did you mean 'hidden.*'?"),
    ("mlp", {"fc.*": "zeros", "fc.bias": "ones"}, "all that 'fc.bias' matches, patterns before it have"),
    (
        "gpt",
        {"wte.weight": "he_normal"},
        "'wte.weight' matches no linear layer or convolution, and 'he_normal' draws no",
    ),
    ("mlp", {"*.bias": "orthogonal"}, "For other parameters there are: normal, truncated_normal, zeros, ones."),
    ("mlp", "depth_scaled", "train.init is depth_scaled, and the model has no residual branches that are known"),
    ("mlp", {"fc.*": "zero_residual"}, "Those of the table's ResNets and Transformers are"),
]


@pytest.mark.parametrize(("family", "init", "said"), BROKEN, ids=[row[2][:60] for row in BROKEN])
def test_what_cannot_be_meant(family: str, init: Any, said: str) -> None:
    with pytest.raises(JobError) as caught:
        initialise(MODELS[family](), init, 0)
    assert said in str(caught.value)


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


@pytest.mark.parametrize("name", [name for name in SCHEMES if name not in {"normal", "truncated_normal", "mup"}])
def test_embeddings_are_normal_whatever_the_name(name: str) -> None:
    model = MODELS["gpt"]()
    assert "embeddings normal 0.02" in initialise(model, name, 0)
    assert_variance(model.wte.weight, 0.02**2)
    assert_variance(model.wpe.weight, 0.01**2)


def test_mlp_default_is_he() -> None:
    first, second = MODELS["mlp"](), MODELS["mlp"]()
    assert initialise(first, "default", 3) == initialise(second, "he_normal", 3)
    assert torch.equal(first.fc.weight, second.fc.weight)


@pytest.mark.parametrize(("name", "family"), [*((name, "bert") for name in SCHEMES), ("default", "resnet")])
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
        elif value.dim() == 1 and name != "positions.gain":
            assert torch.equal(value, torch.ones_like(value)), name
