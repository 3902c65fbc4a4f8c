"""muP: at the base width all is usual; beyond it, what a model answers changes as much in a few steps at any width."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fnmatch import fnmatchcase

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from thrifty import optim
from thrifty.errors import JobError
from thrifty.models import build
from thrifty.models.init import initialise
from thrifty.models.mup import FAMILIES, POWERS, Steps, rate_shares, relative_width
from thrifty.optim.groups import rate_of
from thrifty.planner.widths import STEPS, UNKNOWN, hidden_matrices
from thrifty.spec import ModelPlan, OptimPlan

TOKENS = {"vocabulary": 64, "length": 16}
# sizes of a family's model of so many base widths, heads 32 wide
SIZES = {
    "mlp": lambda times: {"inputs": 192, "widths": [128 * times, 128 * times], "classes": 10},
    "resnet": lambda times: {
        "stem": "cifar", "block": "basic", "shortcut": "project", "blocks": [1, 1],
        "widths": [16 * times, 32 * times], "channels": 3, "classes": 10,
    },
    "vit": lambda times: {
        "patch": 4, "layers": 2, "width": 128 * times, "heads": 4 * times, "channels": 3, "side": 8, "classes": 10,
    },
    "bert": lambda times: {**TOKENS, "layers": 2, "width": 128 * times, "heads": 4 * times, "classes": 10},
    "bert_original": lambda times: {**TOKENS, "layers": 2, "width": 128 * times, "heads": 4 * times, "classes": 10},
    "gpt": lambda times: {**TOKENS, "layers": 2, "width": 192 * times, "heads": 6 * times},
    "llama": lambda times: {
        **TOKENS, "layers": 2, "width": 192 * times, "heads": 6 * times, "kv_heads": 3 * times, "ffn": 256 * times,
        "tied": False,
    },
}  # fmt: skip


def made(family: str, times: int, init: str = "mup", seed: int = 0) -> nn.Module:
    model = build(ModelPlan(name=family, family=family, arguments=SIZES[family](times)), seed=seed)
    initialise(model, init, seed)
    return model


def test_every_family_that_is_known_is_tried() -> None:
    assert {type(made(family, 1)) for family in SIZES} == set(FAMILIES)


@pytest.mark.parametrize("steps", POWERS)
@pytest.mark.parametrize("family", SIZES)
def test_at_the_base_width_all_learn_at_the_rate(family: str, steps: Steps) -> None:
    model = made(family, 1)
    assert relative_width(model) == 1
    assert rate_shares(model, steps, [name for name, each in model.named_parameters() if each.dim() > 1]) == {}


@pytest.mark.slow
@pytest.mark.parametrize("family", SIZES)
def test_variances_and_rates_are_those_of_table_3(family: str) -> None:
    base, wide = made(family, 1), made(family, 4)
    patterns = {steps: rate_shares(wide, steps) for steps in ("adam", "sgd")}
    for (name, narrow), weight in zip(base.named_parameters(), wide.parameters(), strict=True):
        found = {steps: _share(name, shares) for steps, shares in patterns.items()}
        ins = math.prod(weight.shape[1:]) / math.prod(narrow.shape[1:])
        if weight.dim() < 2 or name.startswith(("tokens", "wte", "wpe", "positions", "segments", "first")) or ins == 1:
            last = family == "gpt" and name.startswith("ln_f")
            expected = (1.0, 1.0) if name == "fc.bias" else (0.25, 0.25) if last else (1.0, 4.0)
            variance = 1.0
        elif len(weight) == len(narrow):
            expected, variance = (0.25, 0.25), 1 / 16
        else:
            expected, variance = (0.25, 1.0), 1 / 4
        assert (found["adam"], found["sgd"]) == expected, name
        if weight.dim() > 1:
            error = 5 * math.sqrt(2 / narrow.numel())
            assert (weight.var() / narrow.var()).item() == pytest.approx(variance, rel=error), name


def _share(name: str, shares: dict[str, float]) -> float:
    return next((share for pattern, share in shares.items() if fnmatchcase(name, pattern)), 1.0)


def stepping_at(model: nn.Module, init: str, optimizer: str, rate: float, momentum: float = 0) -> Optimizer:
    """The optimizer of a plan whose rates go by width where the weights do."""
    shares = rate_shares(model, STEPS[optimizer], hidden_matrices(model)) if init == "mup" else {}
    plan = OptimPlan(
        optimizer=optimizer, schedule="fixed", learning_rate=rate, momentum=momentum, betas=(0.9, 0.999), eps=1e-8,
        weight_decay=0, warmup_steps=0, total_steps=9, steps_per_epoch=9, decay=1, plateau_patience=0, clip=math.inf,
        shares=shares,
    )  # fmt: skip
    return optim.build(model, plan)


def take_step(model: nn.Module, stepping: Optimizer, x: Tensor, y: Tensor, rate: float) -> None:
    F.cross_entropy(model(x).flatten(0, -2), y).backward()
    for group in stepping.param_groups:
        group["lr"] = rate_of(group, rate)
    stepping.step()
    stepping.zero_grad()


def moved(family: str, times: int, init: str, optimizer: str, rate: float) -> float:
    """How far a few steps move the answers, in the root mean square."""
    model = made(family, times, init)
    generator = torch.Generator().manual_seed(1)
    x, y = _batch(family, generator)
    stepping = stepping_at(model, init, optimizer, rate)
    before = model(x).detach()
    for _ in range(3):
        take_step(model, stepping, x, y, rate)
    return float((model(x).detach() - before).square().mean().sqrt())


def _batch(family: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    if family in {"mlp", "resnet", "vit"}:
        return torch.randn(16, 3, 8, 8, generator=generator), torch.randint(10, (16,), generator=generator)
    x = torch.randint(1, 64, (16, 16), generator=generator)
    answers = (16, 10) if family.startswith("bert") else (256, 64)
    return x, torch.randint(answers[1], answers[:1], generator=generator)


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "rate"), [("adamw", 3e-3), ("sgd", 0.02)])
@pytest.mark.parametrize("family", ["mlp", "vit", "gpt"])
def test_steps_move_the_answers_as_far_at_any_width(family: str, optimizer: str, rate: float) -> None:
    narrow, wide = (moved(family, times, "mup", optimizer, rate) for times in (1, 4))
    assert 0.4 < wide / narrow < 1.6
    usual = [moved(family, times, "default", optimizer, rate) for times in (1, 4)]
    assert usual[1] / usual[0] > 1.5 * wide / narrow


WIDTHS = (64, 128, 256, 512)
# of the optimizers, by how muP has them step: the rates by which three steps move a narrow model well
RATES = {"adamw": 3e-3, "lion": 1e-3, "rmsprop": 1e-3, "adagrad": 1e-2, "lamb": 0.02, "adafactor": 0.05, "muon": 0.01}
LAYERS = {"mlp": r"hidden\.[012]", "gpt": r"h\.[01]"}


def slopes(family: str, init: str, optimizer: str, seeds: int = 2) -> np.ndarray:
    """Powers of the width by which three steps move activations, layer by layer, and last the answers."""
    found = [[_moves(family, width, init, optimizer, seed) for seed in range(seeds)] for width in WIDTHS]
    return np.polyfit(np.log(WIDTHS), np.log(found).mean(1), 1)[0]


def _moves(family: str, width: int, init: str, optimizer: str, seed: int) -> list[float]:
    sizes = {
        "mlp": {"inputs": 192, "widths": [width] * 3, "classes": 10},
        "gpt": {**TOKENS, "layers": 2, "width": width, "heads": width // 32},
    }
    model = build(ModelPlan(name=family, family=family, arguments=sizes[family]), seed=seed)
    initialise(model, init, seed)
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda module, given, found: seen.update({name: found.detach()})

    for name, module in model.named_modules():
        if re.fullmatch(LAYERS[family], name):
            module.register_forward_hook(keep(name))

    def activations() -> list[Tensor]:
        answers = model(x).detach()
        return [*seen.values(), answers]

    generator = torch.Generator().manual_seed(seed)
    x, y = _taught(family, generator)
    before = activations()
    stepping = stepping_at(model, init, optimizer, RATES[optimizer], momentum=0.9)
    for _ in range(3):
        take_step(model, stepping, x, y, RATES[optimizer])
    return [float((new - old).square().mean().sqrt()) for new, old in zip(activations(), before, strict=True)]


def _taught(family: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What can be learned, so that steps go one way."""
    if family == "mlp":
        x = torch.randn(64, 3, 8, 8, generator=generator)
        return x, x.mean((2, 3)).argmax(1)
    x = torch.randint(1, 64, (16, 16), generator=generator)
    return x, ((5 * x + 1) % 64).flatten()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "optimizer"),
    [*(("mlp", each) for each in RATES), *(("gpt", each) for each in ("lamb", "adafactor", "muon"))],
)
def test_steps_move_activations_as_far_at_widths_64_to_512(family: str, optimizer: str) -> None:
    found = slopes(family, "mup", optimizer, seeds=2 if family == "mlp" else 1)
    assert np.abs(found[:-1]).max() < 0.3, found
    assert abs(found[-1]) < 0.4, found
    if family == "mlp":
        assert slopes(family, "default", optimizer)[-1] > found[-1] + 0.3


def test_every_optimizer_has_its_rates_or_a_reason_why_not() -> None:
    assert not STEPS.keys() & UNKNOWN.keys()
    assert STEPS.keys() | UNKNOWN.keys() == optim.OPTIMIZERS.keys()


def test_what_muon_steps_goes_by_the_sides_of_each_matrix() -> None:
    model = made("gpt", 4)
    shares = rate_shares(model, "muon", hidden_matrices(model))
    names = [name for name, _ in model.named_parameters()]
    assert {_share(name, shares) for name in names if ".attn.c_" in name and name.endswith("weight")} == {0.5}
    assert [_share(name, shares) for name in ("wte.weight", "ln_f.weight")] == [1.0, 0.25]
    # of 192 inputs, and so more columns than rows at the base width: sqrt(4 / 1) more, at sqrt(512 / 192) of the size
    model = made("mlp", 4)
    shares = rate_shares(model, "muon", hidden_matrices(model))
    assert shares == {
        "hidden.0.weight": pytest.approx(2 * (192 / 512) ** 0.5),
        "hidden.1.weight": 0.5,
        "fc.weight": 0.25,
    }


def test_a_model_of_no_family_is_refused() -> None:
    with pytest.raises(JobError, match=r"train\.init is mup, and which parameters .* is not known.* It is for ResNets"):
        initialise(nn.Sequential(nn.Linear(2, 2)), "mup", 0)
